"""Maps of a representation in two dimensions."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contrastive_jax.figures.canvas import (
    BLUE,
    FAINT,
    GRAY,
    ORANGE,
    PathLike,
    channels_note,
    class_name,
    draw_image,
    image_axes,
    legend,
    palette,
    subplots,
)

_MARKERS = "os^DvPX*<>"  # not everyone can distinguish ten classes by color
_ROWS = 2000  # points at most
_IMAGES = 400  # on a map of images at most
_PITCH = 1.04  # of its cells
_TSNE_ROWS = 5  # t-SNE of fewer says nothing
_LEGEND_CLASSES = 20


def embedding_map(
    path: PathLike,
    features_ND: np.ndarray,
    labels: np.ndarray | None,
    class_names: Sequence[str],
    seed: int,
    of: str = "image",
) -> Path:
    """Draw two maps of a representation, by PCA and by t-SNE, colored by class.

    Rows are scaled to unit length first, so that both maps are of cosines. At most 2,000 of them
    are shown, chosen by the seed; fewer than 5 get the PCA alone.

    Args:
      path: of the PNG.
      features_ND: at least one row.
      labels: [N] integers, below 0 for unlabeled; None where there are none.
      class_names: of the classes.
      seed: of the choice of rows and of t-SNE.
      of: what a row is.

    Raises:
      ValueError: there are no rows, or a number is not finite.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     names = ["even", "odd"]
    ...     embedding_map(f"{folder}/map.png", np.eye(8), np.arange(8) % 2, names, seed=0).name
    'map.png'
    """
    if not len(features_ND) or not np.isfinite(features_ND).all():
        raise ValueError(f"a map needs rows of finite features, not {len(features_ND)} such rows")
    kept = np.random.default_rng(seed).permutation(len(features_ND))[:_ROWS]
    label_N = np.full(len(kept), -1) if labels is None else np.asarray(labels)[kept].clip(min=-1)
    count = f"{len(kept):,} {of}{'s' * (len(kept) > 1)}"
    maps = _maps(np.asarray(features_ND, np.float32)[kept], seed)
    with subplots(path, (4.8 * len(maps), 4.9), 1, len(maps)) as all_axes:
        for axes, (title, xy_N2) in zip(all_axes, maps, strict=True):
            handles = _scatter(axes, xy_N2, label_N)
            axes.set(title=f"{title}, {count}", xticks=[], yticks=[])
            axes.spines[:].set(visible=True, color=FAINT)
        names = [class_name(class_names, label) for label in np.unique(label_N)]
        if 1 < len(names) <= _LEGEND_CLASSES or label_N[0] >= 0 and len(names) == 1:
            letters = 60 * len(maps)
            n_rows = -(-len(names) * (max(map(len, names)) + 5) // letters)
            legend(all_axes[0].figure, handles, names, columns=-(-len(names) // n_rows))
    return Path(path)


def modality_map(
    path: PathLike,
    image_ND: np.ndarray,
    text_ND: np.ndarray,
    labels: np.ndarray | None,
    class_names: Sequence[str],
    seed: int,
) -> Path:
    """Draw images and their captions in one map of their common space, by PCA and by t-SNE.

    Images are points and captions crosses, in the color of their class; the ten most frequent
    classes have a color of their own. At most 1,000 pairs are shown, chosen by the seed.

    Args:
      path: of the PNG.
      image_ND, text_ND: embeddings of pairs, row by row.
      labels: [N] integers, below 0 for unlabeled; None where there are none.
      class_names: of the classes.
      seed: of the choice of pairs and of t-SNE.

    Raises:
      ValueError: there are no pairs, or a number is not finite.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     modality_map(f"{folder}/map.png", np.eye(4), np.eye(4), None, [], seed=0).name
    'map.png'
    """
    both = np.asarray(image_ND), np.asarray(text_ND)
    if not len(both[0]) or not all(np.isfinite(each).all() for each in both):
        raise ValueError(f"a map needs pairs of finite embeddings, not {len(both[0])} such pairs")
    kept = np.random.default_rng(seed).permutation(len(both[0]))[: _ROWS // 2]
    label_N = np.full(len(kept), -1) if labels is None else np.asarray(labels)[kept]
    label_N = _most_frequent(label_N, len(_MARKERS))
    gray = (GRAY, GRAY) if (label_N >= 0).any() else (BLUE, ORANGE)  # of what has no class
    maps = _maps(np.concatenate([_unit(each[kept]) for each in both]), seed)
    with subplots(path, (4.8 * len(maps), 5.2), 1, len(maps)) as all_axes:
        for axes, (title, xy_N2) in zip(all_axes, maps, strict=True):
            image_N2, text_N2 = np.split(xy_N2, 2)
            handles = _scatter(axes, image_N2, label_N, marker="o", rest=gray[0])
            _scatter(axes, text_N2, label_N, marker="x", rest=gray[1])
            axes.set(title=f"{title}\n{len(kept):,} images ● and captions ×", xticks=[], yticks=[])
            axes.spines[:].set(visible=True, color=FAINT)
        names = [class_name(class_names, c) if c >= 0 else "the rest" for c in np.unique(label_N)]
        if len(names) > 1:
            legend(all_axes[0].figure, handles, names, columns=6)
    return Path(path)


def _most_frequent(label_N: np.ndarray, most: int) -> np.ndarray:
    """Replace the labels of the other classes by -1."""
    classes, counts = np.unique(label_N[label_N >= 0], return_counts=True)
    chosen = classes[np.argsort(-counts, kind="stable")[:most]]
    return np.where(np.isin(label_N, chosen), label_N, -1)


def image_map(path: PathLike, features_ND: np.ndarray, image_NHWC: Any, seed: int) -> Path:
    """Draw images side by side so that similar ones are near: the map of a set without labels.

    The points of `embedding_map` (t-SNE, or PCA of fewer than 5) are moved to the cells of a
    square grid, at the least sum of squared distances. At most 400 images are shown, chosen by the
    seed.

    Args:
      path: of the PNG.
      features_ND: at least one row, finite.
      image_NHWC: uint8, indexed by rows.
      seed: of the choice of images and of t-SNE.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     image_map(f"{folder}/map.png", np.eye(4), np.zeros((4, 8, 8, 3), np.uint8), seed=0).name
    'map.png'
    """
    from scipy.optimize import linear_sum_assignment

    kept = np.random.default_rng(seed).permutation(len(features_ND))[:_IMAGES]
    title, xy_N2 = _maps(np.asarray(features_ND, np.float32)[kept], seed)[-1]
    low, high = xy_N2.min(axis=0), xy_N2.max(axis=0)
    side = math.ceil(math.sqrt(len(kept)))
    at_N2 = (xy_N2 - low) / np.maximum(high - low, 1e-12) * (side - 1)
    cell_M2 = np.stack(np.divmod(np.arange(side * side), side), axis=1)
    row, cell = linear_sum_assignment(((at_N2[:, None] - cell_M2) ** 2).sum(axis=-1))
    inches = max(side * 0.5, 4.0)
    count = f"{len(kept):,} image{'s' * (len(kept) > 1)}"
    title = f"{count} on a grid by {title.partition(' (')[0]}{channels_note(image_NHWC.shape[-1])}"
    with image_axes(path, (inches, inches + 0.4), title) as axes:
        for image, place in zip(image_NHWC[kept[row]], cell_M2[cell], strict=True):
            draw_image(axes, image, *(_PITCH * place))
        axes.set(xlim=(0, _PITCH * side), ylim=(_PITCH * side, 0))
    return Path(path)


def _maps(x_ND: np.ndarray, seed: int) -> list[tuple[str, np.ndarray]]:
    """(title, points [N, 2]) of each map."""
    x_ND = _unit(x_ND)
    pca_N2, explained = _pca(x_ND)
    maps = [(f"PCA ({explained:.0%} of the variance)", pca_N2)]
    if len(x_ND) >= _TSNE_ROWS:
        maps.append(("t-SNE of cosine distances", _tsne(x_ND, pca_N2, seed)))
    return maps


def _unit(x_ND: np.ndarray) -> np.ndarray:
    x_ND = np.asarray(x_ND, np.float32)
    return x_ND / np.maximum(np.linalg.norm(x_ND, axis=1, keepdims=True), 1e-12)


def _pca(x_ND: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the first two principal components [N, 2] and their share of the variance."""
    centered = x_ND - x_ND.mean(axis=0)
    u, s, _ = np.linalg.svd(centered, full_matrices=False)
    scores = (u * s)[:, :2]
    share = float(np.sum(s[:2] ** 2) / max(np.sum(s**2), 1e-12))
    return np.pad(scores, ((0, 0), (0, 2 - scores.shape[1]))), share


def _tsne(x_ND: np.ndarray, pca_N2: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    perplexity = min(30.0, (len(x_ND) - 1) / 3)
    start = 1e-4 * pca_N2 / max(float(pca_N2[:, 0].std()), 1e-12)
    options: dict[str, Any] = {"metric": "cosine", "init": start, "random_state": seed}
    with threadpool_limits(1):  # its threads spin for one another: on busy cores 100 times slower
        return TSNE(perplexity=perplexity, **options).fit_transform(x_ND)


def _scatter(
    axes: Any,
    xy_N2: np.ndarray,
    label_N: np.ndarray,
    marker: str | None = None,
    rest: str = GRAY,
) -> list[Any]:
    """Draw the points of each class in a color and a marker, unlabeled ones in that of the rest."""
    classes = np.unique(label_N)
    known = classes[classes >= 0]
    colors = dict(zip(known, palette(len(known)), strict=False))
    style = {"s": 10 if len(xy_N2) > 500 else 20, "linewidths": 0.7 if marker == "x" else 0}
    drawn = []
    for i, label in enumerate(classes):
        x_N, y_N = xy_N2[label_N == label].T
        color = colors.get(label, rest)
        own = "." if label < 0 else _MARKERS[i % len(_MARKERS)]
        drawn.append(axes.scatter(x_N, y_N, marker=marker or own, color=[color], **style))
    return drawn
