"""Where the metrics of a run go: metrics.jsonl, TensorBoard, Weights & Biases, the terminal."""

import importlib.util
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

from contrastive_jax.storage.jsonl import JsonlWriter
from contrastive_jax.storage.tensorboard import TensorBoardWriter
from contrastive_jax.storage.wandb import WandbWriter


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
    folder: Path,
    chosen: Settings,
    *,
    resume_step: int | None,
    name: str,
    config: Mapping[str, Any],
    stack: ExitStack,
) -> Callable[[int, Mapping[str, float]], None]:
    """Open the writers of a run; `stack` closes them.

    Args:
      folder: the workdir.
      chosen: of `settings`.
      resume_step: rows after it are removed; None starts anew.
      name, config: of the run, for W&B.
      stack: closes the writers.

    Returns:
      A function (step, row) that writes a row to all of them.
    """
    path = folder / "metrics.jsonl"
    writers: list[Any] = [stack.enter_context(closing(JsonlWriter(path, resume_step)))]
    if chosen.tensorboard:
        events = TensorBoardWriter(folder / "tensorboard", resume_step)
        writers.append(stack.enter_context(closing(events)))
    if chosen.wandb is not None:
        online = WandbWriter(folder, name, config, chosen.wandb)
        writers.append(stack.enter_context(closing(online)))

    def write(step: int, row: Mapping[str, float]) -> None:
        for writer in writers:
            writer.write(step, row)

    return write
