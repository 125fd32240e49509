"""Pictures of images: random views, nearest neighbours."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contrastive_jax.figures.canvas import BLUE, RED, PathLike, class_name, mosaic, tile


def views_grid(
    path: PathLike, image_BHWC: np.ndarray, views_BVHWC: np.ndarray, names: Sequence[str]
) -> Path:
    """Images and their random views, a column for each image.

    Args:
        path: of the PNG.
        image_BHWC: uint8, 1 or 3 channels.
        views_BVHWC: float in [0, 1], of any size.
        names: what to write over each column.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     image, views = np.zeros((2, 8, 8, 1), np.uint8), np.zeros((2, 2, 8, 8, 1))
    ...     views_grid(f"{folder}/views.png", image, views, ["a", "b"]).name
    'views.png'
    """
    n, n_views = views_BVHWC.shape[:2]
    pitch, left = 1.08, 0.75
    size = (0.95 * (left + n * pitch) + 0.1, 0.95 * (n_views + 1) * pitch + 0.65)
    with mosaic(path, size, "Training images and their random views") as axes:
        for row in range(n_views + 1):
            title = "original" if row == 0 else f"view {row}"
            axes.text(left - 0.1, (row + 0.5) * pitch, title, ha="right", va="center")
            for column in range(n):
                image = image_BHWC[column] if row == 0 else views_BVHWC[column, row - 1]
                tile(axes, image, left + column * pitch, row * pitch)
        for column in range(n):
            x = left + column * pitch + 0.5
            axes.text(x, -0.08, names[column], ha="center", va="bottom", fontsize=8)
        axes.set(xlim=(-0.05, left + n * pitch), ylim=((n_views + 1) * pitch, -0.3))
    return Path(path)


def neighbours(
    path: PathLike,
    query_images: np.ndarray,
    neighbour_images: np.ndarray,
    query_labels: np.ndarray,
    neighbour_labels: np.ndarray,
    class_names: Sequence[str],
    similarity: np.ndarray | None = None,
) -> Path:
    """Test images and their nearest training images, a blue frame for the right class.

    A neighbour of another class has an orange frame and its class printed below.

    Args:
        path: of the PNG.
        query_images: [Q, H, W, C] uint8.
        neighbour_images: [Q, K, H, W, C] uint8, nearest first.
        query_labels, neighbour_labels: [Q] and [Q, K] integers.
        class_names: of the classes.
        similarity: [Q, K] cosines, None to print none.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     image, near = np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 2, 8, 8, 3), np.uint8)
    ...     labels = np.array([0]), np.array([[0, 1]])
    ...     neighbours(f"{folder}/near.png", image, near, *labels, ["cat", "dog"]).name
    'near.png'
    """
    given = similarity is not None
    n_queries, n_near = neighbour_labels.shape
    halves = 1 if n_queries < 4 else 2
    lines = -(-n_queries // halves)
    pitch_x, pitch_y, gap, right = 1.16, 1.5, 0.25, 0.5
    block = (n_near + 1) * pitch_x + gap
    span = halves * (block + right) - right
    size = (0.85 * span + 0.2, 0.85 * lines * pitch_y + 0.6)
    title = "Test images (left) and their nearest training images\n"
    title += "blue: same class, orange: another" + (", number: cosine" if given else "")
    with mosaic(path, size, title) as axes:
        for q in range(n_queries):
            x0, y = (q // lines) * (block + right), (q % lines) * pitch_y
            tile(axes, query_images[q], x0, y)
            _caption(axes, x0, y, class_name(class_names, query_labels[q]), weight="bold")
            for k in range(n_near):
                x = x0 + (k + 1) * pitch_x + gap
                label = neighbour_labels[q, k]
                right_class = label == query_labels[q]
                words = [f"{similarity[q, k]:.2f}"] if given else []
                words += [] if right_class else [class_name(class_names, label)]
                colour = BLUE if right_class else RED
                tile(axes, neighbour_images[q, k], x, y, frame=colour)
                _caption(axes, x, y, "\n".join(words), color=colour)
        axes.set(xlim=(-0.1, span), ylim=(lines * pitch_y - 0.05, -0.1))
    return Path(path)


def _caption(axes: Any, x: float, y: float, text: str, **style: str) -> None:
    axes.text(x + 0.5, y + 1.06, text, ha="center", va="top", fontsize=7, **style)
