"""Training curves of one or several runs."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from contrastive_jax.figures.canvas import BLUE, PathLike, legend, palette, shortened, subplots

History = Sequence[Mapping[str, Any]]  # rows of metrics.jsonl


class _Panel(NamedTuple):
    metric: str
    title: str
    unit: str
    factor: float = 1.0


_PANELS = (
    _Panel("loss", "Loss", "nats"),
    _Panel("contrastive_accuracy", "Contrastive accuracy", "%", 100.0),
    _Panel("contrastive_entropy", "Contrastive entropy", "nats"),
    _Panel("online_accuracy", "Online probe, training views", "%", 100.0),
    _Panel("knn_validation", "kNN, held-out training images", "%", 100.0),
    _Panel("nDCG_validation", "nDCG, validation queries", "%", 100.0),
    _Panel("temperature", "Temperature", ""),
    _Panel("bias", "Bias", "logit"),
    _Panel("effective_rank", "Effective rank of z", "dimensions"),
    _Panel("alignment", "Alignment of two views", "squared distance"),
    _Panel("uniformity", "Uniformity of z", "log mean potential"),
    _Panel("grad_norm", "Gradient norm", ""),
)
_DASHES = ("-", "--", "-.", ":")  # not everyone can distinguish runs by color
_SMOOTHED = 60  # a longer curve is drawn faint under its moving average


def curves(path: PathLike, histories: Mapping[str, History]) -> Path:
    """Draw training curves against the step, a panel for each metric and a line for each run.

    Args:
      path: of the PNG.
      histories: rows of metrics.jsonl, {"step", metric: value}, by the name of the run. What no
        row has gets no panel; None or NaN is a gap.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     rows = {"a": [{"step": 1, "loss": 2.0}], "b": [{"step": 1, "loss": 3.0}]}
    ...     curves(f"{folder}/curves.png", rows).name
    'curves.png'
    """
    panels = [p for p in _PANELS if any(_points(rows, p).size for rows in histories.values())]
    n_columns = 2 if len(panels) in (2, 4) else min(3, max(1, len(panels)))
    n_rows = max(1, -(-len(panels) // n_columns))
    last = max((row["step"] for rows in histories.values() for row in rows), default=1)
    with subplots(path, (3.9 * n_columns, 2.6 * n_rows + 0.3), n_rows, n_columns) as all_axes:
        lines: dict[str, Any] = {}
        for axes, panel in zip(all_axes, panels, strict=False):
            lines |= _draw_panel(axes, panel, histories)
            axes.set_xlim(0, 1.03 * max(1, last))
        for axes in all_axes[len(panels) :]:
            axes.set_axis_off()
        if not panels:
            all_axes[0].set_title("No training metrics were logged")
        elif len(histories) > 1:
            _legend(all_axes[0].figure, lines, letters=n_columns * 50)
    return Path(path)


def _points(rows: History, panel: _Panel) -> np.ndarray:
    """Steps and finite values [2, N]."""
    found = [(row["step"], row.get(panel.metric)) for row in rows]
    kept = [(step, v * panel.factor) for step, v in found if v is not None and math.isfinite(v)]
    return np.array(kept, float).reshape(-1, 2).T


def _draw_panel(axes: Any, panel: _Panel, histories: Mapping[str, History]) -> dict[str, Any]:
    """Draw a metric of every run that has it; return the lines by the name of the run."""
    colors = palette(len(histories)) if len(histories) > 1 else [BLUE]
    lines = {}
    for i, (name, rows) in enumerate(histories.items()):
        step, value = _points(rows, panel)
        style = {"color": colors[i], "linestyle": _DASHES[i % len(_DASHES)]}
        if len(step):
            lines[name] = _draw_line(axes, step, value, **style)
    axes.set(title=panel.title, xlabel="step", ylabel=panel.unit)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.locator_params(axis="x", nbins=5, integer=True)
    axes.grid(True)
    return lines


def _draw_line(axes: Any, step: np.ndarray, value: np.ndarray, **style: Any) -> Any:
    """Draw a metric against the step; where it is long, faint under its moving average."""
    if len(value) < _SMOOTHED:
        marker = "o" if len(value) < 30 else None
        return axes.plot(step, value, marker=marker, markersize=3, **style)[0]
    half = max(1, len(value) // 100)
    smooth = [value[max(0, i - half) : i + half + 1].mean() for i in range(len(value))]
    axes.plot(step, value, color=style["color"], alpha=0.3, linewidth=0.7)
    return axes.plot(step, smooth, linewidth=1.6, **style)[0]


def _legend(figure: Any, lines: Mapping[str, Any], letters: int) -> None:
    """Write one legend for all panels, in rows of about so many letters."""
    names = [shortened(name, 40) for name in lines]
    columns = min(len(names), letters // (max(map(len, names)) + 8))
    legend(figure, list(lines.values()), names, columns)
