"""Pictures of images: random views, nearest neighbors, pairs.

Images have any number of channels: 1 is gray, 3 are RGB, 4 are RGBA; of 2 or more than 4 the mean
is drawn in gray, and the title says so. Labels may be missing, or -1 for unlabeled images.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contrastive_jax.figures.canvas import (
    BLUE,
    FAINT,
    RED,
    PathLike,
    channels_note,
    class_name,
    draw_image,
    image_axes,
    shortened,
)


def views_grid(
    path: PathLike,
    image_BHWC: np.ndarray,
    views_BVHWC: np.ndarray,
    names: Sequence[str] | None = None,
) -> Path:
    """Draw images and their random views, a column for each image.

    Args:
      path: of the PNG.
      image_BHWC: uint8.
      views_BVHWC: float in [0, 1], of any size.
      names: what to write over each column, None for nothing.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     image, views = np.zeros((2, 8, 8, 1), np.uint8), np.zeros((2, 2, 8, 8, 1))
    ...     views_grid(f"{folder}/views.png", image, views, ["a", "b"]).name
    'views.png'
    """
    n, n_views = views_BVHWC.shape[:2]
    pitch, left = 1.08, 0.75
    size = (0.95 * (left + n * pitch) + 0.1, 0.95 * (n_views + 1) * pitch + 0.65)
    title = _lines("Training images and their random views", image_BHWC)
    with image_axes(path, size, title) as axes:
        for row in range(n_views + 1):
            text = "original" if row == 0 else f"view {row}"
            axes.text(left - 0.1, (row + 0.5) * pitch, text, ha="right", va="center")
            for column, image in enumerate(views_BVHWC[:, row - 1] if row else image_BHWC):
                draw_image(axes, image, left + column * pitch, row * pitch)
        for column, name in enumerate(names or ()):
            x, text = left + column * pitch + 0.5, shortened(str(name), 14)
            axes.text(x, -0.08, text, ha="center", va="bottom", fontsize=8)
        axes.set(xlim=(-0.05, left + n * pitch), ylim=((n_views + 1) * pitch, -0.3))
    return Path(path)


def neighbors(
    path: PathLike,
    query_images: np.ndarray,
    neighbor_images: np.ndarray,
    query_labels: np.ndarray | None = None,
    neighbor_labels: np.ndarray | None = None,
    class_names: Sequence[str] = (),
    similarity: np.ndarray | None = None,
) -> Path:
    """Draw test images and their nearest training images, a blue frame for the right class.

    A neighbor of another class has an orange frame and its class printed below. Where one of the
    two is unlabeled the frame is gray.

    Args:
      path: of the PNG.
      query_images: [Q, H, W, C] uint8.
      neighbor_images: [Q, K, H, W, C] uint8, nearest first.
      query_labels, neighbor_labels: [Q] and [Q, K] integers; None where there are none.
      class_names: of the classes.
      similarity: [Q, K] cosines, None to print none.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     image, near = np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 2, 8, 8, 3), np.uint8)
    ...     labels = np.array([0]), np.array([[0, 1]])
    ...     neighbors(f"{folder}/near.png", image, near, *labels, ["cat", "dog"]).name
    'near.png'
    """
    n_queries, n_near = neighbor_images.shape[:2]
    label_Q = np.full(n_queries, -1) if query_labels is None else query_labels
    label_QK = np.full((n_queries, n_near), -1) if neighbor_labels is None else neighbor_labels
    halves = 1 if n_queries < 4 else 2
    lines = -(-n_queries // halves)
    pitch_x, pitch_y, gap, right = 1.16, 1.5, 0.25, 0.5
    block = (n_near + 1) * pitch_x + gap
    span = halves * (block + right) - right
    size = (0.85 * span + 0.2, 0.85 * lines * pitch_y + 0.6)
    legend = ["blue: same class, orange: another"] if np.any(label_Q >= 0) else []
    legend += [] if similarity is None else ["number: cosine"]
    title = _lines(
        "Test images (left) and their nearest training images", query_images, ", ".join(legend)
    )
    with image_axes(path, size, title) as axes:
        for q in range(n_queries):
            x0, y = (q // lines) * (block + right), (q % lines) * pitch_y
            draw_image(axes, query_images[q], x0, y)
            if label_Q[q] >= 0:
                _caption(axes, x0, y, class_name(class_names, label_Q[q], 11), weight="bold")
            for k in range(n_near):
                x = x0 + (k + 1) * pitch_x + gap
                frame, name = _judged(label_Q[q], label_QK[q, k], class_names)
                cosine = [] if similarity is None else [f"{similarity[q, k]:.2f}"]
                draw_image(axes, neighbor_images[q, k], x, y, frame=frame)
                style = {} if frame == FAINT else {"color": frame}
                _caption(axes, x, y, "\n".join(cosine + name), **style)
        axes.set(xlim=(-0.1, span), ylim=(lines * pitch_y - 0.05, -0.1))
    return Path(path)


def image_pairs(
    path: PathLike,
    image_P2HWC: np.ndarray,
    label_P2: np.ndarray | None,
    cosine_P: np.ndarray,
    class_names: Sequence[str],
    title: str,
) -> Path:
    """Draw pairs of images side by side, with their classes and their cosine below.

    Args:
      path: of the PNG.
      image_P2HWC: uint8 [P, 2, H, W, C], at least one pair.
      label_P2: integers; None where there are none.
      cosine_P: of each pair.
      class_names: of the classes.
      title: of the picture.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pair = np.zeros((1, 2, 8, 8, 1), np.uint8), np.array([[0, 1]]), np.array([0.9])
    ...     image_pairs(f"{folder}/pairs.png", *pair, ["cat", "dog"], "Hardest negatives").name
    'pairs.png'
    """
    columns = min(4, len(cosine_P))
    lines = -(-len(cosine_P) // columns)
    pitch_x, pitch_y = 2.5, 1.62
    span = columns * pitch_x - 0.45
    size = (0.78 * span + 0.2, 0.78 * lines * pitch_y + 0.5)
    with image_axes(path, size, _lines(title, image_P2HWC)) as axes:
        for p, (images, cosine) in enumerate(zip(image_P2HWC, cosine_P, strict=True)):
            x, y = p % columns * pitch_x, p // columns * pitch_y
            for side in (0, 1):
                draw_image(axes, images[side], x + 1.03 * side, y)
            labels = [] if label_P2 is None else dict.fromkeys(label_P2[p].tolist())
            names = " | ".join(class_name(class_names, label, 13) for label in labels)
            _caption(axes, x + 0.515, y, f"{names}\n{cosine:.3f}".strip())
        axes.set(xlim=(-0.05, span), ylim=(lines * pitch_y - 0.05, -0.1))
    return Path(path)


def _lines(title: str, images: np.ndarray, more: str = "") -> str:
    """A title, a line for what explains it, and one where channels are not shown as they are."""
    return "\n".join(line for line in (title, more, channels_note(images.shape[-1])) if line)


def _judged(query: int, neighbor: int, class_names: Sequence[str]) -> tuple[str, list[str]]:
    """The color of a neighbor's frame, and the class to print below it."""
    if query < 0 or neighbor < 0:
        return FAINT, [class_name(class_names, neighbor, 11)] if neighbor >= 0 else []
    same = query == neighbor
    return BLUE if same else RED, [] if same else [class_name(class_names, neighbor, 11)]


def _caption(axes: Any, x: float, y: float, text: str, **style: str) -> None:
    axes.text(x + 0.5, y + 1.06, text, ha="center", va="top", fontsize=7, **style)
