"""Pictures for reports: the curves of several runs, a confusion matrix, pairs of images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from contrastive_jax.figures.canvas import INK, PathLike, class_name, mosaic, sheet, tile
from contrastive_jax.figures.maps import palette
from contrastive_jax.figures.plots import draw_line


class _Panel(NamedTuple):
    metric: str
    title: str
    unit: str
    factor: float = 1.0


_PANELS = (
    _Panel("loss", "Contrastive loss", "nats"),
    _Panel("contrastive_accuracy", "Contrastive accuracy", "%", 100.0),
    _Panel("contrastive_entropy", "Contrastive entropy", "nats"),
    _Panel("online_accuracy", "Online probe, training views", "%", 100.0),
    _Panel("knn_validation", "kNN, held-out training images", "%", 100.0),
    _Panel("effective_rank", "Effective rank of z", "dimensions"),
    _Panel("alignment", "Alignment of two views", "squared distance"),
    _Panel("uniformity", "Uniformity of z", "log mean potential"),
    _Panel("grad_norm", "Gradient norm", ""),
)
_DASHES = ("-", "--", "-.", ":")  # colour alone does not tell runs apart for everyone


def overlaid_curves(path: PathLike, histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> Path:
    """Training curves of several runs over one another, a panel for each metric.

    Args:
        path: of the PNG.
        histories: rows of metrics.jsonl, {"step", metric: value}, by the name of the run. What no
            row has gets no panel; None is a gap.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     rows = {"a": [{"step": 1, "loss": 2.0}], "b": [{"step": 1, "loss": 3.0}]}
    ...     overlaid_curves(f"{folder}/curves.png", rows).name
    'curves.png'
    """
    logged = {k for rows in histories.values() for row in rows for k in row if row[k] is not None}
    panels = [panel for panel in _PANELS if panel.metric in logged]
    n_columns = min(3, max(1, len(panels)))
    n_rows = max(1, -(-len(panels) // n_columns))
    last = max((row["step"] for rows in histories.values() for row in rows), default=1)
    colours = palette(len(histories))
    with sheet(path, (3.9 * n_columns, 2.6 * n_rows + 0.3), n_rows, n_columns) as all_axes:
        for axes, panel in zip(all_axes, panels, strict=False):
            for i, (name, rows) in enumerate(histories.items()):
                style = {"linestyle": _DASHES[i % len(_DASHES)]}
                if any(row.get(panel.metric) is not None for row in rows):
                    draw_line(axes, rows, panel.metric, panel.factor, name, colours[i], **style)
            axes.set(title=panel.title, xlabel="step", ylabel=panel.unit, xlim=(0, 1.03 * last))
            axes.xaxis.set_major_formatter("{x:,.0f}")
            axes.locator_params(axis="x", nbins=5, integer=True)
            axes.grid(True)
        for axes in all_axes[len(panels) :]:
            axes.set_axis_off()
        if not panels:
            all_axes[0].set_title("No training metrics were logged")
        elif len(histories) > 1:
            _legend(all_axes, n_columns * 50)
    return Path(path)


def _legend(all_axes: Sequence[Any], letters: int) -> None:
    """One legend for all panels, in lines of about so many letters."""
    shown = {line.get_label(): line for axes in all_axes for line in axes.lines}
    shown = {name: line for name, line in shown.items() if not name.startswith("_child")}
    columns = max(1, min(len(shown), letters // (max(map(len, shown)) + 8)))
    figure = all_axes[0].figure
    figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=columns)


def confusion_matrix(path: PathLike, count_CC: np.ndarray, class_names: Sequence[str]) -> Path:
    """Counts of (true class, predicted class), shaded by their share of the true class.

    Args:
        path: of the PNG.
        count_CC: integers, a row for each true class.
        class_names: of the C classes.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     confusion_matrix(f"{folder}/confusion.png", np.eye(2, dtype=int), ["cat", "dog"]).name
    'confusion.png'
    """
    share_CC = count_CC / np.maximum(count_CC.sum(axis=1, keepdims=True), 1)
    n = len(class_names)
    side = float(np.clip(0.42 * n + 1.6, 3.6, 9.0))
    with sheet(path, (side + 0.6, side)) as (axes,):
        shown = axes.imshow(share_CC, cmap="Blues", vmin=0, vmax=1)
        axes.set(title="Confusion of the linear probe", xlabel="predicted", ylabel="true class")
        if n <= 25:
            axes.set_xticks(range(n), class_names, rotation=90 if _wide(class_names) else 0)
            axes.set_yticks(range(n), class_names)
            _write_counts(axes, count_CC, share_CC)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.figure.colorbar(shown, shrink=0.6, format="{x:.0%}", label="of the true class")
    return Path(path)


def _wide(class_names: Sequence[str]) -> bool:
    return max(map(len, class_names)) > 3


def _write_counts(axes: Any, count_CC: np.ndarray, share_CC: np.ndarray) -> None:
    for row, column in zip(*np.nonzero(count_CC), strict=True):
        colour = "white" if share_CC[row, column] > 0.55 else INK
        text = f"{count_CC[row, column]:,}"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=7)


def image_pairs(
    path: PathLike,
    image_P2HWC: np.ndarray,
    label_P2: np.ndarray,
    cosine_P: np.ndarray,
    class_names: Sequence[str],
    title: str,
) -> Path:
    """Pairs of images side by side, with their classes and their cosine below.

    Args:
        path: of the PNG.
        image_P2HWC: uint8 [P, 2, H, W, C].
        label_P2: integers.
        cosine_P: of each pair.
        class_names: of the classes.
        title: of the picture.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pair = np.zeros((1, 2, 8, 8, 1), np.uint8), np.array([[0, 1]]), np.array([0.9])
    ...     image_pairs(f"{folder}/pairs.png", *pair, ["cat", "dog"], "Alike").name
    'pairs.png'
    """
    columns = min(4, len(cosine_P))
    lines = -(-len(cosine_P) // columns)
    pitch_x, pitch_y = 2.5, 1.62
    span = columns * pitch_x - 0.45
    with mosaic(path, (0.78 * span + 0.2, 0.78 * lines * pitch_y + 0.5), title) as axes:
        for p, (images, labels, cosine) in enumerate(
            zip(image_P2HWC, label_P2, cosine_P, strict=True)
        ):
            x, y = p % columns * pitch_x, p // columns * pitch_y
            for side in (0, 1):
                tile(axes, images[side], x + 1.03 * side, y)
            names = list(dict.fromkeys(class_name(class_names, label) for label in labels))
            text = f"{' | '.join(names)}\n{cosine:.3f}"
            axes.text(x + 1.015, y + 1.06, text, ha="center", va="top", fontsize=7)
        axes.set(xlim=(-0.05, span), ylim=(lines * pitch_y - 0.05, -0.1))
    return Path(path)
