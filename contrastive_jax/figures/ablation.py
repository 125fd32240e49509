"""Pictures of ablations: points and lines with error bars over seeds, and a matrix of pairs."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contrastive_jax.figures.canvas import INK, PathLike, legend, palette, subplots, wrapped

Points = Mapping[tuple[str, ...], tuple[float, float]]  # (x[, series]) -> mean, half of its bar
_MARKERS = "osD^vPX"
_LEAST_SPAN = 4.0  # of the axis, so that differences of tenths do not look large
FORMS = ("points", "lines", "matrix")


def ablation(
    path: PathLike,
    points: Points,
    *,
    form: str = "points",
    title: str,
    unit: str,
    spread: str = "",
    axis: str = "",
) -> Path:
    """Draw the score of each setting of an ablation, as the papers do.

    Args:
      path: of the PNG.
      points: (x,) or (x, series) -> (mean, half the length of its error bar), in `unit` and in the
        order given; "matrix" takes (row, column).
      form: "points", "lines" (x evenly spaced, joined within a series) or "matrix".
      title: of the picture.
      unit: of the means.
      spread: what an error bar is: "mean ± 2 standard errors, 3 seeds".
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
    ticks = wrapped(xs, 12)
    size = _size(ticks, series, form)
    with subplots(path, size) as (axes,):
        if form == "matrix":
            _matrix(axes, points, xs, series, unit)
        else:
            handles = [_series(axes, points, xs, series, name, form) for name in series]
            axes.set_xticks(range(len(xs)), ticks)
            axes.set(xlabel=axis, ylabel=f"{unit}\n{spread}" if spread else unit)
            axes.set(xlim=(-0.6, len(xs) - 0.4), ylim=_range(points))
            axes.grid(True, axis="y")
            if len(series) > 1:
                legend(axes.figure, handles, series, columns=min(4, len(series)))
        axes.set_title(textwrap.fill(title, int(8 * size[0] - 12)))
    return Path(path)


def _size(ticks: Sequence[str], series: Sequence[str], form: str) -> tuple[float, float]:
    """Return the inches that hold the points and the labels of the ticks."""
    if form == "matrix":
        return max(4.8, 2.4 + 0.75 * len(series)), max(3.4, 1.6 + 0.62 * len(ticks))
    longest = max(len(line) for tick in ticks for line in tick.splitlines() or [""])
    of_a_tick = max(0.2 * max(3, len(series)), 0.09 * longest + 0.1)
    return min(max(4.8, 1.4 + of_a_tick * len(ticks)), 16.0), 3.4


def _range(points: Points) -> tuple[float, float]:
    """Return limits that hold all error bars; points, unlike bars, need no zero."""
    ends = [end for mean, half in points.values() for end in (mean - half, mean + half)]
    room = max(0.15 * (max(ends) - min(ends)), (_LEAST_SPAN - max(ends) + min(ends)) / 2)
    return min(ends) - room, max(ends) + room


def _series(
    axes: Any, points: Points, xs: Sequence[str], series: Sequence[str], name: str, form: str
) -> Any:
    """Draw the points of one series; one of (x,) belongs to every series."""
    found = [(i, points.get((x, name), points.get((x,)))) for i, x in enumerate(xs)]
    x, mean, half = np.array([(i, *point) for i, point in found if point is not None]).T
    number, count = series.index(name), len(series)
    color, marker = palette(count)[number], _MARKERS[number % len(_MARKERS)]
    beside = 0 if form == "lines" else 0.6 * (number - (count - 1) / 2) / count
    style = {"markersize": 5, "elinewidth": 1.1, "capsize": 3}
    line = "-" if form == "lines" else ""
    return axes.errorbar(
        x + beside, mean, half, color=color, marker=marker, linestyle=line, **style
    )


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
