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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from contrastive_jax import data
from contrastive_jax.storage import workdir
from experiments import moco, simclr
from experiments.ablation import grid, jobs
from experiments.ablation.jobs import Job, Plan, summary_of
from experiments.run import command_line, lifecycle, provenance
from experiments.run.signals import STOPPED, StopRequested, StopSignal

EXPERIMENTS = {"simclr": simclr.EXPERIMENT, "moco": moco.EXPERIMENT}
FLAGS = {"only": "a cell, or KEY=VALUE"}


def main(argv: Sequence[str]) -> int:
    """Check the whole grid, do what is missing of it, write what is known."""
    signals = StopSignal()
    signals.install()
    dry_run = "--dry_run" in argv
    argv = [word for word in argv if word != "--dry_run"]
    command = command_line.parse(argv, __doc__ or "", FLAGS)
    folder = workdir.prepare(command.workdir or os.path.join("runs", "ablations", command.name))
    lifecycle.set_up_jax()
    try:
        with workdir.lock(folder):
            plan = make_plan(command, folder, argv)
            if dry_run:
                print(describe(plan))
                return 0
            return jobs.execute(plan, signals)
    except StopRequested as stop:
        print(f"{stop}: stopped; run the same command again to go on.", file=sys.stderr)
        return STOPPED


def make_plan(command: command_line.Command, folder: Path, argv: Sequence[str]) -> Plan:
    """Read the page and build every run of it, so that a bad one is refused before any begins.

    Raises:
      ConfigError, ValueError: a grid, a config or a flag that cannot be run, or a folder of another
        one.
      DataError: no such data.
    """
    path, preset = page_of(argv)
    page = grid.read(path, preset)
    if page.experiment not in EXPERIMENTS:
        raise ValueError(f"experiment is {page.experiment!r}; give one of {tuple(EXPERIMENTS)}")
    experiment = EXPERIMENTS[page.experiment]
    cells = grid.configs(page, command.config)
    sections = {**lifecycle.SHARED_SECTIONS, **experiment.sections}
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
        provenance.saved_summary(job.folder, job.config)  # refuses a folder of another config
    names = frozenset(cell.name for cell in chosen)
    text = provenance.command_text(argv)
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
    experiment: lifecycle.Experiment,
    page: grid.Grid,
    cell: grid.Cell,
    config: ConfigDict,
    folder: Path,
    load: Callable[..., data.Dataset],
) -> list[Job]:
    """The runs of a cell. They share one objective, and so its compiled programs."""
    try:
        run = lifecycle.build(experiment, config, load)
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
    finished = {job.folder: summary_of(job) for job in plan.jobs}
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


if __name__ == "__main__":
    command_line.exit_with(main)
