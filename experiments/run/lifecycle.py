"""A training run from its command line to its finished folder: start, train, score, draw."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import jax

import contrastive_jax
from contrastive_jax import data, parallel, training
from contrastive_jax.storage import workdir
from contrastive_jax.training.checkpoint import Checkpointer, Restored, digest
from contrastive_jax.types import TrainState
from experiments.run import (
    build,
    command_line,
    console,
    failures,
    memory,
    multihost,
    provenance,
    restore,
    resume,
    sinks,
)
from experiments.run.build import Experiment, Run
from experiments.run.command_line import Command
from experiments.run.sections import PLACES, as_kwargs, leaves
from experiments.run.signals import STOPPED, StopRequested, StopSignal

SWITCHES = {"strict_resume": "a damaged newest checkpoint is an error"}
Row = Mapping[str, float]


def main(experiment: Experiment, argv: Sequence[str]) -> int:
    """Train, score and draw the run that a command line asks for; returns the exit code."""
    signals = StopSignal()
    signals.install()
    memory.keep_freed()
    sections = experiment.all_sections()
    command = command_line.parse(argv, experiment.usage, sections, multihost.FLAGS, SWITCHES)
    with command_line.bad_values():
        command = command._replace(config=experiment.resolve(command.config))
    set_up_jax()
    try:
        with multihost.joined(command.strings), ExitStack() as stack:
            memory.keep_freed(jax.default_backend() == "cpu")  # elsewhere the host only reads data
            folder, finished = _claim_folder(experiment, command, stack)
            if finished is not None:
                if not resume.same_place(folder, command.config):
                    resume.check_data(folder, data.identity(_build(experiment, command).dataset))
                print(f"{folder} is complete:\n{console.table(finished['evaluations'])}")
                return 0
            run = _build(experiment, command)
            with failures.memory_explained(run.dataset.batch_size, run.mesh.devices.size):
                summary = train_and_score(
                    run,
                    folder,
                    signals,
                    name=command.name,
                    command=provenance.command_text(argv),
                    strict_resume=command.switches["strict_resume"],
                )
            if summary is None:
                return STOPPED
            print(console.table(summary["evaluations"]))
            print(f"results {folder}/results/summary.json   pictures {folder}/figures/")
            return 0
    except StopRequested as stop:
        print(f"{stop}: stopped; run the same command again to resume.", file=sys.stderr)
        return STOPPED


def _claim_folder(
    experiment: Experiment, command: Command, stack: ExitStack
) -> tuple[Path, dict[str, Any] | None]:
    """Lock the workdir, and read the summary of a run that is complete.

    Raises:
      ConfigError: it holds another run. WorkdirBusyError: another process holds it.
    """
    assert command.config is not None
    with multihost.agreed() as shared:
        shared.update(leaves(command_line.plain(command.config)))
        for key in PLACES:  # a host may keep the data elsewhere; its content is compared
            shared.pop(f"data.{key}", None)
        shared |= {"code": provenance.code_digest, **provenance.versions(), **command.switches}
        default = os.path.join("runs", command.name)
        folder = workdir.prepare(default if command.workdir is None else command.workdir)
        if multihost.is_first():  # the others work in its folder
            stack.enter_context(workdir.lock(folder))
        resume.check_folder(folder, experiment, command.config)
        finished = resume.finished_summary(folder, experiment, command.config)
        shared["complete"] = finished is not None
    return folder, finished


def _build(experiment: Experiment, command: Command) -> Run:
    """Build the run, and ask before the first step all that scoring and drawing will need."""
    assert command.config is not None
    with multihost.agreed() as shared, command_line.bad_values():
        build.check_batch(command.config.data.batch_size, build.make_mesh(command.config))
        sinks.settings(**as_kwargs(command.config, "log"))
        run = build.build(experiment, command.config)
        shared["data"] = lambda: data.identity(run.dataset)["sha256"]
        for line in experiment.kind.check(run):
            print(f"note: {line}", file=sys.stderr)
    return run


def train_and_score(
    run: Run,
    folder: Path,
    signals: StopSignal,
    *,
    name: str,
    command: str,
    strict_resume: bool = False,
) -> dict[str, Any] | None:
    """Do what is missing of a run in its folder: train from its last checkpoint on, then score.

    The folder is held by this process; `command` is what a person typed.

    Returns:
      The summary that was written, or None if the run was stopped on request and saved.
    """
    identity = data.identity(run.dataset)
    resume.check_data(folder, identity)
    with ExitStack() as stack:
        checkpointer, restored = _restore(run, folder, identity, strict_resume, stack)
        described = restored and (folder / "config.json").exists()
        before = restore.description(folder) if described else None
        description = provenance.describe(run, command, before)
        state = restored.state if restored else run.fresh_state()
        start = restored.step if restored else 0
        if multihost.is_first():
            workdir.write_json(folder / "config.json", description)
            run.experiment.kind.keep(run, folder)
        _show(run, state, start, folder, name)
        write, show_step = _writers(run, start, folder, name, stack)
        stack.callback(run.feed.close)
        stack.enter_context(failures.nonfinite_recorded(run.feed, folder / "nonfinite.json"))
        finish_step = stack.enter_context(signals.deferred())

        def on_step(step: int) -> None:
            finish_step()
            show_step(step)

        finished = training.run(
            run.objective,
            run.optimizer,
            run.feed,
            state,
            plan=run.plan,
            mesh=run.mesh,
            write=write,
            checkpointer=checkpointer,
            meta=resume.meta(run, identity),
            evaluators=run.experiment.kind.evaluators(run),
            refresh=run.experiment.kind.refresh(run),
            on_step=on_step,
            stop=parallel.any_process(run.mesh, lambda: signals.requested),
        )
        checkpointer.wait()
    return _score(run, finished, start, folder, description)


def _restore(
    run: Run, folder: Path, identity: Mapping[str, Any], strict: bool, stack: ExitStack
) -> tuple[Checkpointer, Restored | None]:
    with multihost.agreed() as shared:
        settings = as_kwargs(run.config, "checkpoint")
        with command_line.bad_values():
            checkpointer = Checkpointer(folder / "checkpoints", **settings)
        stack.enter_context(checkpointer)
        restored = resume.state(run, checkpointer, folder, identity, strict)
        shared["step to start from"] = restored.step if restored else 0
        shared["holder of the workdir"] = workdir.holder(folder)
    return checkpointer, restored


def _score(
    run: Run,
    finished: training.Finished,
    start: int,
    folder: Path,
    description: Mapping[str, Any],
) -> dict[str, Any] | None:
    """Score and draw a run whose training has ended; None if it was stopped before that."""
    sha256 = digest(finished.state)
    print(f"step {finished.step}, state sha256 {sha256}", flush=True)
    if finished.step < run.plan.steps:
        print(f"stopped after step {finished.step}, saved; run the same command again to resume.")
        return None
    seconds = {"compile": finished.compile_seconds, "training": finished.train_seconds}
    seconds["resumed_from_step"] = start
    measured = {"seconds": seconds, "step_cost": _step_cost(finished.cost)}
    before = resume.summary_of(folder)
    if before.get("state_sha256") == sha256:  # stopped while it was drawn
        measured = {name: before.get(name) for name in measured}
    origin = provenance.of_scores(run, description, finished.step)
    origin |= {**measured, "state_sha256": sha256}
    with resume.unfinished(folder) if multihost.is_first() else nullcontext():
        return run.experiment.kind.score(run, finished.state, folder, origin, draw=True)


def _step_cost(cost: training.StepCost | None) -> dict[str, float]:
    """Write down what a step took, in milliseconds and megabytes, as far as it is known."""
    if cost is None:
        return {}
    megabytes = {} if cost.bytes is None else {"megabytes": cost.bytes / 2**20}
    return {"milliseconds": 1000 * cost.seconds, **megabytes}


def _show(run: Run, state: TrainState, start: int, folder: Path, name: str) -> None:
    about = {"config": f"{name}, seed {run.plan.seed}", "data": run.experiment.kind.describe(run)}
    summary = build.banner(run, state, start, {**multihost.summary(), **about})
    version = f"{contrastive_jax.__version__}, jax {jax.__version__}"
    console.banner({"contrastive_jax": version, **summary, "workdir": str(folder)})


def _writers(
    run: Run, start: int, folder: Path, name: str, stack: ExitStack
) -> tuple[Callable[[int, Row], None], Callable[[int], None]]:
    """Open where rows and steps go: files, dashboards, the terminal; in the first process only."""
    if not multihost.is_first():
        return (lambda step, row: None), (lambda step: None)
    progress = console.Progress(
        start, run.plan.steps, run.dataset.batch_size, run.experiment.kind.unit
    )
    opened = sinks.open_writers(folder, run.config, name, start or None)
    for sink in (progress, *opened):
        stack.callback(sink.close)

    def write(step: int, row: Row) -> None:
        row = {**row, "learning_rate": float(run.schedule(step - 1))}
        for sink in (*opened, progress):
            sink.write(step, row)

    return write, progress.on_step


def set_up_jax() -> None:
    """Keep compiled programs between runs, in the user's cache folder."""
    if jax.config.jax_compilation_cache_dir is None:
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        jax.config.update(
            "jax_compilation_cache_dir", os.path.join(cache, "contrastive_jax", "xla")
        )
        # JAX keeps what took a second or more; a command has dozens of programs that took less.
        # Those of a few hundredths are quicker compiled again than written.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
