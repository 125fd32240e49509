"""Rank documents by the words that they share with a query: BM25, the lexical baseline.

    score(q, d) = sum_{t in q} idf(t) f(t, d) (k1 + 1) / (f(t, d) + k1 (1 - b + b |d| / mean |d|))
    idf(t) = log(1 + (N - n(t) + 0.5) / (n(t) + 0.5))

f(t, d) is how often word t is in document d, |d| its words, n(t) the documents that hold t.
Robertson & Zaragoza 2009 (Foundations and Trends in IR 3), with the idf of Lucene, never negative.
"""

import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np

_WORD = re.compile(r"\w+")
_INSIDE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|_")
Found = tuple[np.ndarray, np.ndarray]  # document indices and their scores, best first


def words(text: str) -> list[str]:
    """Split a text into lower-case words, and identifiers into theirs; nothing is stemmed.

    >>> words("The HTTPServer's max_size, getName()")
    ['the', 'http', 'server', 's', 'max', 'size', 'get', 'name']
    """
    return [word.lower() for word in _WORD.findall(_INSIDE.sub(" ", text))]


class Bm25:
    """An index of documents.

    Args:
      documents: their texts.
      k1: how soon a repeated word stops counting; 1.2 is Lucene's.
      b: how much long documents are held back, 0 to 1; 0.75 is Lucene's.
      tokenize: a text to its words.

    Raises:
      ValueError: no documents, or an option out of range.

    >>> index = Bm25(["a red fox", "a blue whale", "foxes"])
    >>> [found[0].tolist() for found in index.search(["red whale fox", "dog"], k=2)]
    [[0, 1], []]
    """

    def __init__(
        self,
        documents: Sequence[str],
        *,
        k1: float = 1.2,
        b: float = 0.75,
        tokenize: Callable[[str], list[str]] = words,
    ):
        if not documents or k1 < 0 or not 0 <= b <= 1:
            raise ValueError(
                f"need documents, k1 >= 0 and b in [0, 1], got {len(documents)}, {k1}, {b}"
            )
        self._vocabulary: dict[str, int] = {}
        self._tokenize = tokenize
        count_NW = self._count(documents, grow=True)
        self._weight_WN = _weigh(count_NW, k1, b).T.tocsr()

    def _count(self, texts: Sequence[str], grow: bool = False):
        """Count the words of texts, sparse [N, W]; a word that is not known is left out."""
        from scipy.sparse import csr_array

        known, rows, columns = self._vocabulary, [], []
        for row, text in enumerate(texts):
            for word in self._tokenize(text):
                column = known.setdefault(word, len(known)) if grow else known.get(word)
                if column is not None:
                    rows.append(row)
                    columns.append(column)
        counted = csr_array(
            (np.ones(len(rows)), (rows, columns)), shape=(len(texts), max(len(known), 1))
        )
        counted.sum_duplicates()
        return counted

    def search(
        self, queries: Sequence[str], k: int, *, queries_at_once: int = 256
    ) -> Iterator[Found]:
        """Find the best k documents of each query among those that share a word with it.

        Of equal scores the lower index comes first.

        Args:
          queries: texts; a word that is there twice counts twice.
          k: documents for each query at most.
          queries_at_once: how many meet all documents in one product of matrices.

        Returns:
          For each query, in order, indices [<= k] and scores [<= k].
        """
        for start in range(0, len(queries), queries_at_once):
            count_QW = self._count(queries[start : start + queries_at_once])
            score_QN = (count_QW @ self._weight_WN).tocsr()
            for row in range(score_QN.shape[0]):
                inside = slice(score_QN.indptr[row], score_QN.indptr[row + 1])
                yield _best(score_QN.indices[inside], score_QN.data[inside], k)


def _weigh(count_NW, k1: float, b: float):
    """Turn counts into the summands of the score."""
    n, length_N = count_NW.shape[0], np.asarray(count_NW.sum(axis=1)).ravel()
    documents_W = np.bincount(count_NW.indices, minlength=count_NW.shape[1])
    idf_W = np.log1p((n - documents_W + 0.5) / (documents_W + 0.5))
    held_back_N = k1 * (1 - b + b * length_N / max(length_N.mean(), 1e-9))
    rows = np.repeat(np.arange(n), np.diff(count_NW.indptr))
    f = count_NW.data
    weighed = count_NW.copy()
    weighed.data = idf_W[count_NW.indices] * f * (k1 + 1) / (f + held_back_N[rows])
    return weighed


def _best(index: np.ndarray, scores: np.ndarray, k: int) -> Found:
    kept = np.lexsort((index, -scores))[:k]
    return index[kept], scores[kept]
