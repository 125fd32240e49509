"""Pictures of ablations: bars and lines with error bars over seeds, and a matrix of pairs."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contrastive_jax.figures.canvas import (
    BLUE,
    GRAY,
    GREEN,
    INK,
    ORANGE,
    RED,
    PathLike,
    legend,
    subplots,
)

Points = Mapping[tuple[str, ...], tuple[float, float]]  # (x[, series]) -> mean, half of its bar
_COLORS = (BLUE, ORANGE, GREEN, RED, GRAY, "#CC79A7", "#56B4E9")
_MARKERS = "osD^vPX"
FORMS = ("bars", "lines", "matrix")


def ablation(
    path: PathLike, points: Points, *, form: str = "bars", title: str, unit: str, axis: str = ""
) -> Path:
    """Draw the score of each setting of an ablation, as the papers do.

    Args:
      path: of the PNG.
      points: (x,) or (x, series) -> (mean, half the length of its error bar), in `unit` and in the
        order given; "matrix" takes (row, column).
      form: "bars", "lines" (x evenly spaced, joined within a series) or "matrix".
      title: of the picture.
      unit: of the means.
      axis: what x is.

    Raises:
      ValueError: an unknown form, or no points.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     ablation(f"{folder}/figure.png", {("0.1",): (64.4, 0.2)}, title="t", unit="%").name
    'figure.png'
    """
    if form not in FORMS or not points:
        raise ValueError(f"form is {form!r} of {len(points)} points; give one of {FORMS}, and some")
    xs = list(dict.fromkeys(at[0] for at in points))
    series = list(dict.fromkeys(at[1] if len(at) > 1 else "" for at in points))
    if form == "matrix":
        series = xs if set(xs) == set(series) else series  # pairs: one order for both sides
        width = max(4.8, 2.4 + 0.75 * len(series))
        with subplots(path, (width, max(3.4, 1.6 + 0.62 * len(xs)))) as (axes,):
            _matrix(axes, points, xs, series, unit)
            axes.set_title(_folded(title, width))
        return Path(path)
    ticks = [textwrap.fill(x, 12, break_long_words=False) for x in xs]
    width = _width(ticks, len(series))
    with subplots(path, (width, 3.4)) as (axes,):
        handles = [_series(axes, points, xs, series, name, form) for name in series]
        axes.set_xticks(range(len(xs)), ticks)
        axes.set(title=_folded(title, width), ylabel=unit, xlabel=axis, xlim=(-0.6, len(xs) - 0.4))
        axes.set_ylim(*_range(points))
        axes.grid(True, axis="y")
        if len(series) > 1:
            legend(axes.figure, handles, series, columns=min(4, len(series)))
    return Path(path)


def _width(ticks: Sequence[str], n_series: int) -> float:
    """Return the inches that hold the bars and the labels of the ticks."""
    longest = max(len(line) for tick in ticks for line in tick.splitlines() or [""])
    of_a_tick = max(0.42 * max(1.6, n_series), 0.09 * longest + 0.1)
    return min(max(4.8, 1.4 + of_a_tick * len(ticks)), 16.0)


def _folded(title: str, width: float) -> str:
    """Fold a title into lines for a figure of so many inches, its left margin aside."""
    return textwrap.fill(title, int(8 * width - 12))


def _range(points: Points) -> tuple[float, float]:
    """Return limits that hold all bars, not from zero: the differences are the point."""
    ends = [end for mean, half in points.values() for end in (mean - half, mean + half)]
    room = max(0.15 * (max(ends) - min(ends)), 0.5)
    return min(ends) - room, max(ends) + room


def _series(
    axes: Any, points: Points, xs: Sequence[str], series: Sequence[str], name: str, form: str
) -> Any:
    """Draw the points of one series; one of (x,) belongs to every series."""
    found = [(i, points.get((x, name), points.get((x,)))) for i, x in enumerate(xs)]
    x, mean, half = np.array([(i, *point) for i, point in found if point is not None]).T
    number, count = series.index(name), len(series)
    color = _COLORS[number % len(_COLORS)]
    error = {"ecolor": INK, "elinewidth": 0.9, "capsize": 2.5}
    if form == "lines":
        marker = _MARKERS[number % len(_MARKERS)]
        return axes.errorbar(x, mean, half, color=color, marker=marker, markersize=4, **error)
    width = 0.8 / count
    place = x + (number - (count - 1) / 2) * width
    return axes.bar(place, mean, 0.92 * width, color=color, yerr=half, error_kw=error)


def _matrix(axes: Any, points: Points, xs: Sequence[str], series: Sequence[str], unit: str) -> None:
    grid = np.full((len(xs), len(series)), np.nan)
    for (row, column), (mean, _) in points.items():
        grid[xs.index(row), series.index(column)] = mean
    image = axes.imshow(grid, cmap="cividis")
    middle = (np.nanmin(grid) + np.nanmax(grid)) / 2
    for (row, column), value in np.ndenumerate(grid):
        if np.isfinite(value):
            color = "white" if value <= middle else INK
            text = f"{value:.1f}"
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    axes.set_xticks(range(len(series)), series)
    axes.set_yticks(range(len(xs)), xs)
    axes.figure.colorbar(image, ax=axes, label=unit)
