"""Decode a split on disk into one array in memory."""

import functools
import logging
from collections.abc import Sequence

import numpy as np

from contrastive_jax.data import decode
from contrastive_jax.data.examples import UNLABELED, Examples, StoredSplit
from contrastive_jax.data.records import chunks_of, map_chunks, naming, read_rows
from contrastive_jax.errors import DataError

_ROWS_PER_READ = 128
_log = logging.getLogger(__name__)


def read_split(
    split: StoredSplit,
    shape: tuple[int, int, int],
    image_size: int | None,
    others: Examples | None = None,
) -> Examples:
    """Decode a split into one array; images that cannot be read are left out where they may be.

    Args:
      split: on disk.
      shape: of its images, or of what is cut of them.
      image_size: side of the central square, or None for images of one size as they are.
      others: further arrays of all rows, such as captions.

    Raises:
      DataError: names the first image that cannot be read.
    """
    image = np.empty((split.n, *shape), np.uint8)
    label, whole = np.full(split.n, UNLABELED, np.int64), np.zeros(split.n, bool)
    read = functools.partial(_decode_or_skip, split, shape, image_size)
    chunks = chunks_of(range(split.n), _ROWS_PER_READ)
    # Threads pay for large images only; small ones are bound by the interpreter lock.
    for part in map_chunks(read, chunks, split.split, threaded=image_size is not None):
        for row, *decoded in part:
            image[row], label[row] = decoded
            whole[row] = True
    examples = {"image": image, "label": label} if split.label_key else {"image": image}
    examples |= others or {}
    return examples if whole.all() else _without(examples, ~whole, split)


Decoded = tuple[int, np.ndarray, int]  # row, pixels, label


def _decode_or_skip(
    split: StoredSplit, shape: tuple[int, ...], size: int | None, rows: Sequence[int]
) -> list[Decoded]:
    """Decode some rows, or those of them that can be read where others are to be skipped."""
    try:
        return _decode(split, shape, size, rows)
    except DataError:
        if split.on_corrupt != "skip":
            raise
    decoded = []
    for row in rows:
        try:
            decoded += _decode(split, shape, size, [row])
        except DataError:
            continue
    return decoded


def _decode(
    split: StoredSplit, shape: tuple[int, ...], size: int | None, rows: Sequence[int]
) -> list[Decoded]:
    decoded = []
    for row, record in zip(rows, read_rows(split, rows), strict=True):
        with naming(split, row):
            encoded = record[split.image_key]
            pixels = decode.cut_square(encoded, split.mode, size, upright=split.upright)
            if pixels.shape != shape:
                raise ValueError(f"image of {pixels.shape}, not {shape}")
            label = record[split.label_key] if split.label_key else UNLABELED
            decoded.append((row, pixels, label))
    return decoded


def _without(examples: Examples, lost_N: np.ndarray, split: StoredSplit) -> Examples:
    """Leave out the examples that could not be read; a warning counts and names them."""
    lost, where = np.flatnonzero(lost_N), f"split {split.split!r} in {split.folder}"
    if len(lost) == split.n:
        raise DataError(f"none of the {len(lost)} examples of {where} can be read")
    names = lost if split.files is None else [split.place(row) for row in lost[:10]]
    named = ", ".join(map(str, names[:10])) + (", ..." if len(lost) > 10 else "")
    _log.warning("left out %d of %d examples of %s: %s", len(lost), split.n, where, named)
    return {name: values[~lost_N] for name, values in examples.items()}
