"""Write the metrics of a run to Weights & Biases (an optional extra: pip install wandb)."""

import logging
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from contrastive_jax.errors import ConfigError
from contrastive_jax.storage import workdir
from contrastive_jax.storage._scalars import scalars

ID_FILE = "wandb_id"  # in the folder of the run
_PATIENCE = 30.0  # seconds for W&B to answer, at the start and at the end

_log = logging.getLogger(__name__)


class WandbWriter:
    """Write scalars to one W&B run for each folder; a resumed run goes on in the same one.

    A sink that fails warns once and is dropped: training goes on. Rows are sent in the background
    by W&B; where there is no network, set WANDB_MODE=offline and upload them later with
    `wandb sync`, else the start and the end wait half a minute each.

    Args:
      folder: of the run; it keeps the id of the W&B run and the files of W&B.
      name: of the run, as W&B shows it.
      config: of the run, finite JSON.
      project: of W&B.
      mode: "online", "offline" or "disabled"; None follows WANDB_MODE, else "online".

    Raises:
      ConfigError: wandb is not installed.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        name: str,
        config: Mapping[str, Any],
        project: str,
        mode: str | None = None,
    ):
        wandb = _package(project)
        self._run: Any = None
        self._next = 0
        try:
            self._run = wandb.init(
                project=project,
                name=name,
                id=_identity(Path(folder)),
                resume="allow",
                config=dict(config),
                dir=os.fspath(folder),
                mode=mode,
                settings=wandb.Settings(
                    console="off",  # the terminal stays as it is
                    init_timeout=_PATIENCE,
                    login_timeout=_PATIENCE,
                    finish_timeout=_PATIENCE,
                ),
            )
            self._next = self._run.step  # 0, or the one after the last that W&B has
        except Exception as error:
            self._drop(error)

    def write(self, step: int, row: Mapping[str, Any]) -> None:
        """Send the scalars of `step`, unless W&B has them from before the run was resumed."""
        numbers = scalars(row)
        if self._run is None or step < self._next:
            return
        try:
            self._run.log(numbers, step=step, commit=True)
            self._next = step + 1
        except Exception as error:
            self._drop(error)

    def close(self) -> None:
        """Finish the W&B run; again is harmless."""
        run, self._run = self._run, None
        if run is not None:
            with suppress(Exception):
                run.finish()

    def _drop(self, error: Exception) -> None:
        message = str(error).partition("\n")[0] or type(error).__name__
        _log.warning("Logging to W&B stops here (%s); metrics.jsonl goes on.", message)
        self.close()


def _package(project: str) -> Any:
    """Import wandb."""
    try:
        import wandb
    except ImportError as error:
        raise ConfigError(
            f"Logging to the W&B project {project!r} needs a package that is not installed.\n"
            "Run: pip install wandb"
        ) from error
    return wandb


def _identity(folder: Path) -> str:
    """Return the id of the folder's W&B run, made at the first call."""
    file = folder / ID_FILE
    if not file.exists():
        workdir.write_text(file, secrets.token_hex(8))
    return file.read_text().strip()
