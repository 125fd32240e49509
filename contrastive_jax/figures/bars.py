"""Bars of scores, and the histogram of cosines."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contrastive_jax.figures.canvas import (
    BLUE,
    FAINT,
    GRAY,
    INK,
    ORANGE,
    RED,
    PathLike,
    legend,
    subplots,
    wrapped,
)

Row = Mapping[str, Any]
_COLORS = {  # of (representation, layer); others are light gray
    ("trained", "features"): BLUE,
    ("trained", "embedding"): "#8FC7E8",
    ("untrained", "features"): ORANGE,
    ("untrained", "embedding"): "#F5D48B",
    ("pixels", "pixels"): GRAY,
}


def score_bars(
    path: PathLike,
    evaluations: Sequence[Row],
    label: Callable[[Mapping[str, Any]], str] = lambda protocol: str(protocol["name"]),
    on: str = "test images",
) -> Path:
    """Draw the score of each representation under each protocol, with its 95 % interval.

    Args:
      path: of the PNG.
      evaluations: rows {"representation": "trained" | "untrained" | "pixels", "layer",
        "protocol": {"name", ...}, "value": 0 to 1}, with "ci95": [low, high] or without. Rows of
        older results have "accuracy" in place of "value"; rows without a number are left out.
      label: the name of a protocol, below its bars.
      on: what was scored, for the title.

    >>> import tempfile
    >>> row = {"representation": "pixels", "layer": "pixels", "value": 0.5}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     score_bars(f"{folder}/scores.png", [{**row, "protocol": {"name": "linear"}}]).name
    'scores.png'
    """
    rows = [row for row in evaluations if _value(row) is not None]
    score = {(label(row["protocol"]), row["representation"], row["layer"]): row for row in rows}
    protocols = list(dict.fromkeys(key[0] for key in score))
    kinds = list(dict.fromkeys(key[1:] for key in score))
    width = 0.85 / max(1, len(kinds))
    inches = max(5.0, 1.2 + len(protocols) * max(1.2, 0.36 * len(kinds)))
    with subplots(path, (inches, 3.8)) as (axes,):
        handles = []
        for i, kind in enumerate(kinds):
            x = {p: n + (i - (len(kinds) - 1) / 2) * width for n, p in enumerate(protocols)}
            present = [(x[p], score[p, *kind]) for p in protocols if (p, *kind) in score]
            handles.append(_bars(axes, present, width, _COLORS.get(kind, FAINT)))
        axes.set(title=_title(rows, on), ylabel="%", ylim=(_lowest(rows), 108))
        axes.set_xticks(range(len(protocols)), wrapped(protocols, 17), fontsize=8)
        axes.set_yticks(range(0, 101, 20))
        axes.tick_params(axis="x", length=0)
        axes.grid(True, axis="y")
        names = [" ".join(dict.fromkeys(kind)) for kind in kinds]
        legend(axes.figure, handles, names, columns=int(inches / 1.7))
    return Path(path)


def _value(row: Row) -> float | None:
    return row.get("value", row.get("accuracy"))


def _title(rows: Sequence[Row], on: str) -> str:
    measures = {row.get("measure", "accuracy") for row in rows}
    if not rows:
        return "No scores"
    return f"{'Accuracy' if measures == {'accuracy'} else 'Scores'} on {on}"


def _lowest(rows: Sequence[Row]) -> float:
    """0 %, or below the lowest of measures that can be negative."""
    low = min((100 * (_value(row) or 0.0) for row in rows), default=0.0)
    return 0.0 if low >= 0 else low - 8


def _bars(axes: Any, bars: list[tuple[float, Any]], width: float, color: str) -> Any:
    x, value = [place for place, _ in bars], [100 * (_value(row) or 0.0) for _, row in bars]
    drawn = axes.bar(x, value, 0.92 * width, color=color)
    for place, height, (_, row) in zip(x, value, bars, strict=True):
        low, high = (100 * end for end in row.get("ci95") or (height / 100, height / 100))
        axes.plot([place, place], [low, high], color=INK, linewidth=0.8)
        top = max(high, height, 0) + 1
        axes.text(place, top, f"{height:.1f}", ha="center", va="bottom", fontsize=7)
    return drawn


def cosine_histogram(path: PathLike, positive_N: np.ndarray, negative_M: np.ndarray) -> Path:
    """Draw the densities of the cosines of positive pairs and of negative pairs.

    Args:
      path: of the PNG.
      positive_N: cosines between two views of one image.
      negative_M: cosines between views of different images. Where there are none (a single image),
        the picture has the other density alone.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cosine_histogram(f"{folder}/cosines.png", np.array([0.9]), np.array([0.0, 0.1])).name
    'cosines.png'
    """
    pairs = {"two views of one image": positive_N, "different images": negative_M}
    return cosine_histograms(path, pairs)


def cosine_histograms(path: PathLike, cosines: Mapping[str, np.ndarray]) -> Path:
    """Draw the densities of the cosines of up to three kinds of pairs, the positive ones first.

    Args:
      path: of the PNG.
      cosines: by kind; one without pairs is left out.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cosine_histograms(f"{folder}/cosines.png", {"pairs": np.array([0.9, 0.8])}).name
    'cosines.png'
    """
    styles = ((BLUE, "-"), (RED, "--"), (GRAY, ":"))
    pairs = [(name, x, *style) for (name, x), style in zip(cosines.items(), styles, strict=False)]
    with subplots(path, (6.4, 3.6)) as (axes,):
        handles, names = [], []
        for name, cosine, color, dashes in reversed(pairs):
            cosine = np.clip(cosine[np.isfinite(cosine)], -1, 1)  # rounding may leave [-1, 1]
            if len(cosine):
                handles.append(_density(axes, cosine, color, dashes))
                mean = f"mean {np.round(cosine.mean(), 2) + 0.0:.2f}"  # no -0.00
                names.append(f"{name} ({mean}, {len(cosine):,} pairs)")
        axes.set(title="Cosine similarity of embeddings", xlabel="cosine", ylabel="density")
        axes.set(xlim=(-1, 1))
        axes.grid(True)
        legend(axes.figure, handles, names, columns=2 if len(names) < 3 else 1)
    return Path(path)


def _density(axes: Any, cosine: np.ndarray, color: str, dashes: str) -> Any:
    bins = np.linspace(-1, 1, 81)
    style = {"density": True, "histtype": "stepfilled", "alpha": 0.35, "color": color}
    *_, (filled,) = axes.hist(cosine, bins, **style)
    axes.hist(cosine, bins, density=True, histtype="step", color=color, linewidth=1)
    axes.axvline(float(cosine.mean()), color=color, linestyle=dashes, linewidth=1.2)
    return filled
