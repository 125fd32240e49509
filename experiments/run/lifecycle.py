"""The launcher: a config and a builder of objectives become a trained, checkpointed, scored run."""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

import contrastive_jax
from contrastive_jax import augment, data, parallel, training
from contrastive_jax.errors import ConfigError
from contrastive_jax.parallel import Mesh
from contrastive_jax.storage import jsonl, tensorboard, workdir
from contrastive_jax.training import optim
from contrastive_jax.training.checkpoint import Checkpointer, digest
from contrastive_jax.types import Feed, Objective, TrainState
from experiments.run import command_line, console, multihost, provenance, resume
from experiments.run.command_line import keywords
from experiments.run.failures import culprits_kept, memory_explained
from experiments.run.signals import STOPPED, StopRequested, StopSignal
from experiments.scoring import summary

SWITCHES = {"strict_resume": "a damaged newest checkpoint is an error"}


class Experiment(NamedTuple):
    """A family of methods: the sections of its configs and how they become an objective."""

    usage: str
    sections: command_line.Sections  # beside the shared ones
    build: Callable[[ConfigDict, Mesh, int], Objective]  # (config, mesh, n_classes)
    views: Callable[[ConfigDict], augment.Views]  # what the encoder is shown, for the pictures


SHARED_SECTIONS: command_line.Sections = {
    "data": keywords(data.load),
    "optimizer": keywords(optim.make),
    "train": keywords(training.plan),
    "checkpoint": keywords(Checkpointer),
    "eval": keywords(summary.settings),
}


Sinks = tuple[Callable[[int, Mapping[str, float]], None], Callable[[int], None]]
_NOWHERE: Sinks = (lambda step, row: None, lambda step: None)  # of all processes but the first


class Run(NamedTuple):
    """Everything a config stands for, before any device has worked."""

    dataset: data.Dataset
    mesh: Mesh
    objective: Objective
    views: augment.Views
    optimizer: Any
    schedule: Callable[[int], Any]
    feed: Feed
    init: Callable[[int], TrainState]  # a fresh state of a seed
    plan: training.Plan
    eval: summary.Settings


def main(experiment: Experiment) -> None:
    """Run the experiment that the command line asks for; never returns."""
    command_line.exit_with(lambda argv: _main(experiment, argv), multihost.leave)


def _main(experiment: Experiment, argv: Sequence[str]) -> int:
    signals = StopSignal()
    signals.install()
    usage = experiment.usage
    command = command_line.parse(argv, usage, multihost.FLAGS, switches=SWITCHES)
    command_line.check(command.config, {**SHARED_SECTIONS, **experiment.sections})
    set_up_jax()
    try:
        with multihost.joined(command.strings), ExitStack() as stack:
            return _finish(experiment, command, signals, argv, stack)
    except StopRequested as stop:
        print(f"{stop}: stopped; run the same command again to go on.", file=sys.stderr)
        return STOPPED


def _finish(
    experiment: Experiment,
    command: command_line.Command,
    signals: StopSignal,
    argv: Sequence[str],
    stack: ExitStack,
) -> int:
    with multihost.agreed() as facts:
        facts.update(command_line.leaves(json.loads(command.config.to_json())))
        facts.pop("data.data_dir", None)  # a host may keep it elsewhere; what it holds is compared
        facts |= {"code": multihost.code_digest, **provenance.versions(), **command.switches}
        folder = workdir.prepare(command.workdir or os.path.join("runs", command.name))
        if multihost.is_first():  # the others work in its folder
            stack.enter_context(workdir.lock(folder))
        finished = provenance.saved_summary(folder, command.config)
    if finished is not None:
        print(f"{folder} is complete:\n{console.table(finished['evaluations'])}")
        return 0
    with multihost.agreed() as facts:
        run = build(experiment, command.config)
        facts["data"] = lambda: multihost.data_digest(run.dataset)
    words = {"name": command.name, "command": provenance.command_text(argv), **command.switches}
    with memory_explained(run.dataset.batch_size, run.mesh.devices.size):
        summary = train_and_score(run, command.config, folder, signals, **words)
    if summary is None:
        return STOPPED
    print(console.table(summary["evaluations"]))
    print(f"results {folder}/results/summary.json   pictures {folder}/figures/")
    return 0


def train_and_score(
    run: Run,
    config: ConfigDict,
    folder: Path,
    signals: StopSignal,
    *,
    name: str,
    command: str,
    strict_resume: bool = False,
) -> dict[str, Any] | None:
    """Do what is missing of a run in its folder: train from its last checkpoint on, then score.

    Args:
      run: what `build` made of the config.
      config: kept beside the results.
      folder: an existing folder that this process holds.
      signals: asked after each step.
      name: of the run, for its banner.
      command: what a person typed.
      strict_resume: a damaged newest checkpoint is an error.

    Returns:
      The summary that was written, or None if the run was stopped on request and saved.
    """
    with ExitStack() as stack:
        words = {"name": name, "command": command, "strict_resume": strict_resume}
        begun = begin(run, config, folder, stack, **words)
        finished = train_alone(begun, signals, stack)
        begun.checkpointer.wait()
    return conclude(begun, finished)


class Begun(NamedTuple):
    """A run in its folder, at the step that it goes on from."""

    run: Run
    config: ConfigDict
    folder: Path
    checkpointer: Checkpointer
    state: TrainState
    step: int


def begin(
    run: Run,
    config: ConfigDict,
    folder: Path,
    stack: ExitStack,
    *,
    name: str,
    command: str,
    strict_resume: bool = False,
) -> Begun:
    """Read the last checkpoint of a run or make its first state, and say what is about to run.

    Args: those of `train_and_score`, and `stack`, which closes the checkpointer.
    """
    resolved = json.loads(config.to_json())
    abstract = training.abstract_state(run.objective, run.optimizer, run.feed, run.mesh)
    with multihost.agreed() as facts:
        checkpointer = stack.enter_context(
            Checkpointer(folder / "checkpoints", **command_line.as_kwargs(config, "checkpoint"))
        )
        restored = resume.restore(checkpointer, abstract, folder, resolved, strict=strict_resume)
        start = restored.step if restored else 0
        facts |= {"step to start from": start, "holder of the workdir": workdir.holder(folder)}
    state = restored.state if restored else fresh_state(run)
    description = {"config": resolved, "command": command, "versions": provenance.versions()}
    if multihost.is_first():
        workdir.write_json(folder / "config.json", description)
    console.banner(_facts(run, state, folder, start, name))
    return Begun(run, config, folder, checkpointer, state, start)


def conclude(begun: Begun, finished: training.Finished) -> dict[str, Any] | None:
    """Score a run whose training has ended; None if it was stopped before its last step.

    Args:
      begun: of `begin`.
      finished: what its training left.
    """
    run, sha256 = begun.run, digest(finished.state)
    print(f"step {finished.step}, state sha256 {sha256}", flush=True)
    if finished.step < run.plan.steps:
        print(f"stopped after step {finished.step}, saved; run the same command again to go on.")
        return None
    seconds = {"compile": finished.compile_seconds, "training": finished.train_seconds}
    seconds |= {"training_began_at_step": begun.step}
    origin = provenance.of_run(begun.config, finished.step, seconds)
    origin["state_sha256"] = sha256
    return summary.score(run, finished.state, fresh_state(run), begun.folder, origin)


def build(
    experiment: Experiment,
    config: ConfigDict,
    load: Callable[..., data.Dataset] = data.load,
) -> Run:
    """Check the config's values and load its data.

    Args:
      experiment: the family of methods.
      config: checked by `command_line.check`.
      load: `data.load`, or one that keeps what it has loaded.

    Raises:
      ConfigError, ValueError: a value that cannot be run. DataError: no such data.
    """
    mesh = parallel.make_mesh()
    check_batch(config.data.batch_size, mesh)
    experiment.build(config, mesh, 2)  # its checks come before the data is read
    settings = summary.settings(**command_line.as_kwargs(config, "eval"))
    dataset = load(**command_line.as_kwargs(config, "data"))
    steps_per_epoch = dataset.n_train // dataset.batch_size
    plan = training.plan(**command_line.as_kwargs(config, "train"), steps_per_epoch=steps_per_epoch)
    optimizer, schedule = optim.make(
        **command_line.as_kwargs(config, "optimizer"),
        batch_size=dataset.batch_size,
        steps=plan.steps,
        steps_per_epoch=steps_per_epoch,
    )
    objective = experiment.build(config, mesh, len(dataset.class_names))
    views = experiment.views(config)
    feed = data.train_feed(dataset, plan.seed, views.crops)
    init = training.make_init(objective, optimizer, feed, mesh)
    return Run(dataset, mesh, objective, views, optimizer, schedule, feed, init, plan, settings)


def check_batch(batch_size: int, mesh: Mesh) -> None:
    """Refuse a batch that the devices do not divide."""
    devices = mesh.devices.size
    if batch_size < 2:
        raise ConfigError(f"data.batch_size is {batch_size}; a pair loss needs at least 2.")
    if batch_size % devices:
        below, above = batch_size // devices * devices, -(-batch_size // devices) * devices
        nearest = f"{below} or {above}" if below else f"{above}"
        raise ConfigError(
            f"data.batch_size is {batch_size}, which {devices} devices do not divide; "
            f"the nearest that they do: {nearest}."
        )


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


def fresh_state(run: Run) -> TrainState:
    """The state before the first step."""
    return run.init(run.plan.seed)


def train_alone(begun: Begun, signals: StopSignal, stack: ExitStack) -> training.Finished:
    """Train a run from where it stands; `stack` closes what it writes to."""
    run, folder = begun.run, begun.folder
    stack.callback(run.feed.close)
    first = multihost.is_first()
    write, show_step = _sinks(begun, stack) if first else _NOWHERE

    def on_step(step: int) -> None:
        finish_first()
        show_step(step)

    culprits = culprits_kept(run.feed, folder / "nonfinite.json") if first else nullcontext()
    with culprits, signals.deferred() as finish_first:
        return training.run(
            run.objective,
            run.optimizer,
            run.feed,
            begun.state,
            plan=run.plan,
            mesh=run.mesh,
            write=write,
            checkpointer=begun.checkpointer,
            meta=meta(begun),
            evaluators=summary.evaluators(run),
            on_step=on_step,
            stop=parallel.any_process(run.mesh, lambda: signals.requested),
        )


def meta(begun: Begun) -> dict[str, Any]:
    """What a checkpoint says beside the state."""
    return {"config": json.loads(begun.config.to_json()), "machine": resume.machine()}


def _sinks(begun: Begun, stack: ExitStack) -> Sinks:
    """Where rows and steps go: metrics.jsonl, TensorBoard, the terminal."""
    run = begun.run
    progress = console.Progress(begun.step, run.plan.steps, run.dataset.batch_size)
    stack.callback(progress.close)
    return row_writer(begun, stack, progress.on_row), progress.on_step


def row_writer(
    begun: Begun, stack: ExitStack, show: Callable[[int, Mapping[str, float]], None]
) -> Callable[[int, Mapping[str, float]], None]:
    """A function that puts a row into the run's metrics.jsonl and TensorBoard, and shows it."""
    folder, resume = begun.folder, begun.step or None
    rows = stack.enter_context(closing(jsonl.JsonlWriter(folder / "metrics.jsonl", resume)))
    events = tensorboard.TensorBoardWriter(folder / "tensorboard", resume)
    stack.callback(events.close)

    def write(step: int, row: Mapping[str, float]) -> None:
        row = {**row, "learning_rate": float(begun.run.schedule(step - 1))}
        rows.write(step, row)
        events.write(step, row)
        show(step, row)

    return write


def _facts(run: Run, state: TrainState, folder: Path, start: int, name: str) -> dict[str, str]:
    devices = run.mesh.devices.ravel()
    count = sum(p.size for p in jax.tree.leaves(state.params))
    shape = "x".join(map(str, run.dataset.train["image"].shape[1:]))
    batch = run.dataset.batch_size
    return {
        "contrastive_jax": f"{contrastive_jax.__version__}, jax {jax.__version__}",
        "devices": f"{len(devices)} x {devices[0].device_kind}, mesh (data={len(devices)})",
        **multihost.facts(),
        "config": f"{name}, seed {run.plan.seed}",
        "data": f"{run.dataset.name}: {run.dataset.n_train:,} train and "
        f"{len(run.dataset.test['image']):,} test images of {shape}",
        "batch": f"{batch} images, {batch // len(devices)} a device",
        "parameters": f"{count:,}",
        "steps": f"{run.plan.steps:,}" + (f", resumed from step {start:,}" if start else ""),
        "workdir": str(folder),
    }
