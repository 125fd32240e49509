"""Text sets to train on: pairs for the step, and collections that are searched to score them.

Sources: `docstrings` (of installed code, nothing to download), `pairs` (a file of them) and `beir`
(a folder with judgements by split).
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from contrastive_jax.data._errors import PathLike
from contrastive_jax.data.examples import Dataset, Examples, Texts, check_batch_size
from contrastive_jax.data.text import collection, docstrings, pairs, tokens
from contrastive_jax.data.text.collection import Collection
from contrastive_jax.data.text.pairs import Pair
from contrastive_jax.data.text.tokens import Tokenizer
from contrastive_jax.errors import DataError

SOURCES = ("docstrings", "pairs", "beir")


class Corpus(NamedTuple):
    """What a source holds, as texts."""

    name: str
    train: list[Pair]
    test: Collection
    validation: Collection | None
    notes: tuple[str, ...]  # what is odd, with counts


class Settings(NamedTuple):
    """How texts become tokens."""

    vocabulary_size: int
    query_length: int
    document_length: int
    train_length: int | None
    query_prompt: str
    document_prompt: str


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
    for key, value in {**numbers, "vocabulary_size": vocabulary_size - 2}.items():
        if value < 1:
            raise ValueError(f"tokens.{key} is too small; give at least 1, of a vocabulary 3")
    lengths = query_length, document_length, train_length
    return Settings(vocabulary_size, *lengths, query_prompt, document_prompt)


def read(
    source: str,
    *,
    path: PathLike | None = None,
    group: str = "file",
    train_split: str = "train",
    test_split: str = "test",
    validation_split: str | None = None,
    test_fraction: float = 0.1,
    limit_train: int | None = None,
    limit_test: int | None = None,
    negatives_path: PathLike | None = None,
) -> Corpus:
    """Read the texts of a source.

    Args:
      source: of `SOURCES`.
      path: a file of pairs (.jsonl, .tsv, .csv), or a folder in the layout of BEIR.
      group: of docstrings: whose members are in one split, "file" or "package".
      train_split, test_split: of docstrings and of a folder.
      validation_split: searched during training; None for none. Of a file of pairs any name takes
        as many queries out of the training part as the test has.
      test_fraction: of the queries of a file of pairs, chosen by a hash of their text.
      limit_train, limit_test: keep at most so many training pairs and test queries, the first ones.
      negatives_path: a file of pairs, as experiments.mine writes it, whose negatives join the
        training pairs of the same query, before those that they have.

    Raises:
      ValueError: arguments that cannot be meant. DataError: texts that are missing or broken.
    """
    for key, limit in {"limit_train": limit_train, "limit_test": limit_test}.items():
        if limit is not None and limit < 1:
            raise ValueError(f"data.{key} is {limit}; it must be 1 or more, or None")
    if source not in SOURCES:
        raise ValueError(f"data.source is {source!r}; give one of {SOURCES}")
    if (path is None) != (source == "docstrings"):
        needed = "leave it out" if source == "docstrings" else "give a file of pairs or a folder"
        raise ValueError(f"data.path is {path} with data.source {source!r}; {needed}")
    splits = train_split, test_split, validation_split
    if source == "pairs":
        whole = of_file(Path(path or "").expanduser(), test_fraction, validation_split is not None)
    elif source == "beir":
        whole = _of_splits(lambda split: collection.load(path or "", split), splits)
    else:
        whole = _of_splits(lambda split: docstrings.load(split, group), splits)
    test = _first_queries(whole.test, limit_test)
    train = whole.train[:limit_train]
    if negatives_path is not None:
        train = _with_negatives(train, Path(negatives_path).expanduser())
    corpus = whole._replace(train=train, test=test)
    return corpus._replace(notes=(*corpus.notes, *_leaks(corpus)))


def _of_splits(load: Callable[[str], Collection], splits: tuple[str, str, str | None]) -> Corpus:
    train, test = map(load, splits[:2])
    validation = None if splits[2] is None else load(splits[2])
    rows = [
        Pair(train.queries[query], tuple(train.documents[d] for d, g in judged.items() if g > 0))
        for query, judged in train.grades.items()
    ]
    notes = dict.fromkeys((*train.notes, *test.notes))  # of a folder they are those of its files
    return Corpus(test.name, rows, test, validation, tuple(notes))


def of_file(path: Path, test_fraction: float = 0.1, validation: bool = False) -> Corpus:
    """Split a file of pairs by query; all documents of the file are searched.

    Raises:
      ValueError: a fraction that leaves no query to train on. DataError: as `pairs.load`.
    """
    rows = pairs.load(path)
    queries = sorted(dict.fromkeys(row.query for row in rows), key=_hash)
    n = max(1, round(test_fraction * len(queries)))
    held_out = [set(queries[:n]), set(queries[n : 2 * n]) if validation else set()]
    if not 0 < test_fraction < 1 or sum(map(len, held_out)) >= len(queries):
        raise ValueError(
            f"data.test_fraction is {test_fraction} of {len(queries)} queries; "
            "leave some to train on, and some to test on"
        )
    train = [row for row in rows if not any(row.query in part for part in held_out)]
    others = [text for row in rows for text in _documents(row)]

    def searched(split: str, part: set[str]) -> Collection:
        chosen = [(row.query, row.positives) for row in rows if row.query in part]
        return collection.of_pairs(path.stem, split, chosen, (), others)

    test = searched("test", held_out[0])
    tuned = searched("validation", held_out[1]) if validation else None
    notes = pairs.collection(path).notes
    return Corpus(path.stem, train, test, tuned, notes)


def _with_negatives(train: Sequence[Pair], path: Path) -> list[Pair]:
    mined: dict[str, tuple[str, ...]] = {}
    for row in pairs.load(path):
        mined[row.query] = (*mined.get(row.query, ()), *row.negatives)
    if not any(mined.get(pair.query) for pair in train):
        raise DataError(
            f"{path} has no negatives of the {len(train)} training pairs.\n"
            "Give a file that was mined for their queries."
        )
    return [
        pair._replace(negatives=(*mined.get(pair.query, ()), *pair.negatives)) for pair in train
    ]


def to_mine(
    source: str,
    *,
    path: PathLike | None = None,
    group: str = "file",
    train_split: str = "train",
    **others: Any,
) -> Collection:
    """Read the training queries of a source with every document that may be a negative of theirs.

    Args:
      source, path, group, train_split: as of `read`.
      others: further arguments of `read`, which decide how a file of pairs is split.
    """
    if source == "docstrings":
        return docstrings.load(train_split, group)
    if source == "beir":
        return collection.load(path or "", train_split)
    corpus = read(source, path=path, group=group, train_split=train_split, **others)
    train = [(row.query, row.positives) for row in corpus.train]
    texts = [text for row in pairs.load(Path(path or "").expanduser()) for text in _documents(row)]
    return collection.of_pairs(corpus.name, train_split, train, (), texts)


def _documents(row: Pair) -> tuple[str, ...]:
    return (*row.positives, *row.negatives)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _first_queries(found: Collection, limit: int | None) -> Collection:
    kept = list(found.queries)[:limit]
    return found._replace(
        queries={query: found.queries[query] for query in kept},
        grades={query: found.grades[query] for query in kept},
    )


def _leaks(corpus: Corpus) -> list[str]:
    """Count what training sees of the test."""
    trained_on = {pair.query for pair in corpus.train}
    shown = {text for pair in corpus.train for text in pair.positives}
    asked = sum(text in trained_on for text in corpus.test.queries.values())
    answers = [
        any(corpus.test.documents[d] in shown for d, grade in judged.items() if grade > 0)
        for judged in corpus.test.grades.values()
    ]
    wrong = {text for pair in corpus.train for text in pair.negatives}
    against = [
        any(corpus.test.documents[d] in wrong for d, grade in judged.items() if grade > 0)
        for judged in corpus.test.grades.values()
    ]
    counted = {
        "test queries have a relevant document that is a training negative": sum(against),
        "test queries are training queries": asked,
        "test queries have a relevant document that answers a training query": sum(answers),
    }
    return [f"{n:,} {what}" for what, n in counted.items() if n]


def dataset(
    corpus: Corpus,
    chosen: Settings,
    *,
    batch_size: int,
    n_negatives: int = 0,
    tokenizer: Tokenizer | None = None,
    n_tokens: int | None = None,
) -> Dataset:
    """Turn texts into examples, an example a query with one of its documents.

    Args:
      corpus: of `read`.
      chosen: of `settings`.
      batch_size: pairs of a step.
      n_negatives: K, negatives of a pair at most, the first of its row.
      tokenizer: in place of one that is trained on the training pairs.
      n_tokens: that the encoder has; those of the tokenizer by default.

    Returns:
      A set whose training examples hold "query" [N,L] and "document" [N,L], unsigned, with
      "query_length" and "document_length" [N] int32; "id" [N] int32, equal where pairs share a
      query or a document; and with negatives "negatives" [N,K,L], "negatives_length" and
      "negatives_id" [N,K] int32, "negatives_mask" [N,K] bool.

    Raises:
      ValueError: a batch larger than the set, or fewer than 0 negatives.
      DataError: no pair of the file has negatives, and some are asked for.
    """
    if n_negatives < 0:
        raise ValueError(f"data.n_negatives is {n_negatives}; give 0 or more")
    rows = list(dict.fromkeys(_rows(corpus.train)))
    if n_negatives and not any(row[2] for row in rows):
        raise DataError(
            f"{corpus.name} has no negatives, and data.n_negatives is {n_negatives}.\n"
            "Mine some with experiments.mine, or leave it at 0."
        )
    check_batch_size(batch_size, len(rows))
    documents = list(dict.fromkeys(text for row in rows for text in (row[1], *row[2])))
    queries = list(dict.fromkeys(row[0] for row in rows))
    if tokenizer is None:  # negatives may be documents of the test
        answers = dict.fromkeys(row[1] for row in rows)
        tokenizer = tokens.train([*queries, *answers], chosen.vocabulary_size)
    made = tokenizer
    _check_lengths(made, chosen)
    shown = chosen._replace(document_length=chosen.train_length or chosen.document_length)
    train = _examples(rows, queries, documents, made, shown, n_negatives)
    tested = [
        (corpus.test.queries[q], corpus.test.documents[max(judged, key=lambda d: judged[d])], ())
        for q, judged in corpus.test.grades.items()
    ]
    asked = list(dict.fromkeys(row[0] for row in tested))
    answers = list(dict.fromkeys(row[1] for row in tested))
    test = _examples(tested, asked, answers, made, chosen, 0)
    size = n_tokens or made.size
    notes = (*corpus.notes, *_cut(train, shown), *_joined(train["id"]))
    idf_T = inverse_frequency(train["document"], size)
    kept = Texts(made, size, chosen, corpus.test, corpus.validation, notes, idf_T)
    return Dataset(corpus.name, train, test, (), batch_size, texts=kept)


_Row = tuple[str, str, tuple[str, ...]]  # query, document, negatives


def _rows(train: Sequence[Pair]) -> list[_Row]:
    found = []
    for pair in train:
        wrong = tuple(text for text in pair.negatives if text not in pair.positives)
        found += [(pair.query, document, wrong) for document in pair.positives]
    return found


def _examples(
    rows: Sequence[_Row],
    queries: list[str],
    documents: list[str],
    tokenizer: Tokenizer,
    chosen: Settings,
    n_negatives: int,
) -> Examples:
    place_q = {text: place for place, text in enumerate(queries)}
    place_d = {text: place for place, text in enumerate(documents)}
    query_N = np.array([place_q[row[0]] for row in rows])
    document_N = np.array([place_d[row[1]] for row in rows])
    query = tokenizer.encode(queries, chosen.query_length, chosen.query_prompt)
    document = tokenizer.encode(documents, chosen.document_length, chosen.document_prompt)
    id_of_document = _groups(query_N, document_N, len(queries), len(documents))
    examples = {
        "query": query.tokens_NL[query_N],
        "query_length": query.length_N[query_N],
        "document": document.tokens_NL[document_N],
        "document_length": document.length_N[document_N],
        "id": id_of_document[document_N],
    }
    if n_negatives:
        mask_NK = np.zeros((len(rows), n_negatives), bool)
        place_NK = np.zeros((len(rows), n_negatives), np.int32)
        for n, (_, _, wrong) in enumerate(rows):
            places = [place_d[text] for text in wrong[:n_negatives]]
            place_NK[n, : len(places)], mask_NK[n, : len(places)] = places, True
        examples |= {
            "negatives": document.tokens_NL[place_NK],
            "negatives_length": document.length_N[place_NK],
            "negatives_id": id_of_document[place_NK],
            "negatives_mask": mask_NK,
        }
    return examples


def _groups(query_N: np.ndarray, document_N: np.ndarray, n_queries: int, n: int) -> np.ndarray:
    """Number documents so that those joined by a chain of shared queries are equal, int32 [n]."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    size = n_queries + n
    edges = (np.ones(len(query_N), bool), (query_N, n_queries + document_N))
    _, group = connected_components(coo_array(edges, shape=(size, size)), directed=False)
    return group[n_queries:].astype(np.int32)


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


def _joined(id_N: np.ndarray) -> list[str]:
    """Say how many pairs are no negatives of one another, where they are many.

    Raises:
      DataError: no pair has a negative.
    """
    largest = int(np.unique(id_N, return_counts=True)[1].max())
    if largest == len(id_N) > 1:
        raise DataError(
            "All pairs are joined by shared queries and documents, so none has a negative.\n"
            "Take out the documents that answer everything."
        )
    part = f"{largest:,} of {len(id_N):,} pairs are joined by shared queries and documents"
    return [f"{part}, and are no negatives of one another"] if largest > 0.1 * len(id_N) else []


def _cut(train: Examples, chosen: Settings) -> list[str]:
    found = []
    for side, limit in (("query", chosen.query_length), ("document", chosen.document_length)):
        share = float(np.mean(train[f"{side}_length"] >= limit))
        if share > 0.01:
            found.append(
                f"{100 * share:.0f} % of the training pairs fill the {limit} tokens of a {side}"
            )
    return found
