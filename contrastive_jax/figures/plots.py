"""Pictures of numbers: curves, scores, cosines."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from contrastive_jax.figures.canvas import (
    BLUE,
    FAINT,
    GRAY,
    GREEN,
    INK,
    ORANGE,
    RED,
    PathLike,
    sheet,
)


class _Panel(NamedTuple):
    title: str
    unit: str
    factor: float
    lines: tuple[tuple[str, str, str], ...]  # metric, label, colour


_PANELS = (
    _Panel("Contrastive loss", "nats", 1.0, (("loss", "training batch", BLUE),)),
    _Panel(
        "Contrastive accuracy: is the other view the nearest?",
        "%",
        100.0,
        (("contrastive_accuracy", "training batch", BLUE),),
    ),
    _Panel(
        "Contrastive entropy: how undecided is the choice?",
        "nats",
        1.0,
        (("contrastive_entropy", "training batch", BLUE),),
    ),
    _Panel(
        "Accuracy of the classes",
        "%",
        100.0,
        (
            ("online_accuracy", "online linear probe, training views", ORANGE),
            ("knn_validation", "kNN, held-out images", GREEN),
        ),
    ),
)
_BARS = {  # (representation, layer) -> colour; others take the grays
    ("trained", "features"): BLUE,
    ("trained", "embedding"): "#8FC7E8",
    ("untrained", "features"): ORANGE,
    ("untrained", "embedding"): "#F5D48B",
    ("pixels", "pixels"): GRAY,
}


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
    panels = [p for p in _PANELS if any(name in logged for name, *_ in p.lines)]
    n_columns = 1 if len(panels) < 2 else 2
    n_rows = max(1, -(-len(panels) // n_columns))
    with sheet(path, (4.8 * n_columns, 2.9 * n_rows), n_rows, n_columns) as all_axes:
        for axes, panel in zip(all_axes, panels, strict=False):
            for name, label, colour in panel.lines:
                if name in logged:
                    draw_line(axes, rows, name, panel.factor, label, colour)
            axes.set(title=panel.title, xlabel="step", ylabel=panel.unit)
            axes.xaxis.set_major_formatter("{x:,.0f}")
            axes.locator_params(axis="x", nbins=6, integer=True)
            axes.set_xlim(0, 1.03 * max(1, rows[-1]["step"]))
            axes.grid(True)
            if len(panel.lines) > 1:
                axes.legend(loc="best")
        for axes in all_axes[len(panels) :]:
            axes.set_axis_off()
        if not panels:
            all_axes[0].set_title("No training metrics were logged")
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
    with sheet(path, (inches, 3.8)) as (axes,):
        for i, kind in enumerate(kinds):
            colour = _BARS.get(kind, FAINT)
            x = {p: n + (i - (len(kinds) - 1) / 2) * width for n, p in enumerate(protocols)}
            present = [(x[p], score[p, *kind]) for p in protocols if (p, *kind) in score]
            _bars(axes, present, width, colour, " ".join(dict.fromkeys(kind)))
        axes.set(title="Accuracy on test images", ylabel="%", ylim=(0, 108))
        axes.set_xticks(range(len(protocols)), protocols, fontsize=8)
        axes.set_yticks(range(0, 101, 20))
        axes.tick_params(axis="x", length=0)
        axes.grid(True, axis="y")
        axes.figure.legend(loc="outside lower center", ncols=max(1, int(inches / 1.7)))
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
        ("different images", negative_M, RED, "--"),
        ("two views of one image", positive_N, BLUE, "-"),
    )
    with sheet(path, (6.4, 3.6)) as (axes,):
        for name, cosine, colour, dashes in pairs:
            label = f"{name} (mean {np.round(np.mean(cosine), 2) + 0.0:.2f}, {len(cosine):,} pairs)"
            bins = np.linspace(-1, 1, 81)
            style = {"density": True, "histtype": "stepfilled", "alpha": 0.35, "color": colour}
            cosine = np.clip(cosine, -1, 1)  # rounding may put a cosine a hair outside
            axes.hist(cosine, bins, label=label, **style)
            axes.hist(cosine, bins, density=True, histtype="step", color=colour, linewidth=1)
            axes.axvline(float(np.mean(cosine)), color=colour, linestyle=dashes, linewidth=1.2)
        axes.set(title="Cosine similarity of embeddings", xlabel="cosine", ylabel="density")
        axes.set(xlim=(-1, 1))
        axes.grid(True)
        axes.figure.legend(loc="outside lower center", ncols=2)
    return Path(path)


def draw_line(
    axes: Any,
    rows: Sequence[Mapping[str, Any]],
    name: str,
    factor: float,
    label: str,
    colour: Any,
    linestyle: str = "-",
) -> None:
    """A metric against the step; where it is long, faint under its moving average."""
    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    step, value = np.array(points, float).T
    value = value * factor
    style = {"color": colour, "linestyle": linestyle, "label": label}
    if len(value) < 60:
        marker = "o" if len(value) < 30 else None
        axes.plot(step, value, marker=marker, markersize=3, **style)
        return
    half = max(1, len(value) // 100)
    window = [value[max(0, i - half) : i + half + 1].mean() for i in range(len(value))]
    axes.plot(step, value, color=colour, alpha=0.3, linewidth=0.7)
    axes.plot(step, window, linewidth=1.6, **style)


def _bars(axes: Any, bars: list[tuple[float, Any]], width: float, colour: str, label: str) -> None:
    x, height = [place for place, _ in bars], [100 * row["accuracy"] for _, row in bars]
    axes.bar(x, height, 0.92 * width, color=colour, label=label)
    for place, row in bars:
        low, high = (100 * v for v in row.get("ci95", (row["accuracy"], row["accuracy"])))
        axes.plot([place, place], [low, high], color=INK, linewidth=0.8)
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
