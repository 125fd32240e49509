"""Write the metrics of a run to Weights & Biases (an optional extra: pip install wandb)."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contrastive_jax.errors import ConfigError
from contrastive_jax.storage import workdir
from contrastive_jax.storage._sink import Sink

ID_FILE = "wandb_id"  # in the folder of the run
_PATIENCE = 30.0  # seconds for W&B to answer, at the start and at the end


class WandbWriter(Sink):
    """Write scalars to one W&B run for each folder; a resumed run goes on in the same one.

    Rows are sent in the background by W&B; where there is no network, set WANDB_MODE=offline and
    upload them later with `wandb sync`, else the start and the end wait half a minute each.

    Args:
      folder: of the run; it keeps the id of the W&B run and the files of W&B.
      name: of the run, as W&B shows it.
      config: of the run, finite JSON.
      project: of W&B.

    Raises:
      ConfigError: wandb is not installed.
    """

    name = "Logging to W&B"

    def __init__(
        self, folder: str | os.PathLike[str], name: str, config: Mapping[str, Any], project: str
    ):
        try:
            import wandb as package
        except ImportError as error:
            raise ConfigError(
                f"Logging to the W&B project {project!r} needs a package that is not installed.\n"
                "Run: pip install wandb"
            ) from error
        wandb: Any = package
        patience = ("init_timeout", "login_timeout", "finish_timeout")
        try:
            client: Any = wandb  # whose attributes a checker without the package does not know
            self._target = client.init(
                project=project,
                name=name,
                id=_identity(Path(folder)),
                resume="allow",
                config=dict(config),
                dir=os.fspath(folder),
                settings=client.Settings(  # the terminal stays as it is
                    console="off", **dict.fromkeys(patience, _PATIENCE)
                ),
            )
            self._next = self._target.step  # 0, or the one after the last that W&B has
        except Exception as error:
            self._drop(error)

    def _send(self, step: int, numbers: Mapping[str, int | float]) -> None:
        if step >= self._next:  # else W&B has it from before the run was resumed
            self._target.log(numbers, step=step, commit=True)
            self._next = step + 1

    def _finish(self, target: Any) -> None:
        target.finish()


def _identity(folder: Path) -> str:
    """Return the id of the folder's W&B run, made at the first call."""
    file = folder / ID_FILE
    if not file.exists():
        workdir.write_text(file, secrets.token_hex(8))
    return file.read_text().strip()
