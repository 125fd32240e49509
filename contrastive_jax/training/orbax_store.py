"""How Orbax stores a step: the tree of arrays and the manifest, committed or not there at all."""

import functools
import itertools
import logging
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from contrastive_jax.training.checksums import by_path
from contrastive_jax.training.manifest import DamagedError, unseal

_COMMITTED = "commit_success.txt"  # Orbax writes it last: a step without it does not exist


class Retention(NamedTuple):
    """Orbax's preservation policy: the latest steps and the best one."""

    latest: int
    sign: int
    scores: dict[int, float]

    def best(self, steps: Sequence[int]) -> int | None:
        scored = [step for step in steps if step in self.scores]
        return max(scored, key=lambda step: (self.sign * self.scores[step], step), default=None)

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = {*sorted(steps)[-self.latest :], self.best(steps)}
        return [step in kept for step in steps]


def open_manager(directory: Path, retention: Retention) -> ocp.CheckpointManager:
    # COMMIT_FILE: the default takes an empty folder named 999 for the latest step
    atomicity = ocp.options.AtomicityOptions(mode=ocp.options.AtomicityMode.COMMIT_FILE)
    options = ocp.CheckpointManagerOptions(
        preservation_policy=retention, atomicity_options=atomicity
    )
    # Float noise compressed by zstd is 8 % smaller, and takes 2.5 times as long to restore
    handlers: dict[str, Any] = {
        "state": ocp.PyTreeCheckpointHandler(use_compression=False),
        "manifest": ocp.JsonCheckpointHandler(),
    }
    return ocp.CheckpointManager(directory, options=options, item_handlers=handlers)


def save_args(
    state: Any, arrays: Mapping[str, np.ndarray], sealed: dict[str, Any]
) -> ocp.args.Composite:
    """The state's tree with host arrays as its leaves, and the manifest.

    Arrays of the host are copied by Orbax before `save` returns, written by one process, and
    restored on any machine without its devices being named. Orbax refuses arrays without elements.
    """
    leaves = [array if array.size else None for array in arrays.values()]
    tree = jax.tree.unflatten(jax.tree.structure(state), leaves)
    return ocp.args.Composite(state=ocp.args.PyTreeSave(tree), manifest=ocp.args.JsonSave(sealed))


def read_manifest(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    """The content of a step's manifest; DamagedError if its seal is broken."""
    args = ocp.args.Composite(manifest=ocp.args.JsonRestore())
    try:
        return unseal(manager.restore(step, args=args)["manifest"])
    except Exception as error:
        raise DamagedError(f"its manifest cannot be read ({brief(error)})") from error


def read_arrays(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    """The arrays of a step by path, on the host, not verified; DamagedError if one is lost."""
    args = ocp.args.Composite(state=ocp.args.PyTreeRestore())
    try:
        return by_path(manager.restore(step, args=args)["state"])
    except Exception as error:
        raise DamagedError(f"its arrays cannot be read ({brief(error)})") from error


def remove_uncommitted(directory: Path) -> None:
    for folder in directory.iterdir():
        parts = ("state", "manifest", "_CHECKPOINT_METADATA")
        ours = any((folder / part).exists() for part in parts)
        if folder.name.isdigit() and ours and not (folder / _COMMITTED).exists():
            shutil.rmtree(folder, ignore_errors=True)


def set_aside(directory: Path, step: int) -> None:
    names = itertools.chain([f"bad-{step}"], (f"bad-{step}-{n}" for n in itertools.count(2)))
    free = next(name for name in names if not (directory / name).exists())
    os.rename(directory / str(step), directory / free)


def brief(error: Exception) -> str:
    """One short line; TensorStore's own messages are very long."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:100]}" if lines else type(error).__name__


def silence_orbax() -> None:
    """Orbax's failures reach a person as CheckpointError; what it prints besides is dropped."""
    logging.getLogger("absl").addFilter(_not_from_orbax)
    if getattr(sys.unraisablehook, "func", None) is not _drop_late_results:
        sys.unraisablehook = functools.partial(_drop_late_results, sys.unraisablehook)


def _not_from_orbax(record: logging.LogRecord) -> bool:
    return f"{os.sep}orbax{os.sep}" not in record.pathname


def _drop_late_results(report: Callable[[Any], Any], unraisable: Any) -> None:
    """Report an unraisable exception, unless it is TensorStore's, of a result that came too late.

    Orbax closes its event loop at the first array that fails; each of the others then fails to
    call `call_soon_threadsafe`, the outermost frame because C++ calls it, with six lines on stderr.
    """
    trace, error = unraisable.exc_traceback, unraisable.exc_value
    caller = trace.tb_frame.f_code.co_name if trace else ""
    if caller != "call_soon_threadsafe" or str(error) != "Event loop is closed":
        report(unraisable)
