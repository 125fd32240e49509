"""Pictures of captioned images: an image and the captions nearest to it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from contrastive_jax.figures.canvas import BLUE, FAINT, PathLike, draw_image, image_axes, shortened

_COLUMNS, _PITCH, _TEXT = 2, 1.3, 6.2  # images side by side; heights and widths in images


def nearest_captions(
    path: PathLike,
    image_QHWC: np.ndarray,
    captions: Sequence[Sequence[str]],
    similarity_QK: np.ndarray,
    correct_QK: np.ndarray,
    own: Sequence[str],
) -> Path:
    """Draw images beside the captions nearest to them; the correct one is bold and marked.

    Where it is not among the nearest, the image's own caption stands below them.

    Args:
      path: of the PNG.
      image_QHWC: uint8.
      captions: for each image the K nearest, nearest first.
      similarity_QK: cosines.
      correct_QK: bool.
      own: the caption of each image.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     image, one = np.zeros((1, 8, 8, 1), np.uint8), np.ones((1, 1))
    ...     nearest_captions(f"{folder}/near.png", image, [["a cat"]], one, one > 0, ["a cat"]).name
    'near.png'
    """
    lines = -(-len(image_QHWC) // _COLUMNS)
    span, height = _COLUMNS * (1 + _TEXT), lines * _PITCH
    found = int(np.sum(correct_QK[:, 0]))
    title = (
        "Test images, sampled at random, and the captions nearest to them\n"
        f"✓ the correct one: first for {found} of {len(image_QHWC)}"
    )
    with image_axes(path, (0.72 * span, 0.72 * height + 0.6), title) as axes:
        for q, image in enumerate(image_QHWC):
            x, y = (q // lines) * (1 + _TEXT), (q % lines) * _PITCH
            draw_image(axes, image, x, y, frame=BLUE if correct_QK[q, 0] else FAINT)
            for line, (text, weight) in enumerate(
                _lines(captions[q], similarity_QK[q], correct_QK[q], own[q])
            ):
                color = {"color": BLUE} if weight == "bold" else {}
                place = (x + 1.15, y + 0.1 + 0.24 * line)
                axes.text(*place, text, fontsize=7, va="center", weight=weight, **color)
        axes.set(xlim=(-0.05, span), ylim=(height, -0.1))
    return Path(path)


def _lines(
    captions: Sequence[str], similarity_K: np.ndarray, correct_K: np.ndarray, own: str
) -> list[tuple[str, str]]:
    """The text and the weight of each line."""
    lines = [
        (
            f"{'✓' if right else ' '} {cosine:.2f}  {shortened(text, 52)}",
            "bold" if right else "normal",
        )
        for text, cosine, right in zip(captions, similarity_K, correct_K, strict=True)
    ]
    return (
        lines if correct_K.any() else [*lines, (f"            is: {shortened(own, 52)}", "normal")]
    )
