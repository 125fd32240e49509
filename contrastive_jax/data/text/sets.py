"""Text sets to train on: the texts of a source as tokens, a query with a document an example."""

from collections.abc import Callable, Sequence

import numpy as np

from contrastive_jax.data import lengths as by_length
from contrastive_jax.data import mixing
from contrastive_jax.data.examples import (
    Dataset,
    Examples,
    Texts,
    check_batch_size,
)
from contrastive_jax.data.text import of_rows, tokens
from contrastive_jax.data.text.corpus import Corpus
from contrastive_jax.data.text.of_rows import Row, Settings
from contrastive_jax.data.text.tokens import Tokenizer
from contrastive_jax.errors import DataError


def settings(
    vocabulary_size: int = 16_000,
    query_length: int = 64,
    document_length: int = 256,
    train_length: int | None = None,
    query_prompt: str = "",
    document_prompt: str = "",
) -> Settings:
    """Choose how texts become tokens, by the keys of the config's `tokens`.

    Args:
      vocabulary_size: of a vocabulary that is trained on the training split.
      query_length, document_length: tokens at most; what comes after is cut off.
      train_length: of a document in training, where it costs most; None for the same.
      query_prompt, document_prompt: stand before each text, as encoders were trained with.

    Raises:
      ValueError: a number out of range.
    """
    numbers = {"query_length": query_length, "document_length": document_length}
    numbers |= {} if train_length is None else {"train_length": train_length}
    for key, value in {**numbers, "vocabulary_size": vocabulary_size}.items():
        least = 3 if key == "vocabulary_size" else 1
        if value < least:
            raise ValueError(f"tokens.{key} is {value}; give at least {least}")
    lengths = query_length, document_length, train_length
    return Settings(vocabulary_size, *lengths, query_prompt, document_prompt)


def dataset(
    corpus: Corpus,
    chosen: Settings,
    *,
    batch_size: int,
    n_negatives: int = 0,
    weights: tuple[int, ...] | None = None,
    mix: str = "batch",
    length_buckets: int = 1,
    mined: bool = False,
    tokenizer: Tokenizer | None = None,
    n_tokens: int | None = None,
    guide: Callable[[str, Sequence[str]], np.ndarray] | None = None,
) -> Dataset:
    """Turn texts into examples, an example a query with one of its documents.

    Args:
      corpus: of `sources.read`.
      chosen: of `settings`.
      batch_size: pairs of a step.
      n_negatives: K, negatives of a pair at most, the first of its row.
      weights, mix: of a corpus of several sets, as of `mixing.make`.
      length_buckets: classes of pairs by the length of their documents, each of which has its part
        of every batch and its own padding; 1 for batches at random, all padded alike.
      mined: whether negatives are mined while training, and those of the rows are the first ones.
      tokenizer: in place of one that is trained on the training pairs.
      n_tokens: that the encoder has; those of the tokenizer by default.
      guide: the side ("query", "document") and its texts to vectors [N,G] of a guided loss.

    Returns:
      A set whose training examples hold "query" [N,L] and "document" [N,L], unsigned, with
      "query_length" and "document_length" [N] int32; "id" [N] int32, equal where pairs share a
      query or a document; and with negatives "negatives" [N,K,L], "negatives_length" and
      "negatives_id" [N,K] int32, "negatives_mask" [N,K] bool. Those that are mined are not there
      but rows of a corpus, in `Texts.mineable`. Where all rows have them also "score" [N] and,
      a teacher's, "scores" [N,1+K] float32; with a guide "query_guide", "document_guide" [N,G] and
      "negatives_guide" [N,K,G].

    Raises:
      ValueError: a batch larger than the set, or a number of negatives that cannot be meant.
      DataError: no pair of the file has negatives, and some are asked for.
    """
    if n_negatives < 0:
        raise ValueError(f"data.n_negatives is {n_negatives}; give 0 or more")
    if mined and not n_negatives:
        raise ValueError("mine.every_steps asks for negatives; set data.n_negatives as well")
    rows, sizes = _distinct(corpus)
    if n_negatives and not mined and not any(row.negatives for row in rows):
        raise DataError(
            f"{corpus.name} has no negatives, and data.n_negatives is {n_negatives}.\n"
            "Mine some with experiments.mine, or leave it at 0."
        )
    check_batch_size(batch_size, len(rows))
    mixed = _mix(corpus, sizes, batch_size, weights, mix)
    if mixed is not None and length_buckets > 1:
        raise ValueError("data.length_buckets are of one set; set it to 1 with data.source 'mix'")
    documents = list(dict.fromkeys(text for row in rows for text in (row.document, *row.negatives)))
    queries = list(dict.fromkeys(row.query for row in rows))
    if tokenizer is None:  # negatives may be documents of the test
        answers = dict.fromkeys(row.document for row in rows)
        tokenizer = tokens.train([*queries, *answers], chosen.vocabulary_size)
    made = tokenizer
    _check_lengths(made, chosen)
    shown = chosen._replace(document_length=chosen.train_length or chosen.document_length)
    encoded = of_rows.encode(rows, queries, documents, made, shown)
    train = of_rows.examples(encoded) | of_rows.graded(encoded)
    if n_negatives and not mined:
        train |= of_rows.negatives(encoded, n_negatives) | of_rows.taught(encoded, n_negatives)
    lengths = by_length.split(train["document_length"], length_buckets, batch_size)
    guide_MG = None if guide is None else guide("document", documents)
    if guide is not None and guide_MG is not None:
        train |= of_rows.guided(encoded, guide("query", queries), guide_MG, train)
    tested = [
        of_rows.Row(
            corpus.test.queries[q], corpus.test.documents[max(judged, key=lambda d: judged[d])]
        )
        for q, judged in corpus.test.grades.items()
    ]
    asked = list(dict.fromkeys(row.query for row in tested))
    answers = list(dict.fromkeys(row.document for row in tested))
    test = of_rows.examples(of_rows.encode(tested, asked, answers, made, chosen))
    size = n_tokens or made.size
    notes = (*corpus.notes, *_cut(train, shown), *_joined_in_batches(train["id"], mixed))
    idf_T = inverse_frequency(train["document"], size)
    kept = Texts(made, size, chosen, corpus.test, corpus.validation, notes, idf_T)
    kept = kept._replace(graded=corpus.graded, mix=mixed, lengths=lengths)
    if mined:
        mineable = of_rows.mineable(encoded, queries, n_negatives)
        kept = kept._replace(mineable=mineable._replace(corpus_guide=guide_MG))
    return Dataset(corpus.name, train, test, (), batch_size, texts=kept)


def _distinct(corpus: Corpus) -> tuple[list[Row], list[int]]:
    """List the distinct examples, and how many are of each set; the first that has one keeps it."""
    set_of: dict[Row, int] = {}
    for number, pairs in enumerate(corpus.by_set()):
        for row in of_rows.rows_of(pairs):
            set_of.setdefault(row, number)
    sizes = np.bincount(list(set_of.values()), minlength=len(corpus.by_set()))
    return list(set_of), sizes.tolist()


def _mix(
    corpus: Corpus, sizes: list[int], batch_size: int, weights: tuple[int, ...] | None, by: str
) -> mixing.Mix | None:
    """Choose how the sets of a corpus are mixed; None where it is of one.

    Raises:
      ValueError: as `mixing.make`, or keys of a mix where there is none.
    """
    if corpus.sets:
        return mixing.make([name for name, _ in corpus.sets], sizes, batch_size, weights, by)
    if (weights, by) != (None, "batch"):
        raise ValueError("data.weights and data.mix are of data.source 'mix'; leave them out")
    return None


def inverse_frequency(tokens_NL: np.ndarray, n_tokens: int) -> np.ndarray:
    """Compute how telling each token is, float32 [T]: log(1 + (N - n + 0.5) / (n + 0.5)).

    n is how many of the N texts hold it, as in BM25.

    >>> inverse_frequency(np.array([[2, 3], [2, 0]]), 4).round(2)
    array([0.69, 1.79, 0.18, 0.69], dtype=float32)
    """
    ordered = np.sort(tokens_NL, axis=1)
    first = np.ones(ordered.shape, bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    n_T = np.bincount(ordered[first], minlength=n_tokens)
    return np.log1p((len(tokens_NL) - n_T + 0.5) / (n_T + 0.5)).astype(np.float32)


def _check_lengths(tokenizer: Tokenizer, chosen: Settings) -> None:
    """Refuse texts that would hold the tokenizer's special tokens and nothing else."""
    for side, limit in (("query", chosen.query_length), ("document", chosen.document_length)):
        if limit <= tokenizer.n_special:
            raise ValueError(
                f"tokens.{side}_length is {limit}, and each text has {tokenizer.n_special} special "
                f"tokens; give at least {tokenizer.n_special + 1}"
            )


def _joined_in_batches(id_N: np.ndarray, mix: mixing.Mix | None) -> list[str]:
    """Say `_joined` of all pairs that may meet in a batch: those of each set, or all."""
    if mix is None or mix.by == "example":
        return _joined(id_N)
    of_sets = zip(mix.names, np.split(id_N, np.cumsum(mix.sizes)[:-1]), strict=True)
    return [note for name, own_N in of_sets for note in _joined(own_N, f"{name}: ")]


def _joined(id_N: np.ndarray, of: str = "") -> list[str]:
    """Say how many pairs are no negatives of one another, where they are many.

    Raises:
      DataError: no pair has a negative.
    """
    largest = int(np.unique(id_N, return_counts=True)[1].max())
    if largest == len(id_N) > 1:
        raise DataError(
            f"{of}All pairs are joined by shared queries and documents, so none has a negative.\n"
            "Take out the documents that answer everything."
        )
    part = f"{of}{largest:,} of {len(id_N):,} pairs are joined by shared queries and documents"
    many = largest > max(1, 0.1 * len(id_N))
    return [f"{part}, and are no negatives of one another"] if many else []


def _cut(train: Examples, chosen: Settings) -> list[str]:
    found = []
    for side, limit in (("query", chosen.query_length), ("document", chosen.document_length)):
        share = float(np.mean(train[f"{side}_length"] >= limit))
        if share > 0.01:
            found.append(
                f"{100 * share:.0f} % of the training pairs fill the {limit} tokens of a {side}"
            )
    return found
