"""Batches in equal parts from short to long, so that each part is padded to a length of its own.

A random batch nearly always has a text of full length, so to cut it to its longest saves nothing.
Here the examples are split into G classes of equal size by the length of their documents, and of
every G rows of a batch one is of each class, at random within it.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

MOST = 4  # classes: each is a copy of the encoder in the compiled step


class Lengths(NamedTuple):
    """Classes of examples, from short to long."""

    rows: tuple[np.ndarray, ...]  # int32, those of each class
    longest: tuple[int, ...]  # tokens of a document of each


def split(length_N: np.ndarray, n_classes: int, batch_size: int) -> Lengths | None:
    """Split examples into classes by length; None for one class.

    Raises:
      ValueError: a number of classes that is not there, or that does not divide the batch.

    >>> split(np.array([9, 2, 5, 7]), 2, batch_size=4).longest
    (5, 9)
    """
    if not 1 <= n_classes <= MOST or batch_size % n_classes:
        raise ValueError(
            f"data.length_buckets is {n_classes} and data.batch_size {batch_size}; "
            f"give 1 to {MOST}, and a batch that it divides"
        )
    if n_classes == 1:
        return None
    ranked = np.argsort(length_N, kind="stable").astype(np.int32)
    rows = tuple(np.array_split(ranked, n_classes))
    return Lengths(rows, tuple(int(length_N[part].max()) for part in rows))


def rows_at(lengths: Lengths, batch_size: int, seed: int) -> Callable[[int], np.ndarray]:
    """Choose which examples are the batch of a step: a function from it to [B] int32.

    Row i is of class i mod G. Epoch e of class g visits it in the order
    `default_rng((seed, e, g))`, without the last that do not fill their part of a batch.

    >>> few = split(np.array([9, 2, 5, 7]), 2, batch_size=2)
    >>> rows = [rows_at(few, 2, seed=0)(step).tolist() for step in range(2)]
    >>> sorted(row[0] for row in rows), sorted(row[1] for row in rows)
    ([1, 2], [0, 3])
    """
    n = batch_size // len(lengths.rows)

    @functools.lru_cache(maxsize=2 * len(lengths.rows))
    def order(part: int, epoch: int) -> np.ndarray:
        return np.random.default_rng((seed, epoch, part)).permutation(lengths.rows[part])

    def of_class(part: int, step: int) -> np.ndarray:
        epoch, i = divmod(step, len(lengths.rows[part]) // n)
        return order(part, epoch)[i * n : (i + 1) * n]

    parts = range(len(lengths.rows))
    return lambda step: np.stack([of_class(part, step) for part in parts], axis=1).ravel()
