"""Run an ablation: a grid of configs x seeds, its table, its figure, and a verdict on the claim.

python -m experiments.ablations --config configs/ablations/temperature.py:cpu --workdir DIR

--config FILE[:preset]         a page of configs/ablations
--config.section.key=value     change one value of its base config
--workdir DIR                  where all of it lives; the same command does what is missing
--only NAME|KEY=VALUE          only the cells of this name, or with this override
--dry_run                      print the plan and an estimate of its time
"""

import functools
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from contrastive_jax import data, metrics, workdir
from contrastive_jax.errors import RunError
from experiments import collect, command_line, grid, launch, moco, simclr
from experiments.stopping import STOPPED, StopRequested, StopSignal

EXPERIMENTS = {"simclr": simclr.EXPERIMENT, "moco": moco.EXPERIMENT}
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


def main(argv: Sequence[str]) -> int:
    """Check the whole grid, do what is missing of it, write what is known."""
    signals = StopSignal()
    signals.install()
    dry_run = "--dry_run" in argv
    argv = [word for word in argv if word != "--dry_run"]
    command = command_line.parse(argv, __doc__ or "", {"only": "a cell, or KEY=VALUE"})
    folder = workdir.prepare(command.workdir or os.path.join("runs", "ablations", command.name))
    launch.set_up_jax()
    try:
        with workdir.lock(folder):
            plan = make_plan(command, folder, argv)
            if dry_run:
                print(describe(plan))
                return 0
            return execute(plan, signals)
    except StopRequested as stop:
        print(f"{stop}: stopped; run the same command again to go on.", file=sys.stderr)
        return STOPPED


def make_plan(command: command_line.Command, folder: Path, argv: Sequence[str]) -> Plan:
    """Read the page and build every run of it, so that a bad one is refused before any begins.

    Raises:
      ConfigError, ValueError: a grid or a config that cannot be run, or a folder of another one.
      DataError: no such data.
    """
    path, preset = page_of(argv)
    page = grid.read(path, preset)
    if page.experiment not in EXPERIMENTS:
        raise ValueError(f"experiment is {page.experiment!r}; give one of {tuple(EXPERIMENTS)}")
    experiment = EXPERIMENTS[page.experiment]
    cells = grid.configs(page, command.config)
    sections = {**launch.SHARED_SECTIONS, **experiment.sections}
    for config in cells.values():
        command_line.check(config, sections)
    chosen = grid.selected(page.cells, command.strings["only"])
    load = keeping(data.load)
    jobs = tuple(
        job
        for cell in page.cells
        for job in _jobs(experiment, page, cell, cells[cell.name], folder, load)
    )
    for job in jobs:
        launch.saved_summary(job.folder, job.config)  # refuses a folder of another config
    names = frozenset(cell.name for cell in chosen)
    text = launch.command_text(argv)
    return Plan(command.name, page, jobs, names, folder, text)


def page_of(argv: Sequence[str]) -> tuple[str, str]:
    """The file and the preset of --config."""
    text = command_line.flag_text(argv, "config") or ""
    path, _, preset = text.partition(":")
    return path, preset


def keeping(load: Callable[..., data.Dataset]) -> Callable[..., data.Dataset]:
    """`load`, but what differs from the last call in its batch size only is not read again."""
    kept = functools.lru_cache(maxsize=1)(functools.partial(load, batch_size=1))

    def reload(*, batch_size: int, **source: Any) -> data.Dataset:
        return kept(**source)._replace(batch_size=batch_size)

    return reload


def _jobs(
    experiment: launch.Experiment,
    page: grid.Grid,
    cell: grid.Cell,
    config: ConfigDict,
    folder: Path,
    load: Callable[..., data.Dataset],
) -> list[Job]:
    """The runs of a cell. They share one objective, and so its compiled programs."""
    try:
        run = launch.build(experiment, config, load)
    except ValueError as error:
        raise ValueError(f"cell {cell.name!r}: {error}") from error
    jobs = []
    for seed in page.seeds:
        seeded = grid.override(config, {"train.seed": run.plan.seed + seed}, cell.name)
        plan = run.plan._replace(seed=run.plan.seed + seed)
        feed = data.train_feed(run.dataset, plan.seed, run.views.crops)
        own = folder / "runs" / _slug(cell.name) / f"seed{seed}"
        jobs.append(Job(cell, seed, seeded, run._replace(plan=plan, feed=feed), own))
    return jobs


def _slug(name: str) -> str:
    return re.sub(r"[^\w.=,+-]+", "_", name)


def describe(plan: Plan) -> str:
    """The plan, one line a run, and how long what is missing will take."""
    finished = {job.folder: _summary(job) for job in plan.jobs}
    chosen = [job for job in plan.jobs if job.cell.name in plan.chosen]
    seconds = estimate(plan, [s for s in finished.values() if s])
    lines = [
        f"{'done' if finished[job.folder] else 'to do'}  {job.cell.name}, seed {job.seed}, "
        f"{job.run.plan.steps} steps"
        for job in chosen
    ]
    left = sum(seconds(job) for job in chosen if not finished[job.folder])
    count = sum(not finished[job.folder] for job in chosen)
    source = "measured steps of this folder" if any(finished.values()) else "the page's word"
    lines.append(f"{count} of {len(chosen)} runs to do, about {left / 60:.1f} minutes by {source}")
    return "\n".join(lines)


def estimate(plan: Plan, summaries: Sequence[dict[str, Any]]) -> Callable[[Job], float]:
    """Seconds that a run takes: of its steps where some were timed here, else what the page says.

    Steps are counted by their views, so that a batch of twice the size takes twice as long.
    """
    timed = [s["seconds"] for s in summaries]
    views = sum(
        (s["step"] - s["seconds"]["training_began_at_step"]) * s["config"]["data"]["batch_size"]
        for s in summaries
    )
    if views == 0:
        return lambda job: plan.grid.seconds
    a_view = sum(t["training"] for t in timed) / views
    beside = sum(t["compile"] + t["evaluation"] for t in timed) / len(timed)
    return lambda job: beside + a_view * job.run.plan.steps * job.run.dataset.batch_size


def execute(plan: Plan, signals: StopSignal) -> int:
    """Do what is missing, in order; then write what is known."""
    chosen = [job for job in plan.jobs if job.cell.name in plan.chosen]
    for number, job in enumerate(chosen, 1):
        if _summary(job):
            continue
        print(f"\nrun {number} of {len(chosen)}: {job.cell.name}, seed {job.seed}", flush=True)
        if not _with_retry(plan, job, signals):
            return STOPPED
        _write(plan, rows_of(plan))
    rows = rows_of(plan)
    print(_write(plan, rows))
    collect.draw(plan.folder / "figure.png", plan.title, plan.grid, rows)
    return INCOMPLETE if any(not _summary(job) for job in chosen) else 0


def rows_of(plan: Plan) -> list[collect.Row]:
    """The finished runs, in the order of the plan."""
    rows = []
    for job in plan.jobs:
        summary = _summary(job)
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
            print(f"attempt {attempt} of {job.cell.name!r} crashed: {error}", file=sys.stderr)
            if not isinstance(error, RunError):
                traceback.print_exc()
    return True


def _run(plan: Plan, job: Job, signals: StopSignal) -> bool:
    job.folder.mkdir(parents=True, exist_ok=True)
    words = {"name": f"{plan.title}: {job.cell.name}", "command": plan.command}
    with workdir.lock(job.folder):
        summary = launch.train_and_score(job.run, job.config, job.folder, signals, **words)
    return summary is not None


def _summary(job: Job) -> dict[str, Any] | None:
    return launch.saved_summary(job.folder, job.config)


if __name__ == "__main__":
    command_line.exit_with(main)
