"""Where the metrics of a run go: metrics.jsonl, TensorBoard, Weights & Biases, the terminal."""

import importlib.util
import json
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from contrastive_jax.storage.jsonl import JsonlWriter
from contrastive_jax.storage.tensorboard import TensorBoardWriter
from contrastive_jax.storage.wandb import WandbWriter
from experiments.run.sections import as_kwargs


class Settings(NamedTuple):
    """Which writers a run has beside metrics.jsonl."""

    tensorboard: bool
    wandb: str | None


def settings(tensorboard: bool = True, wandb: str | None = None) -> Settings:
    """Choose the writers, by the keys of the config's `log`.

    Args:
      tensorboard: write events where tensorboardX is installed.
      wandb: the Weights & Biases project to log to, None for none.

    Raises:
      ValueError: W&B is asked for and not installed.
    """
    if wandb is not None and importlib.util.find_spec("wandb") is None:
        raise ValueError(f"log.wandb is {wandb!r}, but wandb is not installed: pip install wandb")
    return Settings(tensorboard, wandb)


def open_writers(
    folder: Path, config: ConfigDict, name: str, resume_step: int | None
) -> list[JsonlWriter | TensorBoardWriter | WandbWriter]:
    """Open the writers of a run, which have `write(step, row)` and `close()`.

    Rows after `resume_step`, left by a run that was cut off, are removed; None starts anew.
    """
    chosen = settings(**as_kwargs(config, "log"))
    writers: list[Any] = [JsonlWriter(folder / "metrics.jsonl", resume_step)]
    if chosen.tensorboard:
        writers.append(TensorBoardWriter(folder / "tensorboard", resume_step))
    if chosen.wandb is not None:
        writers.append(WandbWriter(folder, name, json.loads(config.to_json()), chosen.wandb))
    return writers
