"""What an ablation leaves: results.jsonl, table.md, figure.png, verdict.json, of finished runs."""

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from contrastive_jax import figures
from contrastive_jax.evaluation import claims
from contrastive_jax.evaluation.results import value_of
from contrastive_jax.storage import workdir
from experiments.ablation.grid import Cell, Grid, Results

Row = dict[str, Any]  # a line of results.jsonl


def row(
    grid: Grid, cell: Cell, seed: int, summary: Mapping[str, Any], log: Sequence[Mapping[str, Any]]
) -> Row:
    """One finished run as a line of results.jsonl, which is enough to go on from elsewhere.

    Raises:
      ValueError: a column that this run has no score for.
    """
    measured = {name: _measure(name, spec, summary, log) for name, spec in grid.columns.items()}
    headline = next(iter(grid.columns))
    origin = ("step", "seconds", "config_sha256", "device", "cpus", "versions", "code")
    trained_as = ("method", "config", "data")
    return {
        "cell": cell.name,
        "seed": seed,
        "overrides": dict(cell.overrides),
        "metric": headline,
        "value": measured[headline]["value"],
        "protocol": measured[headline].get("protocol"),
        "measured": measured,
        **{name: summary.get(name) for name in (*origin, *trained_as)},
    }


def measures_all(grid: Grid, line: Row) -> bool:
    """Say whether a line of results.jsonl has the score of every column of the grid."""
    measured = line["measured"]
    return all(
        name in measured and _is_of(spec, measured[name]) for name, spec in grid.columns.items()
    )


def _is_of(spec: Mapping[str, Any], measured: Mapping[str, Any]) -> bool:
    for source in ("logged", "cost"):
        if source in spec:
            return measured.get(source) == spec[source]
    return "protocol" in measured and fits(spec, measured)


def _measure(
    name: str,
    spec: Mapping[str, Any],
    summary: Mapping[str, Any],
    log: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    if "logged" in spec:
        values = [line[spec["logged"]] for line in log if line.get(spec["logged"]) is not None]
        if not values:
            raise ValueError(f"column {name!r}: no row of metrics.jsonl has {spec['logged']!r}")
        return {"value": values[-1], "logged": spec["logged"]}
    if "cost" in spec:
        costs = summary.get("step_cost") or {}
        if spec["cost"] not in costs:
            raise ValueError(f"column {name!r}: the summary has no {spec['cost']} of a step")
        return {"value": costs[spec["cost"]], "cost": spec["cost"]}
    for evaluation in summary["evaluations"]:
        kept = {key: evaluation[key] for key in ("layer", "split", "n", "protocol")}
        if evaluation["representation"] == "trained" and fits(spec, evaluation):
            return {"value": value_of(evaluation), **kept}
    raise ValueError(f"column {name!r}: the summary has no row with {dict(spec)}")


def fits(spec: Mapping[str, Any], evaluation: Mapping[str, Any]) -> bool:
    """Say whether a row of a summary is the one that a column names."""
    protocol = evaluation["protocol"]
    asked = {"k": protocol.get("k_requested", protocol.get("k")), "layer": evaluation["layer"]}
    return all({**protocol, **asked}.get(key) == value for key, value in spec.items())


def results(grid: Grid, rows: Sequence[Row]) -> dict[str, dict[str, tuple[float, ...]]]:
    """cell -> column -> one number a seed, for the cells whose seeds are all finished.

    A tuned name comes with the numbers of its best cell, once all its cells are finished.
    """
    found = {(line["cell"], line["seed"]): line["measured"] for line in rows}
    complete: dict[str, dict[str, tuple[float, ...]]] = {}
    for cell in grid.cells:
        own = [found[cell.name, seed] for seed in grid.seeds if (cell.name, seed) in found]
        if len(own) == len(grid.seeds):
            complete[cell.name] = {
                name: tuple(measured[name]["value"] for measured in own) for name in grid.columns
            }
    for name, members in grid.tuned.items():
        if all(member in complete for member in members):
            complete[name] = complete[best(complete, members)]
    return complete


def best(complete: Results, members: Sequence[str]) -> str:
    """The member whose mean on the held-out training images is highest; the first of equals."""
    return max(members, key=lambda name: claims.sample(complete[name]["validation"]).mean)


def judge(grid: Grid, complete: Results) -> claims.Verdict:
    """Judge the claim of an ablation on its results; undecided while runs are missing."""
    missing = [cell.name for cell in grid.cells if cell.name not in complete]
    if missing:
        text = f"{len(missing)} of {len(grid.cells)} cells are missing, {missing[0]!r} first"
        return claims.Verdict(claims.UNDECIDED, (text,))
    return grid.claim(complete)


def write(folder: Path, title: str, grid: Grid, rows: Sequence[Row], crashes: Sequence[Row]) -> str:
    """Write results.jsonl, table.md, figure.png and verdict.json; returns the table."""
    lines = (json.dumps(line, allow_nan=False, sort_keys=True) + "\n" for line in rows)
    workdir.write_text(folder / "results.jsonl", "".join(lines))
    complete = results(grid, rows)
    verdict = judge(grid, complete)
    text = table(title, grid, complete, verdict, _crashed(rows, crashes))
    workdir.write_text(folder / "table.md", text)
    draw(folder / "figure.png", title, grid, complete)
    described = {
        "title": title,
        "source": grid.source,
        "claim": grid.claim_text,
        "outcome": verdict.outcome,
        "reasons": list(verdict.reasons),
        "seeds": list(grid.seeds),
        "metric": next(iter(grid.columns)),
        "finished": len(rows),
        "runs": len(grid.cells) * len(grid.seeds),
    }
    workdir.write_json(folder / "verdict.json", described)
    return text


def _crashed(rows: Sequence[Row], crashes: Sequence[Row]) -> list[str]:
    finished = {(line["cell"], line["seed"]) for line in rows}
    ends = {True: "finished when tried again", False: "not finished"}
    return [
        f"- `{crash['cell']}`, seed {crash['seed']}: {crash['error']} "
        f"({ends[(crash['cell'], crash['seed']) in finished]})"
        for crash in crashes
    ]


def table(
    title: str,
    grid: Grid,
    complete: Results,
    verdict: claims.Verdict,
    crashes: Sequence[str] = (),
) -> str:
    """The results as Markdown: claim, verdict, mean and standard error over seeds, crashes."""
    names = list(grid.columns)
    lines = [f"# {title}", "", grid.claim_text, "", f"**{verdict.outcome}**", ""]
    lines += [*(f"- {reason}" for reason in verdict.reasons), ""]
    lines += [f"| cell | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    labels = {
        name: f"**{name}**: {best(complete, grid.tuned[name])}"
        for name in grid.tuned
        if name in complete
    }
    labels |= {cell.name: cell.name for cell in grid.cells}
    for name, label in labels.items():
        entries = _entries(grid, complete[name]) if name in complete else ["-"] * len(names)
        lines.append(f"| {label} | {' | '.join(entries)} |")
    count = len(grid.seeds)
    seeds = f"{count} seed{'s' * (count > 1)}"
    lines += ["", f"Mean ± standard error of the mean over {seeds}; above, ± two of them."]
    if grid.tuned:
        lines += ["Bold: the best of its cells by `validation`, on held-out training images."]
    if crashes:
        lines += ["", "Crashes:", "", *crashes]
    return "\n".join(lines) + "\n"


def _entries(grid: Grid, own: Mapping[str, Sequence[float]]) -> list[str]:
    entries = []
    for name in grid.columns:
        measured = claims.sample(own[name])
        scale, digits = (1, 2 if abs(measured.mean) >= 1 else 3)  # a temperature of 0.034
        if _is_fraction(grid, name):
            scale, digits = 100, 1
        entry = f"{scale * measured.mean:.{digits}f}"
        if measured.error is not None:
            entry += f" ± {scale * measured.error:.{digits}f}"
        entries.append(entry)
    return entries


def _is_fraction(grid: Grid, column: str) -> bool:
    spec = grid.columns[column]
    return "cost" not in spec and spec.get("logged", "accuracy").endswith(
        ("accuracy", "validation")
    )


def draw(path: Path, title: str, grid: Grid, complete: Results) -> None:
    """Draw the finished cells in the paper's form."""
    places = {cell.name: cell.at for cell in grid.cells}
    if grid.plots_tuned:
        places = {name: (name,) for name in grid.tuned}
    points = {}
    for name, column in itertools.product(places, grid.plotted):
        if name in complete:
            measured = claims.sample(complete[name][column])
            place = (*places[name], column) if len(grid.plotted) > 1 else places[name]
            points[place] = (100 * measured.mean, 100 * claims.ERRORS * (measured.error or 0.0))
            if grid.form == "matrix":  # a pair in either order is one cell
                points.setdefault(place[::-1], points[place])
    if points:
        unit = f"{grid.plotted[0]}, %" if len(grid.plotted) == 1 else "%"
        n = len(grid.seeds)
        spread = "one seed" if n == 1 else f"mean ± 2 standard errors, {n} seeds"
        figures.ablation(
            path, points, form=grid.form, title=title, unit=unit, spread=spread, axis=grid.axis
        )
