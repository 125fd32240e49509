"""From a config to a run: what a method and a kind of data make of it, before any device works."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from contrastive_jax import frozen, parallel, training
from contrastive_jax.data import Dataset
from contrastive_jax.errors import ConfigError
from contrastive_jax.parallel import Mesh
from contrastive_jax.training import optim
from contrastive_jax.training.checkpoint import Checkpointer
from contrastive_jax.types import Feed, Objective, RunInfo, TrainState
from experiments.run import command_line, sinks
from experiments.run.sections import Sections, as_kwargs, takes

SHARED_SECTIONS: Sections = {
    "optimizer": takes(
        optim.make,
        without=("batch_size", "steps", "steps_per_epoch", "auxiliary", "constant_rate"),
    ),
    "train": takes(training.plan, without=("steps_per_epoch",)),
    "parallel": takes(parallel.make_mesh, without=("devices",)),
    "checkpoint": takes(Checkpointer, without=("directory",)),
    "log": takes(sinks.settings),
}


class Kind(NamedTuple):
    """A kind of data: how it is read, fed and scored, whatever the method."""

    unit: str  # of progress: "images"
    sections: Sections  # of the data, and of how it is shown and scored
    load: Callable[[ConfigDict], Dataset]
    stand_in: Callable[[ConfigDict, Mapping[str, Any]], Dataset]  # zeros of a recorded identity
    feed: Callable[[ConfigDict, Dataset, int], Feed]  # (config, dataset, seed)
    check: Callable[["Run"], list[str]]  # before the first step: what will be left out, and why
    describe: Callable[["Run"], str]  # the data, in a line
    evaluators: Callable[["Run"], list[training.Evaluator]]
    score: Callable[..., dict[str, Any]]  # scores, writes and draws; see scoring/summary.py
    # what replaces a part of the state between steps
    refresh: Callable[["Run"], training.Refresh | None] = lambda run: None
    # what the folder keeps beside the checkpoints, written before the first step
    keep: Callable[["Run", Path], None] = lambda run, folder: None


class Experiment(NamedTuple):
    """A method on a kind of data: the sections of its configs and how they become an objective."""

    name: str
    usage: str
    sections: Sections  # beside the shared ones and those of the data
    build: Callable[[ConfigDict, RunInfo], Objective]
    kind: Kind
    # what files that a config names decide, filled in; before anything reads it
    resolve: Callable[[ConfigDict], ConfigDict] = lambda config: config
    # without what only training needs; a finished run is scored with it
    to_score: Callable[[ConfigDict], ConfigDict] = lambda config: config

    def all_sections(self) -> Sections:
        """Every section of a config."""
        return {**SHARED_SECTIONS, **self.kind.sections, **self.sections}


class Outputs(NamedTuple):
    """The names of what an objective gives."""

    layers: tuple[str, ...]  # of its embeddings: "features", "embedding"
    metrics: tuple[str, ...]  # of a step


class Run(NamedTuple):
    """Everything a config stands for."""

    experiment: Experiment
    config: ConfigDict
    dataset: Dataset
    mesh: Mesh
    objective: Objective
    outputs: Outputs
    optimizer: optax.GradientTransformation
    schedule: Callable[[int], Any]
    feed: Feed
    init: Callable[[int], TrainState]  # a fresh state of a seed
    plan: training.Plan

    def fresh_state(self) -> TrainState:
        """The state before the first step."""
        return self.init(self.plan.seed)

    def abstract_state(self) -> TrainState:
        """Shapes, dtypes and shardings of the state: what a restore needs."""
        return training.abstract_state(self.objective, self.optimizer, self.feed, self.mesh)

    def lowered_step(self) -> Any:
        """The step that training compiles, for the mesh, whose devices need not be there."""
        return training.lowered_step(self.objective, self.optimizer, self.feed, self.mesh)


def build(
    experiment: Experiment,
    config: ConfigDict,
    load: Callable[[ConfigDict], Dataset] | None = None,
    devices: Sequence[Any] | None = None,
) -> Run:
    """Check the values of a config and load its data.

    Args:
      experiment: the method.
      config: complete, see `sections.complete`.
      load: in place of the kind's own: one that keeps what it has loaded.
      devices: to train on, all that JAX has by default; those of a topology can be compiled for.

    Raises:
      ConfigError: a value that cannot be run. DataError: no such data.
    """
    mesh = make_mesh(config, devices)
    with command_line.bad_values():
        dataset = (load or experiment.kind.load)(config)
        steps_per_epoch = dataset.steps_per_epoch
        plan = training.plan(**as_kwargs(config, "train"), steps_per_epoch=steps_per_epoch)
        check_chunks(plan.chunk_size, dataset.batch_size, mesh)
        sizes = {"n_tokens": dataset.n_tokens, "chunk_size": plan.chunk_size}
        info = RunInfo(mesh, plan.steps, len(dataset.class_names), **sizes)
        if dataset.texts is not None:
            info = info._replace(**dataset.texts.for_objectives())
        objective = frozen.freeze(experiment.build(config, info), config.optimizer.frozen)
        if objective.chunk_size != plan.chunk_size:
            raise ValueError(f"{experiment.name} does not encode in chunks; leave train.chunk_size")
        optimizer, schedule = optim.make(
            **as_kwargs(config, "optimizer"),
            batch_size=dataset.batch_size,
            steps=plan.steps,
            steps_per_epoch=steps_per_epoch,
            auxiliary=objective.auxiliary,
            constant_rate=objective.constant_rate,
        )
        feed = experiment.kind.feed(config, dataset, plan.seed)
        outputs = _trace(objective, feed)
    init = training.make_init(objective, optimizer, feed, mesh)
    made = objective, outputs, optimizer, schedule, feed, init, plan
    return Run(experiment, config, dataset, mesh, *made)


def _trace(objective: Objective, feed: Feed) -> Outputs:
    """Trace the objective on abstract values: what it refuses is refused before training.

    Raises:
      ValueError: of the objective.
    """
    batch, key = training.batch_spec(feed), jax.eval_shape(lambda: jax.random.key(0))
    params, model_state = jax.eval_shape(objective.init, key, batch)
    step = jax.ShapeDtypeStruct((), jnp.int32)
    _, out = jax.eval_shape(objective.loss, params, model_state, batch, key, step)
    embedded = [jax.eval_shape(f, params, model_state, batch) for f in objective.embed.values()]
    layers = tuple(dict.fromkeys(layer for outputs in embedded for layer in outputs))
    return Outputs(layers, tuple(out.metrics))


def with_seed(run: Run, config: ConfigDict) -> Run:
    """The same run with the seed of another config; it shares the compiled programs."""
    plan = run.plan._replace(seed=config.train.seed)
    feed = run.experiment.kind.feed(config, run.dataset, plan.seed)
    return run._replace(config=config, plan=plan, feed=feed)


def make_mesh(config: ConfigDict, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh of these devices, all by default.

    Raises:
      ConfigError: JAX was asked for a platform that is not there, or for parts of no such number.
    """
    try:
        with command_line.bad_values():
            return parallel.make_mesh(devices, **as_kwargs(config, "parallel"))
    except RuntimeError as error:
        asked = jax.config.jax_platforms or "the devices of this machine"
        raise ConfigError(
            f"JAX cannot use {asked}: {str(error).splitlines()[0][:200]}\n"
            'Unset JAX_PLATFORMS, or install jax for it, such as pip install "jax[cuda13]".'
        ) from error


def check_batch(batch_size: int, mesh: Mesh) -> None:
    """Refuse a batch that the devices do not divide.

    Raises:
      ValueError: naming the nearest that they do.
    """
    devices = mesh.devices.size
    if batch_size < 2:
        raise ValueError(f"data.batch_size is {batch_size}; a pair loss needs at least 2.")
    if batch_size % devices:
        below, above = batch_size // devices * devices, -(-batch_size // devices) * devices
        nearest = f"{below} or {above}" if below else f"{above}"
        raise ValueError(
            f"data.batch_size is {batch_size}, which {devices} devices do not divide; "
            f"the nearest that they do: {nearest}."
        )


def check_chunks(chunk_size: int | None, batch_size: int, mesh: Mesh) -> None:
    """Refuse chunks that do not divide the batch, or that the devices do not divide.

    Raises:
      ValueError: naming both numbers.
    """
    if chunk_size is None:
        return
    if chunk_size < 1 or batch_size % chunk_size:
        raise ValueError(
            f"train.chunk_size is {chunk_size} and data.batch_size {batch_size}; "
            "give a chunk size that divides the batch."
        )
    if chunk_size % mesh.devices.size:
        raise ValueError(
            f"train.chunk_size is {chunk_size}, which {mesh.devices.size} devices do not divide; "
            "give a multiple of their number."
        )


def banner(run: Run, state: TrainState, start: int, about: Mapping[str, str]) -> dict[str, str]:
    """Summarize a run for the terminal, a line each."""
    devices = run.mesh.devices.ravel()
    count = sum(p.size for p in jax.tree.leaves(state.params))
    batch, unit = run.dataset.batch_size, run.experiment.kind.unit
    steps = f"{run.plan.steps:,}" + (f", resumed from step {start:,}" if start else "")
    return {
        "devices": f"{len(devices)} x {devices[0].device_kind}, mesh ({_axes(run.mesh)})",
        **about,
        "method": run.experiment.name,
        "batch": f"{batch} {unit}, {batch // len(devices)} a device",
        "parameters": f"{count:,}",
        "steps": steps,
    }


def _axes(mesh: Mesh) -> str:
    return ", ".join(f"{name}={size}" for name, size in mesh.shape.items())
