"""A finished run, opened again: what its config stands for, and the state of a checkpoint."""

import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from contrastive_jax import training
from contrastive_jax.errors import CheckpointError, ConfigError
from contrastive_jax.storage import workdir
from contrastive_jax.training.checkpoint import Checkpointer, Restored
from contrastive_jax.types import TrainState
from experiments.run import command_line, lifecycle

STEP_FLAG = {"step": "which checkpoint: a number, latest or best"}


class Finished(NamedTuple):
    """A run and two of its states."""

    run: lifecycle.Run
    step: int
    trained: TrainState
    untrained: TrainState


def folder_of(command: command_line.Command) -> Path:
    """The workdir of the command.

    Raises:
      CheckpointError: it holds no run.
    """
    folder = Path(command.workdir or os.path.join("runs", command.name)).expanduser().absolute()
    if not (folder / "checkpoints").is_dir():
        raise CheckpointError(f"{folder} holds no run; pass --workdir with the folder of one.")
    return folder


def description(folder: Path) -> dict[str, Any]:
    """The config.json of a workdir: its "config", "command" and "versions".

    Raises:
      ConfigError: the folder holds no run.
    """
    path = folder / "config.json"
    found = workdir.read_json(path) if path.is_file() else None
    if not isinstance(found, dict) or not isinstance(found.get("config"), dict):
        raise ConfigError(f"{folder} holds no run: it has no config.json of one.")
    return found


def rebuild(experiment: lifecycle.Experiment, folder: Path) -> tuple[lifecycle.Run, ConfigDict]:
    """The run of a workdir, of the config that it was started with; its data is read.

    Raises:
      ConfigError: no run, or one of another experiment. DataError: no such data.
    """
    config = ConfigDict(description(folder)["config"])
    command_line.check(config, {**lifecycle.SHARED_SECTIONS, **experiment.sections})
    return lifecycle.build(experiment, config), config


def restore(
    experiment: lifecycle.Experiment, command: command_line.Command, folder: Path
) -> Finished:
    """The run of a checked command, at the checkpoint that its --step asks for.

    Raises:
      CheckpointError, ConfigError: there is no such checkpoint, or none that can be read.
    """
    run = lifecycle.build(experiment, command.config)
    restored = checkpoint(run, command.config, folder, command.strings["step"] or "latest")
    return Finished(run, restored.step, restored.state, lifecycle.fresh_state(run))


def checkpoint(run: lifecycle.Run, config: ConfigDict, folder: Path, wanted: str) -> Restored:
    """The checkpoint "latest", "best" or of a step; damaged ones are passed over, with a warning.

    Raises:
      CheckpointError: none can be trusted, or there is none. ConfigError: no such step.
    """
    if not (folder / "checkpoints").is_dir():
        raise CheckpointError(f"{folder} holds no checkpoints; train the run first.")
    settings = command_line.as_kwargs(config, "checkpoint")
    abstract = training.abstract_state(run.objective, run.optimizer, run.feed, run.mesh)
    with Checkpointer(folder / "checkpoints", **settings) as checkpointer:
        restored = checkpointer.restore(abstract, step=_step(wanted, checkpointer))
    if restored is None:
        raise CheckpointError(f"{folder} has no checkpoint yet; train it first.")
    for line in restored.skipped:
        print(f"warning: {line}", file=sys.stderr)
    return restored


def _step(wanted: str, checkpointer: Checkpointer) -> int | None:
    if wanted == "latest":
        return None
    step = checkpointer.best_step() if wanted == "best" else None
    step = int(wanted) if wanted.isdecimal() else step
    if step not in checkpointer.steps():
        raise ConfigError(f"--step {wanted}: the checkpoints are {checkpointer.steps()}.")
    return step
