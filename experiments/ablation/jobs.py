"""The runs of an ablation: train those that are missing, in order; retry one that crashed."""

import sys
import traceback
from pathlib import Path
from typing import Any, NamedTuple

from contrastive_jax.data._errors import first_line
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
    """Train the missing runs; write results, table and figure after each."""
    chosen = [job for job in plan.jobs if job.cell.name in plan.chosen]
    for number, job in enumerate(chosen, start=1):
        if summary_of(job):
            continue
        print(f"\nrun {number} of {len(chosen)}: {job.cell.name}, seed {job.seed}", flush=True)
        if not _with_retry(plan, job, signals):
            return STOPPED
        _write(plan)
    print(_write(plan))
    return INCOMPLETE if any(not summary_of(job) for job in chosen) else 0


def _write(plan: Plan) -> str:
    rows = []
    for job in plan.jobs:
        if summary := summary_of(job):
            log = jsonl.read_jsonl(job.folder / "metrics.jsonl")
            rows.append(results.row(plan.grid, job.cell, job.seed, summary, log))
    return results.write(plan.folder, plan.title, plan.grid, rows, _crashes(plan))


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


def summary_of(job: Job) -> dict[str, Any] | None:
    """Read what a finished run wrote, None for one that is not finished."""
    return resume.finished_summary(job.folder, job.run.experiment, job.run.config)
