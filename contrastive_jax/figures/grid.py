"""A table of images with names at its sides; frames and marks say which are right."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contrastive_jax.figures.canvas import BLUE, RED, PathLike, draw_image, image_axes, shortened

_PITCH = 1.12  # of the cells
_INCHES = 0.42  # a cell
_LETTER = 0.155  # width of a letter beside a row, in cells
_LONGEST = 48  # letters of a name


def image_grid(
    path: PathLike,
    cells: Sequence[Sequence[np.ndarray | None]],
    row_names: Sequence[str],
    column_names: Sequence[str],
    right: Sequence[Sequence[bool | None]],
    title: str,
) -> Path:
    """Draw images in rows and columns.

    Args:
      path: of the PNG.
      cells: for each row its images [H,W,C], uint8 or float in [0, 1]; None where there is none.
      row_names: beside the rows.
      column_names: above the columns, long ones upright; none for no names.
      right: True for a blue frame and ✓, False for a red one and ✗, None for neither.
      title: what is shown, and what right means.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     row = [np.zeros((8, 8, 1), np.uint8), None]
    ...     image_grid(f"{folder}/g.png", [row], ["a"], ["b", "c"], [[True, None]], "one").name
    'g.png'
    """
    names = [shortened(name, _LONGEST) for name in row_names]
    margin = 0.4 + _LETTER * max(map(len, names), default=0)
    width = _PITCH * max(map(len, cells), default=0)
    columns = [shortened(name, _LONGEST) for name in column_names]
    top = 0.3 + _LETTER * max(map(len, columns), default=0)
    turn = 90 if max(map(len, columns), default=0) > 2 else 0
    across, down = margin + width, top + _PITCH * len(cells)
    with image_axes(path, (_INCHES * across, _INCHES * down + 0.6), title) as axes:
        for r, (row, judged) in enumerate(zip(cells, right, strict=True)):
            y = _PITCH * r
            axes.text(-0.25, y + 0.5, names[r], ha="right", va="center", fontsize=7)
            for c, (image, is_right) in enumerate(zip(row, judged, strict=True)):
                if image is not None:
                    _draw(axes, image, _PITCH * c, y, is_right)
        for c, name in enumerate(columns):
            place = (_PITCH * c + 0.5, -0.15)
            axes.text(*place, name, fontsize=7, ha="center", va="bottom", rotation=turn)
        axes.set(xlim=(-margin, width), ylim=(_PITCH * len(cells), -top))
    return Path(path)


def _draw(axes: Any, image: np.ndarray, x: float, y: float, is_right: bool | None) -> None:
    if is_right is None:
        draw_image(axes, image, x, y)
        return
    color, mark = (BLUE, "✓") if is_right else (RED, "✗")
    draw_image(axes, image, x, y, frame=color)
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.4}
    axes.text(x + 0.98, y + 0.04, mark, color=color, fontsize=6, ha="right", va="top", bbox=box)
