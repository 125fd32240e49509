"""A run brought back from its folder: its config, its data, one of its checkpoints."""

import sys
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from contrastive_jax import train, workdir
from contrastive_jax.checkpoint import Checkpointer, Restored
from contrastive_jax.errors import CheckpointError, ConfigError
from experiments import command_line, launch
from experiments.simclr import EXPERIMENT


def description(folder: Path) -> dict[str, Any]:
    """The run's config.json: its "config", "command" and "versions".

    Raises:
      ConfigError: the folder holds no run.
    """
    path = folder / "config.json"
    found = workdir.read_json(path) if path.is_file() else None
    if not isinstance(found, dict) or not isinstance(found.get("config"), dict):
        raise ConfigError(f"{folder} holds no run: it has no config.json of one.")
    return found


def rebuild(folder: Path) -> tuple[launch.Run, ConfigDict]:
    """The run of a folder, from the config that it was started with; its data is read.

    Raises:
      ConfigError: no run, or one of a method that is not SimCLR's. DataError: no such data.
    """
    config = ConfigDict(description(folder)["config"])
    command_line.check(config, {**launch.SHARED_SECTIONS, **EXPERIMENT.sections})
    return launch.build(EXPERIMENT, config), config


def checkpoint(run: launch.Run, config: ConfigDict, folder: Path, wanted: str) -> Restored:
    """The checkpoint "latest", "best" or of a step; damaged ones are passed over, with a warning.

    Raises:
      CheckpointError: none can be trusted, or there is none. ConfigError: no such step.
    """
    if not (folder / "checkpoints").is_dir():
        raise CheckpointError(f"{folder} holds no checkpoints; train the run first.")
    abstract = train.abstract_state(run.objective, run.optimizer, run.feed, run.mesh)
    settings = command_line.as_kwargs(config, "checkpoint")
    with Checkpointer(folder / "checkpoints", **settings) as checkpointer:
        step = _step(wanted, checkpointer)
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
