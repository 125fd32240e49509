"""The pictures of a run as PNG files: NumPy arrays in, the path of the picture out.

Colours are told apart by colour-blind readers (Okabe and Ito 2008; Petroff 2021), and no picture
says by colour alone what it has to say. Matplotlib and scikit-learn are imported when first needed.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

PathLike = str | os.PathLike[str]

_DPI = 150
_BLUE, _RED, _ORANGE, _GREEN, _GRAY = "#0072B2", "#D55E00", "#E69F00", "#009E73", "#8A8F98"
_INK, _FAINT = "#22262B", "#D9DCE1"
_CLASS_COLOURS = (
    *("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"),
    *("#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"),
)
_STYLE = {
    **{"font.family": "DejaVu Sans", "font.size": 9, "text.color": _INK},
    **{"axes.titlesize": 10, "axes.titleweight": "bold", "axes.titlelocation": "left"},
    **{"axes.edgecolor": _INK, "axes.linewidth": 0.8, "axes.labelcolor": _INK},
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True},
    **{"xtick.color": _INK, "ytick.color": _INK, "grid.color": _FAINT, "grid.linewidth": 0.6},
    **{"legend.frameon": False, "legend.fontsize": 8, "savefig.facecolor": "white"},
}
_PANELS = (  # title, unit, ((metric, label, colour), ...), factor
    ("Contrastive loss", "nats", (("loss", "training batch", _BLUE),), 1.0),
    (
        "Contrastive accuracy: is the other view the nearest?",
        "%",
        (("contrastive_accuracy", "training batch", _BLUE),),
        100.0,
    ),
    (
        "Contrastive entropy: how undecided is the choice?",
        "nats",
        (("contrastive_entropy", "training batch", _BLUE),),
        1.0,
    ),
    (
        "Accuracy of the classes",
        "%",
        (
            ("online_accuracy", "online linear probe, training views", _ORANGE),
            ("knn_validation", "kNN, held-out images", _GREEN),
        ),
        100.0,
    ),
)
_BARS = {  # (representation, layer) -> colour; others take the grays
    ("trained", "features"): _BLUE,
    ("trained", "embedding"): "#8FC7E8",
    ("untrained", "features"): _ORANGE,
    ("untrained", "embedding"): "#F5D48B",
    ("pixels", "pixels"): _GRAY,
}


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
    with _mosaic(path, size, "Training images and their random views") as axes:
        for row in range(n_views + 1):
            title = "original" if row == 0 else f"view {row}"
            axes.text(left - 0.1, (row + 0.5) * pitch, title, ha="right", va="center")
            for column in range(n):
                image = image_BHWC[column] if row == 0 else views_BVHWC[column, row - 1]
                _tile(axes, image, left + column * pitch, row * pitch)
        for column in range(n):
            x = left + column * pitch + 0.5
            axes.text(x, -0.08, names[column], ha="center", va="bottom", fontsize=8)
        axes.set(xlim=(-0.05, left + n * pitch), ylim=((n_views + 1) * pitch, -0.3))
    return Path(path)


def curves(path: PathLike, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Training curves against the step: loss, contrastive accuracy and entropy, class accuracy.

    Args:
        path: of the PNG.
        rows: of metrics.jsonl: {"step", "loss", "contrastive_accuracy", "contrastive_entropy",
            "online_accuracy", "knn_validation"}. What no row has gets no panel; None is a gap.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     curves(f"{folder}/curves.png", [{"step": 1, "loss": 2.0}]).name
    'curves.png'
    """
    logged = {key for row in rows for key, value in row.items() if value is not None}
    panels = [p for p in _PANELS if any(name in logged for name, *_ in p[2])] or [_PANELS[0]]
    n_columns = 1 if len(panels) == 1 else 2
    n_rows = -(-len(panels) // n_columns)
    with _sheet(path, (4.8 * n_columns, 2.9 * n_rows), n_rows, n_columns) as all_axes:
        for axes, (title, unit, lines, factor) in zip(all_axes, panels, strict=False):
            drawn = [line for line in lines if line[0] in logged]
            for name, label, colour in drawn:
                _line(axes, rows, name, factor, label, colour)
            if not drawn:
                axes.text(0.5, 0.5, "nothing was logged", ha="center", transform=axes.transAxes)
            axes.set(title=title, xlabel="step", ylabel=unit)
            axes.grid(True)
            if len(lines) > 1:
                axes.legend(loc="best")
        for axes in all_axes[len(panels) :]:
            axes.set_axis_off()
    return Path(path)


def score_bars(path: PathLike, evaluations: Sequence[Mapping[str, Any]]) -> Path:
    """Accuracy of each representation under each protocol, with its 95 % interval.

    Args:
        path: of the PNG.
        evaluations: rows {"representation": "trained" | "untrained" | "pixels", "layer",
            "protocol": {"name", ...}, "accuracy": 0 to 1}, with "ci95": [low, high] or without.

    >>> import tempfile
    >>> row = {"representation": "pixels", "layer": "pixels", "accuracy": 0.5}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     score_bars(f"{folder}/scores.png", [{**row, "protocol": {"name": "linear"}}]).name
    'scores.png'
    """
    score = {(_protocol(r), r["representation"], r["layer"]): r for r in evaluations}
    protocols = list(dict.fromkeys(key[0] for key in score))
    kinds = list(dict.fromkeys(key[1:] for key in score))
    width = 0.85 / len(kinds)
    inches = max(5.0, 1.2 + len(protocols) * max(1.2, 0.36 * len(kinds)))
    with _sheet(path, (inches, 3.8)) as (axes,):
        for i, kind in enumerate(kinds):
            colour = _BARS.get(kind, _FAINT)
            x = {p: n + (i - (len(kinds) - 1) / 2) * width for n, p in enumerate(protocols)}
            present = [(x[p], score[p, *kind]) for p in protocols if (p, *kind) in score]
            _bars(axes, present, width, colour, " ".join(dict.fromkeys(kind)))
        axes.set(title="Accuracy on test images", ylabel="%", ylim=(0, 108))
        axes.set_xticks(range(len(protocols)), protocols, fontsize=8)
        axes.set_yticks(range(0, 101, 20))
        axes.tick_params(axis="x", length=0)
        axes.grid(True, axis="y")
        axes.figure.legend(loc="outside lower center", ncols=len(kinds))
    return Path(path)


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
    pca_N2, explained = _pca(x_ND)
    maps = (
        (f"PCA ({explained:.0%} of the variance)", pca_N2),
        ("t-SNE of cosine distances", _tsne(x_ND, pca_N2, seed)),
    )
    with _sheet(path, (9.6, 4.9), 1, 2) as all_axes:
        for axes, (title, xy_N2) in zip(all_axes, maps, strict=True):
            _scatter(axes, xy_N2, np.asarray(labels)[kept], class_names)
            axes.set(title=f"{title}, {len(kept):,} images", xticks=[], yticks=[])
            axes.spines[:].set(visible=True, color=_FAINT)
        handles, names = all_axes[0].get_legend_handles_labels()
        if len(names) <= 20:
            style = {"ncols": min(len(names), 10), "markerscale": 2.5, "handletextpad": 0.1}
            all_axes[0].figure.legend(handles, names, loc="outside lower center", **style)
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
    """Test images and their nearest training images: blue frame, right class; red, wrong.

    The class of a wrong neighbour is printed beside its similarity.

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
    n_queries, n_near = neighbour_labels.shape
    halves = 1 if n_queries < 4 else 2
    lines = -(-n_queries // halves)
    pitch_x, pitch_y, gap, right = 1.16, 1.42, 0.25, 0.5
    block = (n_near + 1) * pitch_x + gap
    span = halves * (block + right) - right
    size = (0.85 * span + 0.2, 0.85 * lines * pitch_y + 0.75)
    with _mosaic(path, size, "Test images (left) and their nearest training images") as axes:
        for q in range(n_queries):
            x0, y = (q // lines) * (block + right), (q % lines) * pitch_y
            _tile(axes, query_images[q], x0, y)
            _caption(axes, x0, y, _name(class_names, query_labels[q]), weight="bold")
            for k in range(n_near):
                x = x0 + (k + 1) * pitch_x + gap
                label = neighbour_labels[q, k]
                right_class = label == query_labels[q]
                words = [] if similarity is None else [f"{similarity[q, k]:.2f}"]
                words += [] if right_class else [_name(class_names, label)]
                colour = _BLUE if right_class else _RED
                _tile(axes, neighbour_images[q, k], x, y, frame=colour)
                _caption(axes, x, y, " ".join(words), color=colour)
        axes.set(xlim=(-0.1, span), ylim=(lines * pitch_y - 0.05, -0.1))
    return Path(path)


def cosine_histogram(path: PathLike, positive_N: np.ndarray, negative_M: np.ndarray) -> Path:
    """Densities of the cosines of positive pairs and of negative pairs.

    Args:
        path: of the PNG.
        positive_N: cosines between two views of one image.
        negative_M: cosines between views of different images.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cosine_histogram(f"{folder}/cosines.png", np.array([0.9]), np.array([0.0, 0.1])).name
    'cosines.png'
    """
    pairs = (
        ("different images", negative_M, _RED, "--"),
        ("two views of one image", positive_N, _BLUE, "-"),
    )
    with _sheet(path, (6.4, 3.6)) as (axes,):
        for name, cosine, colour, dashes in pairs:
            label = f"{name} (mean {np.mean(cosine):.2f}, {len(cosine):,} pairs)"
            bins = np.linspace(-1, 1, 81)
            style = {"density": True, "histtype": "stepfilled", "alpha": 0.35, "color": colour}
            cosine = np.clip(cosine, -1, 1)  # rounding may put a cosine a hair outside
            axes.hist(cosine, bins, label=label, **style)
            axes.hist(cosine, bins, density=True, histtype="step", color=colour, linewidth=1)
            axes.axvline(float(np.mean(cosine)), color=colour, linestyle=dashes, linewidth=1.2)
        axes.set(title="Cosine similarity of embeddings", xlabel="cosine", ylabel="density")
        axes.set(xlim=(-1, 1))
        axes.grid(True)
        axes.legend(loc="upper left", bbox_to_anchor=(0, 1))
    return Path(path)


@contextmanager
def _sheet(
    path: PathLike, size: tuple[float, float], rows: int = 1, columns: int = 1
) -> Iterator[list[Any]]:
    """The axes of a figure of `size` inches in the house style, written to `path` at the end."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")  # not pyplot: nothing global to close
        yield list(figure.subplots(rows, columns, squeeze=False).ravel())
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=_DPI, format="png")


@contextmanager
def _mosaic(path: PathLike, size: tuple[float, float], title: str) -> Iterator[Any]:
    """Bare axes to lay tiles on: y points down, a tile is 1 wide."""
    with _sheet(path, size) as (axes,):
        yield axes
        axes.set_title(title, pad=8)
        axes.set_aspect("equal")
        axes.set_axis_off()


def _tile(axes: Any, image: np.ndarray, x: float, y: float, frame: str = _FAINT) -> None:
    from matplotlib.patches import Rectangle

    image = image / 255 if image.dtype == np.uint8 else image
    pixels = np.clip(image[..., 0] if image.shape[-1] == 1 else image, 0, 1)
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, extent=(x, x + 1, y + 1, y))
    width = 0.6 if frame == _FAINT else 2.2
    axes.add_patch(Rectangle((x, y), 1, 1, fill=False, edgecolor=frame, linewidth=width))


def _caption(axes: Any, x: float, y: float, text: str, **style: str) -> None:
    axes.text(x + 0.5, y + 1.06, text, ha="center", va="top", fontsize=7, **style)


def _name(class_names: Sequence[str], label: int) -> str:
    return class_names[label] if 0 <= label < len(class_names) else "unlabelled"


def _line(
    axes: Any, rows: Sequence[Mapping[str, Any]], name: str, factor: float, label: str, colour: str
) -> None:
    """A metric against the step; where it is long, faint under its moving average."""
    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    step, value = np.array(points, float).T
    value = value * factor
    if len(value) < 60:
        marker = "o" if len(value) < 30 else None
        axes.plot(step, value, color=colour, label=label, marker=marker, markersize=3)
        return
    half = max(1, len(value) // 100)
    window = [value[max(0, i - half) : i + half + 1].mean() for i in range(len(value))]
    axes.plot(step, value, color=colour, alpha=0.3, linewidth=0.7)
    axes.plot(step, window, color=colour, label=label, linewidth=1.6)


def _bars(axes: Any, bars: list[tuple[float, Any]], width: float, colour: str, label: str) -> None:
    x, height = [place for place, _ in bars], [100 * row["accuracy"] for _, row in bars]
    axes.bar(x, height, 0.92 * width, color=colour, label=label)
    for place, row in bars:
        low, high = (100 * v for v in row.get("ci95", (row["accuracy"], row["accuracy"])))
        axes.plot([place, place], [low, high], color=_INK, linewidth=0.8)
        top = max(high, 100 * row["accuracy"]) + 1
        text = f"{100 * row['accuracy']:.1f}"
        axes.text(place, top, text, ha="center", va="bottom", fontsize=7)


def _protocol(row: Mapping[str, Any]) -> str:
    """Two short lines that say how the accuracy was measured."""
    protocol = row["protocol"]
    if protocol["name"] == "knn":
        temperature = protocol.get("temperature")
        votes = "equal votes" if temperature is None else f"temperature {temperature:g}"
        return f"kNN, k = {protocol.get('k')}\n{votes}"
    if protocol["name"] == "few-label":
        return f"linear probe\n{protocol.get('labels_per_class')} labels a class"
    return "linear probe\nall labels" if protocol["name"] == "linear" else str(protocol["name"])


def _pca(x_ND: np.ndarray) -> tuple[np.ndarray, float]:
    """The first two principal components [N, 2] and their share of the variance."""
    centred = x_ND - x_ND.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    scores = (u * s)[:, :2]
    share = float(np.sum(s[:2] ** 2) / max(np.sum(s**2), 1e-12))
    return np.pad(scores, ((0, 0), (0, 2 - scores.shape[1]))), share


def _tsne(x_ND: np.ndarray, pca_N2: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(x_ND) - 1) / 3)
    start = 1e-4 * pca_N2 / max(float(pca_N2[:, 0].std()), 1e-12)
    model = TSNE(metric="cosine", perplexity=perplexity, init=start, random_state=seed)
    return model.fit_transform(x_ND)


def _scatter(axes: Any, xy_N2: np.ndarray, label_N: np.ndarray, names: Sequence[str]) -> None:
    from matplotlib import colormaps

    classes = np.unique(label_N)
    few = len(classes) <= len(_CLASS_COLOURS)
    palette = _CLASS_COLOURS if few else colormaps["turbo"](np.linspace(0, 1, len(classes)))
    size = 7 if len(xy_N2) > 500 else 16
    for i, label in enumerate(classes):
        points = xy_N2[label_N == label]
        axes.scatter(*points.T, s=size, color=palette[i], label=_name(names, label), linewidths=0)
