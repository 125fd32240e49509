"""Sets that stay on disk: what they hold, and the centers of their images for evaluation."""

import functools
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numpy as np

from contrastive_jax.data import cpus, decode
from contrastive_jax.data._errors import needs
from contrastive_jax.data.examples import UNLABELED, Dataset, Examples, StoredSplit
from contrastive_jax.data.records import chunks_of, map_chunks, naming, read_rows
from contrastive_jax.data.tfds import Request, open_prepared
from contrastive_jax.errors import DataError

_ROWS_PER_READ = 16  # images that one thread decodes at a time
_LABELS_PER_READ = 128
_log = logging.getLogger(__name__)
_CENTER = 7 / 8  # of the short side is what evaluation sees, as 224 px of 256


def load_streamed(request: Request, workers: int, bank: int | None) -> Dataset:
    """Open a prepared set: its training split on disk, and what evaluation reads of both splits.

    Args:
      request: which images of which set.
      workers: processes that decode for training.
      bank: how many training images evaluation reads; all where it is None.
    """
    with needs("grain"):
        import grain  # noqa: F401
    found, size = open_prepared(request), cast(int, request.image_size)
    train = found.split(request.train_split, request.limit_train, None)
    test = found.split(request.test_split, request.limit_test, None)
    stream = train._replace(on_corrupt=request.on_corrupt, workers=workers)
    if train.label_key and not found.features.class_names:
        label = _labels(train, np.arange(train.n))
        stream = stream._replace(classes=tuple(np.unique(label[label >= 0]).tolist()))
    bank_set, test_set = evaluated(train, test, size, bank)
    return Dataset(found.name, bank_set, test_set, found.features.class_names, stream=stream)


def evaluated(
    train: StoredSplit, test: StoredSplit, size: int, bank: int | None
) -> tuple[Examples, Examples]:
    """Choose what evaluation reads of both splits: at most `bank` training images, all of test."""
    sample = np.sort(np.random.default_rng(0).permutation(train.n)[:bank])
    return _on_disk(train, sample, size, only_labeled=True), _on_disk(test, np.arange(test.n), size)


def _on_disk(split: StoredSplit, rows: np.ndarray, size: int, only_labeled=False) -> Examples:
    """Pair the images of some rows with their labels, without decoding an image."""
    label = _labels(split, rows) if split.label_key else np.full(len(rows), UNLABELED)
    keep = label != UNLABELED
    if only_labeled and keep.any():
        rows, label = rows[keep], label[keep]
    if split.files is not None:  # nobody has read them yet, as who prepares a set does
        whole = _readable(split, rows)
        rows, label = rows[whole], label[whole]
    examples = {"image": cast(Any, Photos(split, rows, size)), "label": label}
    return examples if split.label_key else {"image": examples["image"]}


def _readable(split: StoredSplit, rows: np.ndarray) -> np.ndarray:
    """Say which rows can be decoded; a warning names those that cannot, where they are skipped."""
    read = functools.partial(_readable_of_chunk, split)
    parts = map_chunks(read, chunks_of(rows, _ROWS_PER_READ), f"images of {split.split}")
    whole = np.array([each for part in parts for each in part], bool)
    lost = [split.place(row) for row in rows[~whole]]
    if len(lost) == len(rows):
        raise DataError(f"none of the {len(rows)} images in {split.folder} can be read")
    if lost:
        named = ", ".join(lost[:10]) + (", ..." if len(lost) > 10 else "")
        _log.warning("evaluation leaves out %d of %d images: %s", len(lost), len(rows), named)
    return whole


def _readable_of_chunk(split: StoredSplit, rows: np.ndarray) -> list[bool]:
    found = []
    for row in rows.tolist():
        try:
            for record in read_rows(split, [row]):
                with naming(split, row):
                    decode.check_whole(record[split.image_key], split.mode)
            found.append(True)
        except DataError:
            if split.on_corrupt != "skip":
                raise
            found.append(False)
    return found


def _labels(split: StoredSplit, rows: np.ndarray) -> np.ndarray:
    if split.files is not None:
        return split.files.label_N[rows]
    chunks = chunks_of(rows, _LABELS_PER_READ)
    read = functools.partial(_labels_of_chunk, split)
    parts = map_chunks(read, chunks, f"labels of {split.split}")
    return np.array([label for part in parts for label in part], np.int64)


def _labels_of_chunk(split: StoredSplit, rows: np.ndarray) -> list[int]:
    return [record[split.label_key or ""] for record in read_rows(split, rows)]


class Photos:
    """Center squares [N, S, S, C] of images on disk, decoded in threads whenever they are indexed.

    Args:
      split: where they are.
      row_N: their places in it.
      size: S, in pixels.
    """

    dtype, ndim = np.dtype(np.uint8), 4

    def __init__(self, split: StoredSplit, row_N: np.ndarray, size: int):
        self.split, self.row_N = split, row_N
        self.shape = (len(row_N), size, size, len(split.mode))

    def __len__(self) -> int:
        return len(self.row_N)

    def __getitem__(self, chosen: Any) -> np.ndarray:
        row = np.asarray(self.row_N[chosen])
        with ThreadPoolExecutor(cpus.usable()) as pool:
            parts = list(pool.map(self._squares, chunks_of(row.ravel(), _ROWS_PER_READ)))
        empty = np.empty((0, *self.shape[1:]), np.uint8)
        return np.concatenate([empty, *parts]).reshape(*row.shape, *self.shape[1:])

    def _squares(self, rows: np.ndarray) -> np.ndarray:
        split, squares = self.split, []
        for row, record in zip(rows.tolist(), read_rows(split, rows), strict=True):
            with naming(split, row):
                encoded = record[split.image_key]
                side, upright = self.shape[1], split.upright
                squares.append(decode.cut_square(encoded, split.mode, side, _CENTER, upright))
        return np.stack(squares)
