"""What an ablation leaves: results.jsonl, table.md, figure.png, verdict.json, of finished runs."""

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
    """One finished run as a line of results.jsonl.

    Args:
      grid, cell, seed: which run.
      summary: its results/summary.json.
      log: its metrics.jsonl.

    Raises:
      ValueError: a column that this run has no score for.
    """
    measured = {name: _measure(name, spec, summary, log) for name, spec in grid.columns.items()}
    headline = next(iter(grid.columns))
    return {
        "cell": cell.name,
        "seed": seed,
        "overrides": dict(cell.overrides),
        "metric": headline,
        "value": measured[headline]["value"],
        "protocol": measured[headline].get("protocol"),
        "measured": measured,
        "step": summary["step"],
        "seconds": summary["seconds"],
        "config_sha256": summary["config_sha256"],
        "device": summary["device"],
        "cpus": summary["cpus"],
        "versions": summary["versions"],
        "code": summary.get("code"),
    }


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
    for evaluation in summary["evaluations"]:
        protocol = {**evaluation["protocol"], "layer": evaluation["layer"]}
        wanted = all(protocol.get(key) == value for key, value in spec.items())
        if evaluation["representation"] == "trained" and wanted:
            return {
                "value": value_of(evaluation),
                "layer": evaluation["layer"],
                "split": evaluation["split"],
                "n": evaluation["n"],
                "protocol": evaluation["protocol"],
            }
    raise ValueError(f"column {name!r}: the summary has no row with {dict(spec)}")


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
    """Write results.jsonl, table.md and verdict.json into the folder; returns the table."""
    workdir.write_text(
        folder / "results.jsonl",
        "".join(json.dumps(line, allow_nan=False, sort_keys=True) + "\n" for line in rows),
    )
    complete = results(grid, rows)
    verdict = judge(grid, complete)
    text = table(title, grid, complete, verdict, _lost(grid, rows, crashes))
    workdir.write_text(folder / "table.md", text)
    described = {"title": title, "source": grid.source, "claim": grid.claim_text}
    described |= {"outcome": verdict.outcome, "reasons": list(verdict.reasons)}
    described |= {"seeds": list(grid.seeds), "metric": next(iter(grid.columns))}
    described |= {"finished": len(rows), "runs": len(grid.cells) * len(grid.seeds)}
    workdir.write_json(folder / "verdict.json", described)
    return text


def _lost(grid: Grid, rows: Sequence[Row], crashes: Sequence[Row]) -> list[str]:
    finished = {(line["cell"], line["seed"]) for line in rows}
    lines = []
    for crash in crashes:
        again = (crash["cell"], crash["seed"]) in finished
        end = "finished when tried again" if again else "not finished"
        lines.append(f"- `{crash['cell']}`, seed {crash['seed']}: {crash['error']} ({end})")
    return lines


def table(
    title: str,
    grid: Grid,
    complete: Results,
    verdict: claims.Verdict,
    crashes: Sequence[str] = (),
) -> str:
    """The results as Markdown: claim, verdict, mean and standard error over seeds, crashes."""
    names = list(grid.columns)
    lines = [f"# {title}", "", f"{grid.claim_text}", "", f"**{verdict.outcome}**", ""]
    lines += [*(f"- {reason}" for reason in verdict.reasons), ""]
    lines += [f"| cell | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for name, members in grid.tuned.items():
        if name in complete:
            entries = _entries(grid, complete[name])
            lines.append(f"| **{name}**: {best(complete, members)} | {' | '.join(entries)} |")
    for cell in grid.cells:
        own = complete.get(cell.name)
        entries = _entries(grid, own) if own else ["-"] * len(names)
        lines.append(f"| {cell.name} | {' | '.join(entries)} |")
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
    for name, spec in grid.columns.items():
        scale = 1.0 if "logged" in spec and not _is_fraction(spec["logged"]) else 100.0
        digits = 2 if scale == 1.0 else 1
        measured = claims.sample(own[name])
        entry = f"{scale * measured.mean:.{digits}f}"
        if measured.error is not None:
            entry += f" ± {scale * measured.error:.{digits}f}"
        entries.append(entry)
    return entries


def _is_fraction(metric: str) -> bool:
    return metric.endswith(("accuracy", "validation"))


def draw(path: Path, title: str, grid: Grid, rows: Sequence[Row]) -> None:
    """The finished cells in the paper's form."""
    complete = results(grid, rows)
    places = [(cell.at, cell.name) for cell in grid.cells]
    places = [((name,), name) for name in grid.tuned] if grid.plots_tuned else places
    points = {}
    for at, name in places:
        for column in grid.plotted if name in complete else ():
            measured = claims.sample(complete[name][column])
            place = (*at, column) if len(grid.plotted) > 1 else at
            points[place] = (100 * measured.mean, 100 * (measured.error or 0.0))
            if grid.form == "matrix":  # a pair in either order is one cell
                points.setdefault(place[::-1], points[place])
    if points:
        unit = f"{grid.plotted[0]}, %" if len(grid.plotted) == 1 else "%"
        title = f"{title}: mean and standard error, seeds: {len(grid.seeds)}"
        figures.ablation(path, points, form=grid.form, title=title, unit=unit, axis=grid.axis)
