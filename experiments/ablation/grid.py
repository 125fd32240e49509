"""From a config of configs/ablations to a checked grid: its cells, seeds, columns and claim."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from contrastive_jax.errors import ConfigError
from contrastive_jax.evaluation import claims
from contrastive_jax.figures.ablation import FORMS
from experiments.run.command_line import call, run_file
from experiments.run.sections import Sections, check_names, nearest, set_values

Results = Mapping[str, Mapping[str, tuple[float, ...]]]  # cell -> column -> one number a seed
Overrides = Mapping[str, Any]
SCORE_KEYS = {"layer", "name", "k", "temperature", "measure", "task"}
COSTS = ("milliseconds", "megabytes")  # of a step, in the summary of a run
KEYS = ("experiment", "axes", "cells", "seeds", "columns", "tuned", "figure", "seconds")
FIGURE_KEYS = ("form", "axis", "columns", "tuned")


class Cell(NamedTuple):
    """One setting of the ablation."""

    name: str
    at: tuple[str, ...]  # its place in the figure: x, or x and series, or row and column
    overrides: Overrides


class Grid(NamedTuple):
    """The grid of a config of configs/ablations, read and checked."""

    experiment: str
    cells: tuple[Cell, ...]
    seeds: tuple[int, ...]
    columns: Mapping[str, Mapping[str, Any]]  # name -> which score; the first is the headline
    tuned: Mapping[str, tuple[str, ...]]  # name -> the cells of which the best stands for it
    form: str
    axis: str
    plotted: tuple[str, ...]  # columns, a series each
    plots_tuned: bool  # the tuned names instead of the cells
    seconds: float  # of one run, on the hardware that the config names
    claim: Callable[[Results], claims.Verdict]
    claim_text: str
    source: str  # the first line of the file: what it is about, and whose claim


def read(path: str, preset: str) -> Grid:
    """Read the grid of an ablation config, for a preset.

    The file is a config like any other, whose `get_config(preset)` is the base, and beside it
    `grid(preset)` -> dict and `claim(results)` -> Verdict. The keys of a grid:

      axes        axis -> values; an axis is a key such as "loss.temperature", or a name, whose
                  values are then {label: overrides}
      cells       instead of axes: name, or (row, column), -> overrides; "experiment" among them
                  is the method of that cell
      seeds       how many, from the base's train.seed on
      columns     name -> {"layer", "name", "k", "temperature"} of a row of the summary (of
                  rankings "measure", of captions "task" as well), or
                  {"logged": a metric of the last logged step}, or {"cost": "milliseconds" or
                  "megabytes" of a step}
      tuned       name -> cells, the best of which, by the mean of the column "validation", stands
                  for all; it may be left out
      figure      {"form", "axis", "columns": a series each (default: the headline), "tuned": True
                  to draw the tuned names instead of the cells}
      experiment  a method: "simclr" (the default), "moco", ...
      seconds     expected of one run

    Raises:
      ConfigError: names what is missing, empty, unknown or given twice.
    """
    module = run_file(path)
    if not callable(module.get("claim")):
        raise ConfigError(f"{path} has no function claim().")
    raw = call(module, "grid", path, preset or "full")
    with errors_of(path):
        check_names("key of a grid", raw, KEYS)
        columns, figure = raw.get("columns"), raw.get("figure", {})
        if not columns:
            raise ConfigError("the grid names no columns, so there is nothing to report.")
        if raw.get("seeds", 1) < 1:
            raise ConfigError(f"seeds is {raw['seeds']}; give at least 1.")
        cells = _cells(raw)
        _check_columns(columns)
        plotted = tuple(figure.get("columns", list(columns)[:1]))
        _check_figure(figure, plotted, columns)
        return Grid(
            experiment=raw.get("experiment", "simclr"),
            cells=cells,
            seeds=tuple(range(raw.get("seeds", 1))),
            columns=columns,
            tuned=_tuned(raw, cells),
            form=figure.get("form", "points"),
            axis=figure.get("axis", ""),
            plotted=plotted,
            plots_tuned=bool(figure.get("tuned", False)),
            seconds=float(raw.get("seconds", 0.0)),
            claim=module["claim"],
            claim_text=" ".join((module["claim"].__doc__ or "").split()),
            source=(module.get("__doc__") or "").strip().partition("\n")[0],
        )


@contextmanager
def errors_of(what: str) -> Iterator[None]:
    """Name the file or the cell that the ConfigErrors of a block belong to."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{what}: {error}") from error


def method_of(grid: Grid, cell: Cell) -> str:
    """The method that trains a cell: its own `experiment`, or that of the grid."""
    return cell.overrides.get("experiment", grid.experiment)


def configs(
    grid: Grid, base: ConfigDict, sections: Mapping[str, Sections]
) -> dict[str, ConfigDict]:
    """Make the config of each cell: the base with its overrides.

    A cell of another method keeps the sections of the base that this method has as well, and gets
    the defaults of its other sections.

    Args:
      sections: those of each method.

    Raises:
      ConfigError: an override that fits no section or type, or two cells that come to the same.
    """
    made: dict[str, ConfigDict] = {}
    seen: dict[str, str] = {}
    for cell in grid.cells:
        method = method_of(grid, cell)
        own = sections[method]
        kept = base.copy_and_resolve_references()
        with kept.unlocked():
            for name in set(base) - set(own):
                del kept[name]
        values = {key: value for key, value in cell.overrides.items() if key != "experiment"}
        with errors_of(f"cell {cell.name!r}"):
            made[cell.name] = set_values(kept, own, values)
        text = method + made[cell.name].to_json(sort_keys=True)
        other = seen.setdefault(text, cell.name)
        if other != cell.name:
            raise ConfigError(
                f"The cells {other!r} and {cell.name!r} are the same config; drop one."
            )
    return made


def selected(cells: Sequence[Cell], only: str | None) -> tuple[Cell, ...]:
    """The cells that --only names: by name, or by KEY=VALUE of their overrides.

    Raises:
      ConfigError: none is meant.
    """
    if only is None:
        return tuple(cells)
    key, _, value = only.partition("=")
    chosen = tuple(
        cell
        for cell in cells
        if cell.name == only or (key in cell.overrides and _label(cell.overrides[key]) == value)
    )
    if not chosen:
        known = nearest(only, [cell.name for cell in cells])
        raise ConfigError(f"--only {only}: no cell is meant; {known}")
    return chosen


def _check_columns(columns: Mapping[str, Mapping[str, Any]]) -> None:
    for name, column in columns.items():
        keys = set(column)
        if not ({"layer", "name"} <= keys <= SCORE_KEYS or keys in ({"logged"}, {"cost"})):
            raise ConfigError(
                f"the column {name!r} is {dict(column)}; give layer and name "
                "(and k, temperature, measure, task), logged, or cost."
            )


def _check_figure(
    figure: Mapping[str, Any], plotted: Sequence[str], columns: Mapping[str, Any]
) -> None:
    check_names("key of a figure", figure, FIGURE_KEYS)
    if figure.get("form", "points") not in FORMS:
        raise ConfigError(f"the figure's form is {figure['form']!r}; give one of {FORMS}.")
    for name in plotted:
        if name not in columns:
            raise ConfigError(f"the figure draws {name!r}, which is no column of the grid.")


def _cells(raw: Mapping[str, Any]) -> tuple[Cell, ...]:
    if bool(raw.get("axes")) == bool(raw.get("cells")):
        raise ConfigError("give a grid either axes or cells.")
    cells = _given(raw["cells"]) if raw.get("cells") else _product(raw["axes"])
    names = [cell.name for cell in cells]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"the cell {name!r} is there twice.")
    return cells


def _given(cells: Mapping[Any, Overrides]) -> tuple[Cell, ...]:
    places = [(name if isinstance(name, tuple) else (name,)) for name in cells]
    named = zip(places, cells.values(), strict=True)
    return tuple(Cell(" + ".join(at), at, dict(overrides)) for at, overrides in named)


def _product(axes: Mapping[str, Any]) -> tuple[Cell, ...]:
    for axis, values in axes.items():
        if not values:
            raise ConfigError(f"the axis {axis!r} is empty.")
    cells = []
    for combination in itertools.product(*itertools.starmap(_points, axes.items())):
        overrides = {key: value for _, _, own in combination for key, value in own.items()}
        name = ", ".join(f"{axis}={label}" for axis, label, _ in combination)
        cells.append(Cell(name, tuple(label for _, label, _ in combination), overrides))
    return tuple(cells)


def _points(axis: str, values: Any) -> list[tuple[str, str, Overrides]]:
    """(name of the axis, label, overrides) of each of its values."""
    if isinstance(values, Mapping):
        return [(axis, label, overrides) for label, overrides in values.items()]
    return [(axis.rpartition(".")[2], _label(value), {axis: value}) for value in values]


def _label(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _tuned(raw: Mapping[str, Any], cells: Sequence[Cell]) -> Mapping[str, tuple[str, ...]]:
    tuned = {name: tuple(members) for name, members in raw.get("tuned", {}).items()}
    known = {cell.name for cell in cells}
    for name, members in tuned.items():
        missing = [member for member in members or ("at all",) if member not in known]
        if missing:
            raise ConfigError(f"tuned {name!r} names no cell {missing[0]!r}.")
    if tuned and "validation" not in raw["columns"]:
        raise ConfigError("tuned cells are chosen by the column 'validation'; add it.")
    return tuned
