"""Texts of similar length together, so that little of a batch is padding."""

from collections.abc import Iterator, Sequence

import numpy as np

WIDTHS = (16, 32, 64, 128, 256, 512)


def by_width(
    length_N: np.ndarray, batch_size: int, widths: Sequence[int] = WIDTHS
) -> Iterator[tuple[int, np.ndarray]]:
    """Divide texts among few widths, the longest first.

    Sorted by length and cut into batches, each batch takes the smallest width that holds its
    longest text; those of one width come together. All but the last fill their batches.

    Args:
      length_N: tokens of each text.
      batch_size: texts at a time.
      widths: in ascending order; beyond the last, its multiples.

    Yields:
      (width, rows of the texts), each width once.

    >>> list(by_width(np.array([3, 40, 9, 20, 5]), batch_size=2))
    [(64, array([1, 3])), (16, array([2, 4, 0]))]
    """
    order = np.argsort(-length_N, kind="stable")
    longest = length_N[order[::batch_size]]
    width = np.array([_width(int(length), widths) for length in longest], int)
    for one in sorted(set(width.tolist()), reverse=True):
        first, last = np.flatnonzero(width == one)[[0, -1]]
        yield one, order[first * batch_size : (last + 1) * batch_size]


def _width(length: int, widths: Sequence[int]) -> int:
    return next((w for w in widths if length <= w), -(-length // widths[-1]) * widths[-1])
