"""A finished run, opened again: what its config stands for, and the state of a checkpoint."""

import os
import sys
from pathlib import Path
from typing import NamedTuple

from contrastive_jax import train
from contrastive_jax.checkpoint import Checkpointer, Restored
from contrastive_jax.errors import CheckpointError, ConfigError
from contrastive_jax.types import TrainState
from experiments import command_line, launch

STEP_FLAG = {"step": "which checkpoint: a number, latest or best"}


class Finished(NamedTuple):
    """A run and two of its states."""

    run: launch.Run
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


def restore(experiment: launch.Experiment, command: command_line.Command, folder: Path) -> Finished:
    """The run of a checked command, at the checkpoint that its --step asks for.

    Raises:
      CheckpointError, ConfigError: there is no such checkpoint, or none that can be read.
    """
    run = launch.build(experiment, command.config)
    restored = _read(run, command, folder)
    return Finished(run, restored.step, restored.state, launch.fresh_state(run))


def _read(run: launch.Run, command: command_line.Command, folder: Path) -> Restored:
    settings = command_line.as_kwargs(command.config, "checkpoint")
    abstract = train.abstract_state(run.objective, run.optimizer, run.feed, run.mesh)
    with Checkpointer(folder / "checkpoints", **settings) as checkpointer:
        step = _step(command.strings["step"] or "latest", checkpointer)
        restored = checkpointer.restore(abstract, step=step)
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
