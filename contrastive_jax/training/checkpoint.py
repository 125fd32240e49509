"""Checkpoints that are verified when they are read, and fall back to an older one that is sound.

A step is the tree of the state's arrays, which Orbax alone can open, beside a sealed JSON manifest
of its leaves: path, shape, dtype and CRC32, because Orbax restores a flipped byte in array data
without a warning. What is in the files, and what was measured: docs/checkpoints.md.
"""

import logging
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from contrastive_jax.errors import CheckpointError
from contrastive_jax.training.checksums import digest, host_array, named_leaves
from contrastive_jax.training.manifest import (
    DamagedError,
    entry,
    require_same_architecture,
    seal,
    split_bytes,
    verified,
)
from contrastive_jax.training.orbax_store import (
    Retention,
    brief,
    open_manager,
    read_arrays,
    read_manifest,
    remove_uncommitted,
    save_args,
    set_aside,
    silence_orbax,
)

__all__ = ["Checkpointer", "Restored", "digest"]
_log = logging.getLogger(__name__)


class Restored(NamedTuple):
    """A state that was read back and verified."""

    state: Any
    step: int
    meta: dict[str, Any]
    skipped: list[str]  # one line for each newer step that could not be trusted, and why


class Checkpointer:
    """Saves states in the background and gives back the newest one that can be trusted.

    Keeps the latest `keep` steps, and the best by a metric. The folder is changed by `save` alone:
    the first one removes uncommitted remains and renames damaged steps that `restore` skipped to
    `bad-STEP`, so the process that saves must hold the lock of the workdir.

    Args:
      directory: where the steps go; made if need be.
      every_steps: when a step is `due`; None for never.
      keep: how many of the latest steps to keep.
      best_metric: a name in the `metrics` of `save`; a step without it is never the best.
      best_mode: "max" or "min"; of equals, the later is the better.

    Raises:
      CheckpointError: from any method; a save that failed in the background is reported by the
        next `save`, `wait`, `restore` or `close`.

    Example:
      >>> import tempfile
      >>> import jax.numpy as jnp
      >>> state = {"step": jnp.int32(3), "w": jnp.ones([2])}
      >>> with tempfile.TemporaryDirectory() as folder, Checkpointer(folder) as checkpointer:
      ...     checkpointer.save(3, state, meta={"seed": 0})
      ...     saved = checkpointer.wait()
      ...     restored = checkpointer.restore(jax.eval_shape(lambda: state))
      >>> saved, restored.meta, digest(restored.state) == digest(state)
      (3, {'seed': 0}, True)
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        every_steps: int | None = None,
        keep: int = 2,
        best_metric: str | None = None,
        best_mode: str = "max",
    ):
        counts = [keep] if every_steps is None else [keep, every_steps]
        if min(counts) < 1 or best_mode not in ("max", "min"):
            raise ValueError(
                f"every_steps={every_steps}, keep={keep}, best_mode={best_mode!r}: "
                "both numbers must be 1 or more, and the mode 'max' or 'min'."
            )
        silence_orbax()
        self._directory = Path(os.path.abspath(directory))  # Orbax fails late on a relative one
        self._every_steps, self._best_metric = every_steps, best_metric
        self._retention = Retention(keep, 1 if best_mode == "max" else -1, {})
        try:
            self._manager = open_manager(self._directory, self._retention)
        except Exception as error:
            raise CheckpointError(
                f"Cannot keep checkpoints in {self._directory}: {brief(error)}."
            ) from error
        self._pending: int | None = None  # the step that is being written
        self._bad: list[int] = []  # damaged steps that restore skipped
        self._tidy = self._closed = False
        for step in self.steps() if best_metric else []:
            self._remember_score(step)

    def due(self, step: int) -> bool:
        """Whether `step` is a multiple of `every_steps`."""
        return self._every_steps is not None and step % self._every_steps == 0

    def save(
        self,
        step: int,
        state: Any,
        *,
        meta: Mapping[str, Any],
        metrics: Mapping[str, Any] | None = None,
    ) -> None:
        """Copy the state to the host and write it in the background.

        The device buffers are free for donation on return, but nothing is saved before `wait`.
        Saving the newest step again with the same bits does nothing.

        Args:
          step: after all steps so far.
          state: a pytree of jax arrays, typed keys included, each leaf addressable by this process.
          meta: finite JSON: the config, the versions.
          metrics: finite numbers by name, for `best_metric`.

        Raises:
          ValueError: a leaf is not a jax array, or `meta` or `metrics` are not finite.
          TypeError: `meta` holds something that JSON cannot.
          CheckpointError: an earlier save failed, this one cannot start, or the step is not new.
        """
        named = named_leaves(state)
        arrays = {name: host_array(leaf) for name, leaf in named.items()}
        leaves = {name: entry(leaf, arrays[name]) for name, leaf in named.items()}
        sealed = seal({"leaves": leaves, "meta": meta, "metrics": _finite(metrics or {})})
        self._finish()
        if self._is_saved(step, leaves):
            return
        self._tidy_up()
        self._set_score(step, sealed["content"]["metrics"])
        try:
            self._manager.save(step, args=save_args(state, arrays, sealed), force=True)
        except Exception as error:
            raise self._save_error(step, error) from error
        self._pending = step

    def wait(self) -> int | None:
        """Block until the last save is committed; the newest committed step, None for none."""
        self._finish()
        return max(self.steps(), default=None)

    def steps(self) -> list[int]:
        """The committed steps in order, without those found damaged or still being written."""
        hidden = {*self._bad, self._pending}
        return sorted(step for step in self._manager.all_steps() if step not in hidden)

    def best_step(self) -> int | None:
        """The committed step with the best `best_metric`, None when no step has one."""
        return self._retention.best(self.steps())

    def restore(
        self, abstract_state: Any, *, step: int | None = None, strict: bool = False
    ) -> Restored | None:
        """Read the newest step that passes verification, or the named one; None when there is none.

        Args:
          abstract_state: the wanted pytree, as jax.ShapeDtypeStruct or arrays. Its structure,
            dtypes, weak types and shardings are those of the result; leaves without a
            sharding go to the default device.
          step: this step and no other.
          strict: raise for a damaged step rather than fall back to an older one.

        Raises:
          CheckpointError: no step can be trusted, the named one is missing or damaged, or the
            checkpoint is of another architecture.
        """
        self._finish()
        targets, steps = named_leaves(abstract_state), self.steps()
        if step is not None and step not in steps:
            raise CheckpointError(f"No checkpoint of step {step} in {self._directory}: {steps}.")
        if not steps:
            return None
        candidates = steps[::-1] if step is None else [step]
        found, leaves, meta, skipped = self._first_good(
            candidates[: 1 if strict else None], targets
        )
        placed = [_place(leaves[name], target) for name, target in targets.items()]
        state = jax.tree.unflatten(jax.tree.structure(abstract_state), placed)
        return Restored(state, found, meta, skipped)

    def close(self) -> None:
        """Wait for the last save and let go; again is harmless."""
        if self._closed:
            return
        try:
            self._finish()
        finally:
            self._closed = True
            self._manager.close()  # raises no failure a second time

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except CheckpointError as failure:
            if error is None:
                raise
            _log.error("%s", failure)  # what ended the run matters more

    def _finish(self) -> None:
        if self._closed:
            raise CheckpointError(f"The checkpointer of {self._directory} is closed.")
        step, self._pending = self._pending, None
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except Exception as error:
            self._manager.reload()  # older steps that the failed save would have replaced
            raise self._save_error(step, error) from error

    def _save_error(self, step: int | None, error: Exception) -> CheckpointError:
        return CheckpointError(
            f"The checkpoint of step {step} was not saved in {self._directory}:\n"
            f"{brief(error)}.\nOlder steps are untouched; free some space and run again."
        )

    def _is_saved(self, step: int, leaves: dict[str, Any]) -> bool:
        newest = max(self.steps(), default=-1)
        if step > newest:
            return False
        with suppress(DamagedError):
            if step == newest and read_manifest(self._manager, step)["leaves"] == leaves:
                return True
        raise CheckpointError(
            f"Step {step} is not after step {newest}, the newest in {self._directory}.\n"
            "Save later steps, or use another workdir for another run."
        )

    def _tidy_up(self) -> None:
        """Before the first save: uncommitted remains go, damaged steps are set aside."""
        if self._tidy and not self._bad:
            return
        if jax.process_index() == 0:
            remove_uncommitted(self._directory)
            for step in self._bad:
                set_aside(self._directory, step)
        multihost_utils.sync_global_devices("checkpoint folder is tidy")
        self._manager.reload()
        self._tidy, self._bad = True, []

    def _set_score(self, step: int, metrics: dict[str, float]) -> None:
        if self._best_metric in metrics:
            self._retention.scores[step] = metrics[self._best_metric]

    def _remember_score(self, step: int) -> None:
        with suppress(DamagedError):  # restore will say so
            self._set_score(step, read_manifest(self._manager, step)["metrics"])

    def _first_good(
        self, candidates: Sequence[int], targets: dict[str, Any]
    ) -> tuple[int, dict[str, Any], dict[str, Any], list[str]]:
        reasons: dict[int, str] = {}
        for step in candidates:
            try:
                leaves, meta = self._read(step, targets)
            except DamagedError as error:
                reasons[step] = f"step {step}: {error}"
                continue
            self._bad.extend(reasons)
            return step, leaves, meta, list(reasons.values())
        raise CheckpointError(
            f"No trusted checkpoint in {self._directory}:\n{'; '.join(reasons.values())}.\n"
            "Nothing was deleted: repair it, allow older steps, or use another workdir."
        )

    def _read(self, step: int, targets: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        content = read_manifest(self._manager, step)
        entries = content["leaves"]
        require_same_architecture(entries, targets, f"{self._directory}/{step}")
        arrays = read_arrays(self._manager, step)
        if any("start" in e for e in entries.values()):
            arrays = split_bytes(arrays.get("bytes"), entries, targets)
        leaves = {
            name: verified(name, arrays.get(name), entries[name], target)
            for name, target in targets.items()
        }
        return leaves, content["meta"]


def _finite(metrics: Mapping[str, Any]) -> dict[str, float]:
    values = {name: float(value) for name, value in metrics.items()}
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"metric {name!r} of a checkpoint is {value}: leave it out.")
    return values


def _place(value: Any, target: Any) -> jax.Array:
    """A leaf on the target's devices, and uncommitted or weakly typed where the target is."""
    if getattr(target, "weak_type", False):
        weak = jnp.full(target.shape, np.zeros([], target.dtype).item())
        value = weak.at[...].set(value) if weak.dtype == target.dtype else value
    sharding = target.sharding if getattr(target, "committed", True) else None
    if sharding is None or sharding.is_fully_addressable:
        return jax.device_put(value, sharding)
    # device_put would compile a comparison between the processes for each shape
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])
