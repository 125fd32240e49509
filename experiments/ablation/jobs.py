"""The runs of an ablation: train those that are missing, in order; retry one that crashed.

A run is finished by its own folder, or by its line in the results.jsonl of the ablation, which may
come from another machine.
"""

import json
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from contrastive_jax import data
from contrastive_jax.data._errors import first_line
from contrastive_jax.errors import ConfigError, RunError
from contrastive_jax.storage import jsonl, workdir
from experiments.ablation import grid, results
from experiments.run import lifecycle, restore, resume
from experiments.run.build import Run
from experiments.run.signals import STOPPED, StopSignal

INCOMPLETE = 1  # some runs crashed twice


class Job(NamedTuple):
    """One run of the plan: a cell with a seed."""

    cell: grid.Cell
    seed: int
    run: Run
    folder: Path


class Plan(NamedTuple):
    """A checked ablation."""

    title: str
    grid: grid.Grid
    jobs: tuple[Job, ...]  # all of them, in order
    chosen: frozenset[str]  # the cells that --only leaves
    folder: Path
    command: str
    recorded: Mapping[tuple[str, int], results.Row]  # by cell and seed: runs of other machines


def execute(plan: Plan, signals: StopSignal) -> int:
    """Train the missing runs; write results, table and figure after each."""
    chosen = [job for job in plan.jobs if job.cell.name in plan.chosen]
    for number, job in enumerate(chosen, start=1):
        if row_of(plan, job):
            continue
        print(f"\nrun {number} of {len(chosen)}: {job.cell.name}, seed {job.seed}", flush=True)
        if not _with_retry(plan, job, signals):
            return STOPPED
        _write(plan)
    print(_write(plan))
    return INCOMPLETE if any(not row_of(plan, job) for job in chosen) else 0


def _write(plan: Plan) -> str:
    rows = [row for row in (row_of(plan, job) for job in plan.jobs) if row]
    return results.write(plan.folder, plan.title, plan.grid, rows, _crashes(plan))


def row_of(plan: Plan, job: Job) -> results.Row | None:
    """The line of results.jsonl of a finished run, None for one that is not finished."""
    if summary := resume.finished_summary(job.folder, job.run.experiment, job.run.config):
        log = jsonl.read_jsonl(job.folder / "metrics.jsonl")
        return results.row(plan.grid, job.cell, job.seed, summary, log)
    return plan.recorded.get((job.cell.name, job.seed))


def recorded(folder: Path, table: grid.Grid, planned: Sequence[Job]) -> dict[tuple[str, int], Any]:
    """Read the results.jsonl of an ablation: the runs of this grid whose folders are elsewhere.

    Raises:
      ConfigError: a line is broken, or of another method, config or data than the grid has it.
    """
    path = folder / "results.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    try:
        rows = {(row["cell"], row["seed"]): row for row in map(json.loads, lines)}
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} is no list of an ablation's runs: {first_line(error)}.\n"
            "Copy the whole file again, or pass another --workdir."
        ) from error
    found, again = {}, 0
    for job in planned:
        row = rows.get((job.cell.name, job.seed))
        if row is None or (job.folder / "config.json").exists():
            continue  # what its own folder says counts
        if row.get("config") and results.measures_all(table, row):
            _check_same(path, job, row)
            found[job.cell.name, job.seed] = row
        else:
            again += 1
    if again:
        reason = "their lines lack a column, or the config (as older versions wrote them)"
        print(f"note: {path}: {again} runs are done again; {reason}", file=sys.stderr)
    return found


def _check_same(path: Path, job: Job, row: results.Row) -> None:
    experiment = job.run.experiment
    changed = [f"method: {row['method']!r} -> {experiment.name!r}"]
    if row["method"] == experiment.name:
        changed, _ = restore.differences(row, experiment, job.run.config, restore.FREE)
    if changed:
        raise ConfigError(
            f"{path} has {job.cell.name!r} by another config: {'; '.join(changed[:3])}.\n"
            "Pass another --workdir, or the config that it was made with."
        )
    restore.refuse_other_data(path, row["data"], data.identity(job.run.dataset))


def _crashes(plan: Plan) -> list[dict[str, Any]]:
    """What crashed so far, in this start or an earlier one."""
    path = plan.folder / "crashes.json"
    return workdir.read_json(path) if path.exists() else []


def _with_retry(plan: Plan, job: Job, signals: StopSignal) -> bool:
    """Run a job, once more if it crashes; False when a person asked to stop."""
    for attempt in (1, 2):
        try:
            return _run(plan, job, signals)
        except Exception as error:  # whatever it is, the other cells can go on
            crash = {"cell": job.cell.name, "seed": job.seed}
            crash["error"] = f"{type(error).__name__}: {first_line(error)}"
            workdir.write_json(plan.folder / "crashes.json", [*_crashes(plan), crash])
            print(f"attempt {attempt} of {job.cell.name!r} crashed: {error}", file=sys.stderr)
            if not isinstance(error, RunError):
                traceback.print_exception(error)
    return True


def _run(plan: Plan, job: Job, signals: StopSignal) -> bool:
    job.folder.mkdir(parents=True, exist_ok=True)
    name, command = f"{plan.title}: {job.cell.name}", plan.command
    with workdir.lock(job.folder):
        summary = lifecycle.train_and_score(
            job.run, job.folder, signals, name=name, command=command
        )
    return summary is not None
