"""The confusion matrix of a classifier."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contrastive_jax.figures.canvas import INK, PathLike, shortened, subplots

_WRITTEN = 25  # classes whose names and counts can be read


def confusion_matrix(path: PathLike, count_CC: np.ndarray, class_names: Sequence[str]) -> Path:
    """Draw counts of (true class, predicted class), shaded by their share of the true class.

    Args:
      path: of the PNG.
      count_CC: integers, a row for each true class; a class without examples stays white.
      class_names: of the C classes.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     confusion_matrix(f"{folder}/confusion.png", np.eye(2, dtype=int), ["cat", "dog"]).name
    'confusion.png'
    """
    share_CC = count_CC / np.maximum(count_CC.sum(axis=1, keepdims=True), 1)
    n = len(class_names)
    side = float(np.clip(0.42 * n + 1.6, 3.6, 9.0))
    with subplots(path, (side + 0.6, side)) as (axes,):
        shown = axes.imshow(share_CC, cmap="Blues", vmin=0, vmax=1)
        axes.set(title="Confusion of the linear probe", xlabel="predicted", ylabel="true class")
        if n <= _WRITTEN:
            names = [shortened(str(name), 16) for name in class_names]
            turned = 90 if max(map(len, names)) > 3 else 0
            axes.set_xticks(range(n), names, rotation=turned)
            axes.set_yticks(range(n), names)
            _write_counts(axes, count_CC, share_CC)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.figure.colorbar(shown, shrink=0.6, format="{x:.0%}", label="of the true class")
    return Path(path)


def _write_counts(axes: Any, count_CC: np.ndarray, share_CC: np.ndarray) -> None:
    for row, column in zip(*np.nonzero(count_CC), strict=True):
        color = "white" if share_CC[row, column] > 0.55 else INK
        text = f"{count_CC[row, column]:,}"
        axes.text(column, row, text, ha="center", va="center", color=color, fontsize=7)
