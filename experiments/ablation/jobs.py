"""The runs of an ablation: train those that are missing, in order; retry one that crashed."""

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from contrastive_jax.errors import RunError
from contrastive_jax.storage import jsonl, workdir
from experiments.ablation import grid, results
from experiments.run import lifecycle, resume
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


def execute(plan: Plan, signals: StopSignal) -> int:
    """Train the missing runs, then write results, table and figure."""
    chosen = [job for job in plan.jobs if job.cell.name in plan.chosen]
    for number, job in enumerate(chosen, start=1):
        if summary_of(job):
            continue
        print(f"\nrun {number} of {len(chosen)}: {job.cell.name}, seed {job.seed}", flush=True)
        if not _with_retry(plan, job, signals):
            return STOPPED
        _write(plan, rows_of(plan))
    rows = rows_of(plan)
    print(_write(plan, rows))
    results.draw(plan.folder / "figure.png", plan.title, plan.grid, rows)
    return INCOMPLETE if any(not summary_of(job) for job in chosen) else 0


def rows_of(plan: Plan) -> list[results.Row]:
    """The finished runs, in the order of the plan."""
    rows = []
    for job in plan.jobs:
        summary = summary_of(job)
        if summary:
            log = jsonl.read_jsonl(job.folder / "metrics.jsonl")
            rows.append(results.row(plan.grid, job.cell, job.seed, summary, log))
    return rows


def _write(plan: Plan, rows: Sequence[results.Row]) -> str:
    return results.write(plan.folder, plan.title, plan.grid, rows, crashes_of(plan))


def crashes_of(plan: Plan) -> list[dict[str, Any]]:
    """What crashed so far, in this start or an earlier one."""
    path = plan.folder / "crashes.json"
    return workdir.read_json(path) if path.exists() else []


def _add_crash(plan: Plan, job: Job, error: Exception) -> None:
    reason = (str(error).strip().splitlines() or [""])[0]
    crash = {"cell": job.cell.name, "seed": job.seed}
    crash["error"] = f"{type(error).__name__}: {reason}"[:300]
    workdir.write_json(plan.folder / "crashes.json", [*crashes_of(plan), crash])


def _with_retry(plan: Plan, job: Job, signals: StopSignal) -> bool:
    """Run a job, once more if it crashes; False when a person asked to stop."""
    for attempt in (1, 2):
        try:
            return _run(plan, job, signals)
        except Exception as error:  # whatever it is, the other cells can go on
            _add_crash(plan, job, error)
            _report(f"attempt {attempt} of {job.cell.name!r}", error)
    return True


def _report(what: str, error: Exception) -> None:
    print(f"{what} crashed: {error}", file=sys.stderr)
    if not isinstance(error, RunError):
        traceback.print_exception(error)


def _run(plan: Plan, job: Job, signals: StopSignal) -> bool:
    job.folder.mkdir(parents=True, exist_ok=True)
    with workdir.lock(job.folder):
        summary = lifecycle.train_and_score(
            job.run,
            job.folder,
            signals,
            name=f"{plan.title}: {job.cell.name}",
            command=plan.command,
        )
    return summary is not None


def summary_of(job: Job) -> dict[str, Any] | None:
    """Read what a finished run wrote, None for one that is not finished."""
    return resume.finished_summary(job.folder, job.run.experiment, job.run.config)
