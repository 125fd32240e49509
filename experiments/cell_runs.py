"""The runs of an ablation: what is missing is done, in turn or several seeds at once."""

import itertools
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from contrastive_jax import metrics, workdir
from contrastive_jax.errors import RunError
from experiments import at_once, collect, grid, launch, provenance
from experiments.stopping import STOPPED, StopSignal

INCOMPLETE = 1  # some runs crashed twice


class Job(NamedTuple):
    """One run of the plan: a cell with a seed."""

    cell: grid.Cell
    seed: int
    config: ConfigDict
    run: launch.Run
    folder: Path


class Plan(NamedTuple):
    """A checked ablation."""

    title: str
    grid: grid.Grid
    jobs: tuple[Job, ...]  # all of them, in order
    chosen: frozenset[str]  # the cells that --only leaves
    folder: Path
    command: str
    seeds_at_once: int


def execute(plan: Plan, signals: StopSignal) -> int:
    """Do what is missing, in order; then write what is known."""
    chosen = [job for job in plan.jobs if job.cell.name in plan.chosen]
    for group in groups([job for job in chosen if not summary_of(job)], plan.seeds_at_once):
        if not _together(plan, group, signals) or not _in_turn(plan, chosen, group, signals):
            return STOPPED
    rows = rows_of(plan)
    print(_write(plan, rows))
    collect.draw(plan.folder / "figure.png", plan.title, plan.grid, rows)
    return INCOMPLETE if any(not summary_of(job) for job in chosen) else 0


def groups(jobs: Sequence[Job], size: int) -> Iterator[list[Job]]:
    """Runs of one cell, in order, at most `size` in a group."""
    for _, cell in itertools.groupby(jobs, key=lambda job: job.cell.name):
        seeds = list(cell)
        yield from (seeds[i : i + size] for i in range(0, len(seeds), size))


def _together(plan: Plan, group: Sequence[Job], signals: StopSignal) -> bool:
    """Train the seeds at once; after a crash some are unfinished. False for a stop on request."""
    if len(group) == 1:
        return True
    print(f"\n{group[0].cell.name}, seeds {[job.seed for job in group]}", flush=True)
    words = {"name": f"{plan.title}: {group[0].cell.name}", "command": plan.command}
    try:
        with ExitStack() as locks:
            for job in group:
                job.folder.mkdir(parents=True, exist_ok=True)
                locks.enter_context(workdir.lock(job.folder))
            members = [(job.run, job.config, job.folder) for job in group]
            finished = at_once.train_and_score(members, signals, **words)
    except Exception as error:  # whatever it is, each seed can go on alone
        for job in group:
            if not summary_of(job):
                _add_crash(plan, job, error)
        _report(f"seeds {[job.seed for job in group]} of {group[0].cell.name!r} at once", error)
        finished = True
    _write(plan, rows_of(plan))
    return finished


def _in_turn(plan: Plan, chosen: Sequence[Job], jobs: Sequence[Job], signals: StopSignal) -> bool:
    """Run what is unfinished of some jobs; False for a stop on request."""
    for job in jobs:
        if summary_of(job):
            continue
        number = [each.folder for each in chosen].index(job.folder) + 1
        print(f"\nrun {number} of {len(chosen)}: {job.cell.name}, seed {job.seed}", flush=True)
        if not _with_retry(plan, job, signals):
            return False
        _write(plan, rows_of(plan))
    return True


def rows_of(plan: Plan) -> list[collect.Row]:
    """The finished runs, in the order of the plan."""
    rows = []
    for job in plan.jobs:
        summary = summary_of(job)
        if summary:
            log = metrics.read_jsonl(job.folder / "metrics.jsonl")
            rows.append(collect.row(plan.grid, job.cell, job.seed, summary, log))
    return rows


def _write(plan: Plan, rows: Sequence[collect.Row]) -> str:
    return collect.write(plan.folder, plan.title, plan.grid, rows, crashes_of(plan))


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
    words = {"name": f"{plan.title}: {job.cell.name}", "command": plan.command}
    with workdir.lock(job.folder):
        summary = launch.train_and_score(job.run, job.config, job.folder, signals, **words)
    return summary is not None


def summary_of(job: Job) -> dict[str, Any] | None:
    """What a finished run wrote, None for one that is not finished."""
    return provenance.saved_summary(job.folder, job.config)
