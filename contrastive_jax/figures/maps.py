"""Maps of a representation in two dimensions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contrastive_jax.figures.canvas import FAINT, PathLike, class_name, sheet

_CLASS_COLOURS = (
    *("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"),
    *("#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"),
)
_MARKERS = "os^DvPX*<>"  # colour alone does not tell ten classes apart for everyone


def embedding_map(
    path: PathLike,
    features_ND: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    seed: int,
) -> Path:
    """Two maps of a representation, by PCA and by t-SNE, coloured by class.

    Rows are scaled to unit length first, so that both maps look at cosines. At most 2,000 of them
    are drawn, chosen by the seed.

    Args:
        path: of the PNG.
        features_ND: N >= 3 rows.
        labels: [N] integers; below 0 is drawn as unlabelled.
        class_names: of the classes.
        seed: of the choice of rows and of t-SNE.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     names = ["even", "odd"]
    ...     embedding_map(f"{folder}/map.png", np.eye(8), np.arange(8) % 2, names, seed=0).name
    'map.png'
    """
    if len(features_ND) < 3:
        raise ValueError(f"a map of {len(features_ND)} rows says nothing: give at least 3")
    kept = np.random.default_rng(seed).permutation(len(features_ND))[:2000]
    x_ND = np.asarray(features_ND, np.float32)[kept]
    x_ND = x_ND / np.maximum(np.linalg.norm(x_ND, axis=1, keepdims=True), 1e-12)
    label_N = np.asarray(labels)[kept]
    label_N = np.where(label_N < len(class_names), label_N, -1).clip(min=-1)
    pca_N2, explained = _pca(x_ND)
    maps = (
        (f"PCA ({explained:.0%} of the variance)", pca_N2),
        ("t-SNE of cosine distances", _tsne(x_ND, pca_N2, seed)),
    )
    with sheet(path, (9.6, 4.9), 1, 2) as all_axes:
        for axes, (title, xy_N2) in zip(all_axes, maps, strict=True):
            _scatter(axes, xy_N2, label_N, class_names)
            axes.set(title=f"{title}, {len(kept):,} images", xticks=[], yticks=[])
            axes.spines[:].set(visible=True, color=FAINT)
        handles, names = all_axes[0].get_legend_handles_labels()
        if len(names) <= 20:
            n_rows = -(-len(names) * (max(map(len, names)) + 5) // 120)
            style = {"ncols": -(-len(names) // n_rows), "markerscale": 2, "handletextpad": 0.1}
            all_axes[0].figure.legend(handles, names, loc="outside lower center", **style)
    return Path(path)


def palette(n: int) -> Sequence[Any]:
    """Colours for n kinds of thing, apart from one another where n allows it."""
    from matplotlib import colormaps

    few = n <= len(_CLASS_COLOURS)
    return _CLASS_COLOURS if few else list(colormaps["turbo"](np.linspace(0, 1, n)))


def _pca(x_ND: np.ndarray) -> tuple[np.ndarray, float]:
    """The first two principal components [N, 2] and their share of the variance."""
    centred = x_ND - x_ND.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
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


def _scatter(axes: Any, xy_N2: np.ndarray, label_N: np.ndarray, names: Sequence[str]) -> None:
    classes = np.unique(label_N)
    colours = palette(len(classes))
    style = {"s": 10 if len(xy_N2) > 500 else 20, "linewidths": 0}
    for i, label in enumerate(classes):
        x_N, y_N = xy_N2[label_N == label].T
        marker = _MARKERS[i % len(_MARKERS)]
        axes.scatter(
            x_N, y_N, marker=marker, color=colours[i], label=class_name(names, label), **style
        )
