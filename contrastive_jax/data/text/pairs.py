"""Pairs of texts from a file: what is asked, what answers it, and what only seems to.

    .jsonl      {"query": "...", "pos": ["..."], "neg": ["..."]}
                {"anchor": "...", "positive": "...", "negative": "..."}
                {"sentence1": "...", "sentence2": "...", "score": 0.8}
    .tsv .csv   a line of headings with those names, then a pair a row

The first form is FlagEmbedding's, the others those of sentence-transformers. Negatives may be left
out, and their number may vary. "score" says how similar a pair is; "pos_scores" and "neg_scores", a
number a text, what a teacher says of each.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from contrastive_jax.data.text import rows, tables
from contrastive_jax.data.text.collection import Collection, of_pairs
from contrastive_jax.errors import DataError

NAMES = (
    ("query", "pos", "neg"),
    ("anchor", "positive", "negative"),
    ("sentence1", "sentence2", "negative"),
)
ENDINGS = (".jsonl", ".tsv", ".csv")


class Pair(NamedTuple):
    """A query with the documents that belong to it."""

    query: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...] = ()
    score: float | None = None  # how similar the two are, of graded pairs
    positive_scores: tuple[float, ...] = ()  # a teacher's, one a text, or none at all
    negative_scores: tuple[float, ...] = ()


def load(path: Path) -> list[Pair]:
    """Read a file of pairs.

    Raises:
      DataError: another kind of file, or broken lines: all are named.
    """
    if path.suffix not in ENDINGS:
        raise DataError(f"{path} is no file of pairs.\nGive one that ends in .jsonl, .tsv or .csv.")
    if path.suffix == ".jsonl":
        found = rows.read(path, lambda line: pair_of(rows.json_object(line)))
    else:
        found = tables.read(path, [names[:2] for names in NAMES], pair_of)
    return [pair for _, pair in found]


def pair_of(row: dict[str, Any]) -> Pair:
    """Read a row under either set of names.

    >>> pair = pair_of({"query": "q", "pos": ["a"], "neg": ["b", "c"], "neg_scores": [0.5, 0]})
    >>> pair.positives, pair.negatives, pair.negative_scores
    (('a',), ('b', 'c'), (0.5, 0.0))

    Raises:
      ValueError: a name is missing, a text is empty, or no list of texts; scores that are no
        numbers, or not one a text.
    """
    query, positive, negative = _names(row)
    text = rows.text_of(row, query)
    positives, positive_scores = _scored(row, positive, "pos_scores")
    negatives, negative_scores = _scored(row, negative, "neg_scores")
    if not text.strip() or not positives:
        raise ValueError(f"{query!r} is empty" if positives else f"no text in {positive!r}")
    score = None if row.get("score") in (None, "") else _number("score", row["score"])
    return Pair(text.strip(), positives, negatives, score, positive_scores, negative_scores)


def _names(row: dict[str, Any]) -> tuple[str, str, str]:
    for names in NAMES:
        if names[0] in row and names[1] in row:
            return names
    raise ValueError("neither 'query' and 'pos' nor 'anchor' and 'positive'")


def _scored(
    row: dict[str, Any], key: str, scores_key: str
) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Read the texts of a key that are not empty, and their scores where there are some."""
    value = row.get(key)
    texts = [value] if isinstance(value, str) else value or []
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{key!r} is no text and no list of texts")
    given = row.get(scores_key)
    listed = given if isinstance(given, list) else [] if given in (None, "") else [given]
    scores = [_number(scores_key, number) for number in listed]
    if scores and len(scores) != len(texts):
        raise ValueError(f"{len(scores)} {scores_key!r} of {len(texts)} texts in {key!r}")
    kept = [i for i, text in enumerate(texts) if text.strip()]
    return tuple(texts[i].strip() for i in kept), tuple(scores[i] for i in kept if scores)


def _number(key: str, value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{key!r} holds {value!r}, which is no finite number")
    return number


def collection(path: Path) -> Collection:
    """Make a collection of a file of pairs: every positive and negative is a document to search."""
    found = load(path)
    as_pairs = [(pair.query, pair.positives) for pair in found]
    others = [text for pair in found for text in pair.negatives]
    return of_pairs(path.stem, "all", as_pairs, tuple(_notes(found)), others)


def _notes(found: Sequence[Pair]) -> list[str]:
    """Count what may spoil training or scores without being an error."""
    own = sum(bool(set(pair.positives) & set(pair.negatives)) for pair in found)
    counted = {
        "pairs are there twice": len(found) - len(set(found)),
        "pairs have a negative that is one of their positives": own,
    }
    return [f"{n:,} {what}" for what, n in counted.items() if n]
