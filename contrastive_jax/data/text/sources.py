"""Text sources: the pairs to train on, and the collections that are searched to score them.

Sources: `docstrings` (of installed code, nothing to download), `pairs` (a file of them), `beir`
(a folder with judgements by split) and `mix` (several files and folders).
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from contrastive_jax.data._errors import PathLike
from contrastive_jax.data.text import collection, docstrings, pairs
from contrastive_jax.data.text.collection import Collection
from contrastive_jax.data.text.corpus import Corpus, each_of, leaks, mixed
from contrastive_jax.data.text.pairs import Pair
from contrastive_jax.errors import DataError

SOURCES = ("docstrings", "pairs", "beir", "mix")


def read(
    source: str,
    *,
    path: tuple[str, ...] | PathLike | None = None,
    group: str = "file",
    packages: tuple[str, ...] | None = None,
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
      path: a file of pairs (.jsonl, .tsv, .csv), or a folder in the layout of BEIR; of a mix all of
        them, each of either kind.
      group: of docstrings: whose members are in one split, "file" or "package".
      packages: of docstrings: these alone, such as ("stdlib",); None for all.
      train_split, test_split: of docstrings and of a folder.
      validation_split: searched during training; None for none. Of a file of pairs any name takes
        as many queries out of the training part as the test has.
      test_fraction: of the queries of a file of pairs, chosen by a hash of their text.
      limit_train, limit_test: keep at most so many training pairs and test queries, the first ones;
        of each set of a mix.
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
    if isinstance(path, tuple) != (source == "mix"):
        needed = "several files or folders" if source == "mix" else "one path, or data.source 'mix'"
        raise ValueError(f"data.path is {path} with data.source {source!r}; give {needed}")
    splits = train_split, test_split, validation_split

    def load(source: str, path: PathLike | None) -> Corpus:
        if source == "pairs":
            place = Path(path or "").expanduser()
            whole = of_file(place, test_fraction, validation_split is not None)
        elif source == "beir":
            whole = _of_splits(lambda split: collection.load(path or "", split), splits)
        else:
            whole = _of_splits(lambda split: docstrings.load(split, group, packages), splits)
        return _limited(whole, limit_train, limit_test)

    corpus = mixed(each_of(path, load)) if isinstance(path, tuple) else load(source, path)
    if negatives_path is not None:
        train = _with_negatives(corpus.train, Path(negatives_path).expanduser())
        corpus = corpus._replace(train=train)
    return corpus._replace(notes=(*corpus.notes, *leaks(corpus)))


def _limited(whole: Corpus, limit_train: int | None, limit_test: int | None) -> Corpus:
    """Keep the first training pairs and test queries.

    Raises:
      ValueError: scores of test pairs that are all the same.
    """
    graded = tuple(whole.graded[:limit_test])
    if graded and len({row.score for row in graded}) == 1:
        raise ValueError(
            f"the {len(graded)} test pairs have one and the same score, with which nothing "
            "correlates; raise data.test_fraction or data.limit_test"
        )
    test = _with_queries(whole.test, list(whole.test.queries)[:limit_test])
    return whole._replace(train=whole.train[:limit_train], test=test, graded=graded)


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
    all_graded = all(row.score is not None for row in rows)
    graded = tuple(row for row in rows if all_graded and row.query in held_out[0])
    return Corpus(path.stem, train, test, tuned, notes, graded)


def _with_negatives(train: Sequence[Pair], path: Path) -> list[Pair]:
    """Put the negatives of a file, and their scores, before those of the pairs of its queries."""
    mined: dict[str, Pair] = {}
    for row in pairs.load(path):
        mined[row.query] = _joined_negatives(mined.get(row.query, Pair(row.query, ())), row)
    if not any(pair.query in mined and mined[pair.query].negatives for pair in train):
        raise DataError(
            f"{path} has no negatives of the {len(train)} training pairs.\n"
            "Give a file that was mined for their queries."
        )
    return [
        _joined_negatives(mined[pair.query], pair) if pair.query in mined else pair
        for pair in train
    ]


def _joined_negatives(first: Pair, pair: Pair) -> Pair:
    """The pair with the negatives of another before its own."""
    return pair._replace(
        negatives=(*first.negatives, *pair.negatives),
        negative_scores=(*first.negative_scores, *pair.negative_scores),
    )


def to_mine(
    source: str,
    *,
    path: tuple[str, ...] | PathLike | None = None,
    group: str = "file",
    packages: tuple[str, ...] | None = None,
    train_split: str = "train",
    **others: Any,
) -> Collection:
    """Read the training queries of a source with every document that may be a negative of theirs.

    Of a mix they are those that no set holds out.

    Args:
      source, path, group, packages, train_split: as of `read`.
      others: further arguments of `read`, which decide how a file of pairs is split.
    """
    if isinstance(path, tuple):
        keys = {"train_split": train_split, **others}
        whole = collection.union(
            each_of(path, lambda kind, place: to_mine(kind, path=place, **keys))
        )
        trained_on = {pair.query for pair in read(source, path=path, **keys).train}
        return _with_queries(whole, [q for q, text in whole.queries.items() if text in trained_on])
    if source == "docstrings":
        return docstrings.load(train_split, group, packages)
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


def _with_queries(found: Collection, kept: Sequence[str]) -> Collection:
    return found._replace(
        queries={query: found.queries[query] for query in kept},
        grades={query: found.grades[query] for query in kept},
    )
