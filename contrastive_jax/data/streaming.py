"""Sets that stay on disk: what they hold, and the centres of their images for evaluation."""

import functools
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numpy as np

from contrastive_jax.data import decode as cutting
from contrastive_jax.data._errors import PathLike, needs
from contrastive_jax.data.examples import UNLABELED, Examples, Stream
from contrastive_jax.data.tfds import (
    chunks_of,
    open_prepared,
    read_rows,
    readable,
    run_all,
    split_at,
)
from contrastive_jax.errors import DataError

_ROWS_PER_READ = 16  # images that one thread decodes at a time
_TRIES = 1000  # rows after one that cannot be read: a block of records is lost as a whole
_log = logging.getLogger(__name__)
_CENTRE = 7 / 8  # of the short side is what evaluation sees, as 224 px of 256


def load_streamed(
    name: str | None,
    data_dir: PathLike | None,
    splits: tuple[str, str],
    image_size: int,
    limits: tuple[int | None, int | None],
    workers: int,
    bank: int | None,
    on_corrupt: str = "error",
) -> tuple[tuple[str, Examples, Examples, tuple[str, ...]], Stream]:
    """Title, evaluation's part of train, test, class names, and the training split on disk."""
    with needs("grain"):
        import grain  # noqa: F401
    found = open_prepared(name, data_dir)
    train, test = (
        _open(str(found.builder.data_dir), split, found.mode, limit, workers)
        for split, limit in zip(splits, limits, strict=True)
    )
    rows = np.sort(np.random.default_rng(0).permutation(train.n)[:bank])
    label = _labels(train, rows)
    rows, label = rows[label != UNLABELED], label[label != UNLABELED]
    if not rows.size:
        raise DataError(f"none of the training images of {name} drawn for evaluation has a label")
    bank_set = {"image": cast(Any, Photos(train, rows, image_size)), "label": label}
    train = train._replace(on_corrupt=on_corrupt)
    return (found.name, bank_set, _all_of(test, image_size), found.class_names), train


def _open(folder: str, split: str, mode: str, limit: int | None, workers: int) -> Stream:
    n = len(split_at(folder, split))
    return Stream(folder, split, mode, min(n, limit or n), workers)


def _all_of(split: Stream, image_size: int) -> Examples:
    rows = np.arange(split.n)
    return {"image": cast(Any, Photos(split, rows, image_size)), "label": _labels(split, rows)}


def _labels(split: Stream, rows: np.ndarray) -> np.ndarray:
    label = np.empty(split.n, np.int32)

    def take(row: int, record: Any) -> None:
        label[row] = record["label"]

    read = functools.partial(read_records, split, take=take)
    run_all(read, chunks_of(rows, 128), f"labels of {split.split}")
    return label[rows]


def read_records(split: Stream, rows: np.ndarray, take: Callable[[int, Any], None]) -> None:
    """Call `take(row, record)` for some rows of a split on disk, images still encoded.

    Raises:
      DataError: names the row that could not be read or taken.
    """
    read_rows(split_at(split.folder, split.split), rows, take, split.split, split.folder)


def read_or_replace(split: Stream, rows: np.ndarray, take: Callable[[int, int, Any], None]) -> None:
    """Call `take(place, row, record)` for the row of each place, or for the next that can be read.

    Raises:
      DataError: none of the next rows can be read either.
    """
    source = split_at(split.folder, split.split)
    for place, first in enumerate(map(int, rows)):
        take_here = functools.partial(take, place)
        candidates = ((first + ahead) % split.n for ahead in range(min(_TRIES, split.n)))
        row = next((row for row in candidates if readable(source, row, take_here)), None)
        if row is None:
            read_records(split, rows[place : place + 1], take_here)  # raises, naming the first
        elif row != first:
            _log.warning(
                "example %d of split %r in %s cannot be read: example %d in its place",
                first, split.split, split.folder, row,
            )  # fmt: skip


class Photos:
    """Centre squares [N, S, S, C] of images on disk, decoded in threads whenever they are indexed.

    Args:
      split: where they are.
      row_N: their places in it.
      size: S, in pixels.
    """

    dtype, ndim = np.dtype(np.uint8), 4

    def __init__(self, split: Stream, row_N: np.ndarray, size: int):
        self._split, self._row_N = split, row_N
        self.shape = (len(row_N), size, size, len(split.mode))

    def __len__(self) -> int:
        return len(self._row_N)

    def __getitem__(self, chosen: Any) -> np.ndarray:
        row = np.asarray(self._row_N[chosen])
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            parts = list(pool.map(self._squares, chunks_of(row.ravel(), _ROWS_PER_READ)))
        empty = np.empty((0, *self.shape[1:]), np.uint8)
        return np.concatenate([empty, *parts]).reshape(*row.shape, *self.shape[1:])

    def _squares(self, rows: np.ndarray) -> np.ndarray:
        squares = []

        def take(_: int, record: Any) -> None:
            mode, size = self._split.mode, self.shape[1]
            squares.append(cutting.cut_square(record["image"], mode, size, _CENTRE))

        read_records(self._split, rows, take)
        return np.stack(squares)
