"""Texts whose similarity people judged, from a table: graded pairs, classes of pairs, triplets.

.tsv .csv   sentence1, sentence2, score       how alike, on any scale
            sentence1, sentence2, label       1 alike, 0 not
            anchor, positive, negative        the second is nearer to the first than the third
"""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from contrastive_jax.data.text import tables
from contrastive_jax.errors import DataError

HEADINGS = {
    "similarity": ("sentence1", "sentence2", "score"),
    "classes": ("sentence1", "sentence2", "label"),
    "triplets": ("anchor", "positive", "negative"),
}


class Judged(NamedTuple):
    """Texts and what was said of them."""

    kind: str  # of `HEADINGS`
    texts: tuple[list[str], ...]  # two or three columns [N]
    label_N: np.ndarray | None  # float64; None for triplets


def load(path: Path) -> Judged:
    """Read a table.

    Raises:
      DataError: another kind of file, other headings, broken rows, or labels that are all the same.
    """
    if path.suffix not in tables.DELIMITERS:
        raise DataError(f"{path} is no table.\nGive one that ends in .tsv or .csv.")
    rows = [row for _, row in tables.read(path, list(HEADINGS.values()), _row)]
    kind = rows[0][0]
    columns = [list(column) for column in zip(*(cells for _, cells, _ in rows), strict=True)]
    if kind == "triplets":
        return Judged(kind, tuple(columns), None)
    label_N = np.array([label for _, _, label in rows])
    if len(np.unique(label_N)) < 2:
        name = HEADINGS[kind][2]
        raise DataError(f"{path}: every {name} is {label_N[0]:g}.\nGive rows of two values.")
    return Judged(kind, tuple(columns), label_N)


def _row(row: dict[str, str]) -> tuple[str, tuple[str, ...], float]:
    kind = next(kind for kind, names in HEADINGS.items() if set(names) <= set(row))
    names = HEADINGS[kind] if kind == "triplets" else HEADINGS[kind][:2]
    empty = [name for name in names if not row[name].strip()]
    if empty:
        raise ValueError(f"{empty[0]!r} is empty")
    label = 0.0 if kind == "triplets" else _label(HEADINGS[kind][2], row[HEADINGS[kind][2]])
    return kind, tuple(row[name].strip() for name in names), label


def _label(name: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{name!r} is {cell!r}, no number")
    if name == "label" and value not in (0, 1):
        raise ValueError(f"{name!r} is {cell!r}, neither 0 nor 1")
    return value
