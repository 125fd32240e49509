"""Run an ablation: a grid of configs x seeds, its table, its figure, and a verdict on the claim.

python -m experiments.ablations --config configs/ablations/temperature.py:cpu --workdir DIR

--config FILE[:preset]         a config of configs/ablations
--config.section.key=value     change one value of its base config
--workdir DIR                  where all of it lives; the same command does what is missing, on
                               another machine from a copy of its results.jsonl alone
--only NAME|KEY=VALUE          only the cells of this name, or with this override
--dry_run                      print the plan and an estimate of its time
"""

import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from contrastive_jax import data
from contrastive_jax.errors import ConfigError
from contrastive_jax.storage import workdir
from experiments.ablation import columns, grid, jobs, results
from experiments.ablation.jobs import Job, Plan
from experiments.run import build, command_line, lifecycle, provenance, resume
from experiments.run.build import Experiment
from experiments.run.methods import METHODS
from experiments.run.sections import Sections, as_kwargs, nearest
from experiments.run.signals import STOPPED, StopRequested, StopSignal

FLAGS = {"only": "a cell, or KEY=VALUE"}
SWITCHES = {"dry_run": "print the plan"}


def main(argv: Sequence[str]) -> int:
    """Check the whole grid, do what is missing of it, write what is known."""
    signals = StopSignal()
    signals.install()
    command = command_line.parse(argv, __doc__ or "", _sections, FLAGS, SWITCHES)
    folder = workdir.prepare(command.workdir or os.path.join("runs", "ablations", command.name))
    if (folder / "config.json").exists():
        raise ConfigError(f"{folder} holds a run; pass another --workdir for an ablation.")
    lifecycle.set_up_jax()
    try:
        with workdir.lock(folder):
            plan = make_plan(command, folder, argv)
            if command.switches["dry_run"]:
                print(describe(plan))
                return 0
            return jobs.execute(plan, signals)
    except StopRequested as stop:
        print(f"{stop}: stopped; run the same command again to resume.", file=sys.stderr)
        return STOPPED


def _grid(path: str) -> grid.Grid:
    file, _, preset = path.partition(":")
    return grid.read(file, preset)


def _sections(path: str) -> Sections:
    """The sections of the method that a grid is of."""
    table = _grid(path)
    for name in (table.experiment, *(grid.method_of(table, cell) for cell in table.cells)):
        if name not in METHODS:
            raise ConfigError(f"experiment is {name!r}; {nearest(name, METHODS)}")
    return METHODS[table.experiment].all_sections()


def make_plan(command: command_line.Command, folder: Path, argv: Sequence[str]) -> Plan:
    """Build every run of a grid, so that a bad one is refused before any starts.

    Raises:
      ConfigError: a config or a flag that cannot be run, or a folder of another one.
      DataError: no such data.
    """
    assert command.config is not None
    table = _grid(command.path)
    sections = {name: method.all_sections() for name, method in METHODS.items()}
    configs = grid.configs(table, command.config, sections)
    chosen = grid.selected(table.cells, command.strings["only"])
    load = keeping()
    planned = tuple(
        job for cell in table.cells for job in _jobs(table, cell, configs[cell.name], folder, load)
    )
    for job in planned:
        resume.check_folder(job.folder, job.run.experiment, job.run.config)
    names = frozenset(cell.name for cell in chosen)
    return Plan(
        command.name,
        table,
        planned,
        names,
        folder,
        provenance.command_text(argv),
        jobs.recorded(folder, table, planned),
    )


Load = Callable[[Experiment, ConfigDict], data.Dataset]


def keeping() -> Load:
    """A loader that does not read again what differs from the last set in its batch size only."""
    kept: dict[str, data.Dataset] = {}

    def load(experiment: Experiment, config: ConfigDict) -> data.Dataset:
        one = config.copy_and_resolve_references()
        one.data.batch_size = 1
        read = [as_kwargs(one, name) for name in ("data", "tokens") if name in one]
        read += [one.get(name, {}).get("folder") for name in ("encoder", "text")]  # tokenizers
        read.append(one.get("mine", {}).get("every_steps", 0) > 0)  # what it keeps of the texts
        read.append(one.get("loss", {}).get("guide"))  # whose vectors belong to the set
        key = repr((experiment.kind.load, read))
        if key not in kept:
            kept.clear()
            kept[key] = experiment.kind.load(one)
        return kept[key]._replace(batch_size=config.data.batch_size)

    return load


def _jobs(
    table: grid.Grid,
    cell: grid.Cell,
    config: ConfigDict,
    folder: Path,
    load: Load,
) -> list[Job]:
    """The runs of a cell. They share one objective, and so its compiled programs."""
    experiment = METHODS[grid.method_of(table, cell)]
    with grid.errors_of(f"cell {cell.name!r}"), command_line.bad_values():
        build.check_batch(config.data.batch_size, build.make_mesh(config))
        config = experiment.resolve(config)
        run = build.build(experiment, config, lambda c: load(experiment, c))
        notes = experiment.kind.check(run)
        columns.check(table, run)
    for note in notes:
        print(f"note: cell {cell.name!r}: {note}", file=sys.stderr)
    made = []
    for seed in table.seeds:
        seeded = config.copy_and_resolve_references()
        seeded.train.seed = config.train.seed + seed
        name = re.sub(r"[^\w.=,+-]+", "_", cell.name)
        place = folder / "runs" / name / f"seed{seed}"
        made.append(Job(cell, seed, build.with_seed(run, seeded), place))
    return made


def describe(plan: Plan) -> str:
    """The plan, one line a run, and how long what is missing will take."""
    finished = {job.folder: jobs.row_of(plan, job) for job in plan.jobs}
    chosen = [job for job in plan.jobs if job.cell.name in plan.chosen]
    seconds = estimate(plan, [row for row in finished.values() if row])
    lines = [
        f"{'done' if finished[job.folder] else 'to do'}  {job.cell.name}, seed {job.seed}, "
        f"{job.run.plan.steps} steps"
        for job in chosen
    ]
    left = sum(seconds(job) for job in chosen if not finished[job.folder])
    count = sum(not finished[job.folder] for job in chosen)
    source = "measured steps of this folder" if any(finished.values()) else "the config"
    lines.append(f"{count} of {len(chosen)} runs to do, about {left / 60:.1f} minutes by {source}")
    return "\n".join(lines)


def estimate(plan: Plan, rows: Sequence[results.Row]) -> Callable[[Job], float]:
    """Seconds that a run takes: of its steps where some were timed here, else what the config says.

    Steps are counted by their views, so that a batch of twice the size takes twice as long.
    """
    timed = [row["seconds"] for row in rows]
    views = sum(
        (row["step"] - row["seconds"]["resumed_from_step"]) * row["config"]["data"]["batch_size"]
        for row in rows
    )
    if views == 0:
        return lambda job: plan.grid.seconds
    a_view = sum(t["training"] for t in timed) / views
    beside = sum(t["compile"] + t["evaluation"] for t in timed) / len(timed)
    return lambda job: beside + a_view * job.run.plan.steps * job.run.dataset.batch_size


if __name__ == "__main__":
    with command_line.exit_codes():
        sys.exit(main(sys.argv))
