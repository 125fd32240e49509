"""Checkpoints that are verified when they are read; the one module that knows Orbax.

A step is one array of bytes, and a sealed JSON manifest of the leaves in it: path, shape, dtype,
place and CRC32, because Orbax restores a flipped byte in array data without a word. One array,
because of many the first that cannot be read leaves the others to fail noisily in the background.
"""

import itertools
import json
import logging
import math
import os
import shutil
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from contrastive_jax.errors import CheckpointError
from contrastive_jax.training.checksums import (
    DamagedError,
    digest,
    named_leaves,
    pack,
    place,
    unpack,
)

__all__ = ["Checkpointer", "Restored", "digest"]
_log = logging.getLogger(__name__)
_CHUNK = 1 << 26  # bytes that are compressed by one thread
_COMMITTED = "commit_success.txt"  # Orbax writes it last: a step without it does not exist


class Restored(NamedTuple):
    """A state that was read back and verified."""

    state: Any
    step: int
    meta: dict[str, Any]
    skipped: list[str]  # one line for each newer step that could not be trusted, and why


class Checkpointer:
    """Saves states in the background and gives back the newest one that can be trusted.

    Keeps the latest `keep` steps, and the best by a metric. The folder is changed by `save` alone:
    the first one removes uncommitted remains and renames damaged steps that `restore` passed over
    to `bad-STEP`, so the process that saves must hold the lock of the workdir.

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
        logging.getLogger("absl").addFilter(_not_from_orbax)
        self._directory = Path(os.path.abspath(directory))  # Orbax fails late on a relative one
        self._every_steps, self._best_metric = every_steps, best_metric
        self._retention = _Retention(keep, 1 if best_mode == "max" else -1, {})
        try:
            self._manager = _open_manager(self._directory, self._retention)
        except Exception as error:
            raise CheckpointError(
                f"Cannot keep checkpoints in {self._directory}: {_brief(error)}."
            ) from error
        self._pending: int | None = None  # the step that is being written
        self._bad: list[int] = []  # damaged steps that restore passed over
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
            state: a pytree of jax arrays, typed keys included, each leaf held whole by this host.
            meta: finite JSON: the config, the versions.
            metrics: finite numbers by name, for `best_metric`.

        Raises:
            ValueError: a leaf is not a jax array, or `meta` or `metrics` are not finite.
            TypeError: `meta` holds something that JSON cannot.
            CheckpointError: an earlier save failed, this one cannot start, or the step is not new.
        """
        data, leaves = pack(state)
        sealed = _seal({"leaves": leaves, "meta": meta, "metrics": _finite(metrics or {})})
        self._finish()
        if self._is_saved(step, leaves):
            return
        self._tidy_up()
        self._set_score(step, sealed["content"]["metrics"])
        try:
            self._manager.save(step, args=_save_args(data, sealed), force=True)
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
        placed = [place(leaves[name], target) for name, target in targets.items()]
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
            f"{_brief(error)}.\nOlder steps are untouched; free some space and run again."
        )

    def _is_saved(self, step: int, leaves: dict[str, Any]) -> bool:
        newest = max(self.steps(), default=-1)
        if step > newest:
            return False
        with suppress(DamagedError):
            if step == newest and self._content(step)["leaves"] == leaves:
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
            _remove_uncommitted(self._directory)
            for step in self._bad:
                _set_aside(self._directory, step)
        multihost_utils.sync_global_devices("checkpoint folder is tidy")
        self._manager.reload()
        self._tidy, self._bad = True, []

    def _set_score(self, step: int, metrics: dict[str, float]) -> None:
        if self._best_metric in metrics:
            self._retention.scores[step] = metrics[self._best_metric]

    def _remember_score(self, step: int) -> None:
        with suppress(DamagedError):  # restore will say so
            self._set_score(step, self._content(step)["metrics"])

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

    def _content(self, step: int) -> dict[str, Any]:
        args = ocp.args.Composite(manifest=ocp.args.JsonRestore())
        try:
            return _unseal(self._manager.restore(step, args=args)["manifest"])
        except Exception as error:
            raise DamagedError(f"its manifest cannot be read ({_brief(error)})") from error

    def _read(self, step: int, targets: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        content = self._content(step)
        _require_same_architecture(content["leaves"], targets, f"{self._directory}/{step}")
        args = ocp.args.Composite(state=ocp.args.StandardRestore())
        try:
            data = self._manager.restore(step, args=args)["state"]["bytes"]
        except Exception as error:
            raise DamagedError(f"its arrays cannot be read ({_brief(error)})") from error
        return unpack(data, content["leaves"], targets), content["meta"]


class _Retention(NamedTuple):
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


def _open_manager(directory: Path, retention: _Retention) -> ocp.CheckpointManager:
    # COMMIT_FILE: the default takes an empty folder named 999 for the latest step
    atomicity = ocp.options.AtomicityOptions(mode=ocp.options.AtomicityMode.COMMIT_FILE)
    options = ocp.CheckpointManagerOptions(
        preservation_policy=retention, atomicity_options=atomicity
    )
    return ocp.CheckpointManager(directory, options=options, item_names=("state", "manifest"))


def _save_args(data: np.ndarray, sealed: dict[str, Any]) -> ocp.args.Composite:
    chunks = {"bytes": ocp.SaveArgs(chunk_byte_size=_CHUNK)}
    state = ocp.args.StandardSave({"bytes": data}, save_args=chunks)
    return ocp.args.Composite(state=state, manifest=ocp.args.JsonSave(sealed))


def _not_from_orbax(record: logging.LogRecord) -> bool:
    """A log filter: what Orbax has to say to a person arrives as a CheckpointError."""
    return f"{os.sep}orbax{os.sep}" not in record.pathname


def _remove_uncommitted(directory: Path) -> None:
    for folder in directory.iterdir():
        parts = ("state", "manifest", "_CHECKPOINT_METADATA")
        ours = any((folder / part).exists() for part in parts)
        if folder.name.isdigit() and ours and not (folder / _COMMITTED).exists():
            shutil.rmtree(folder, ignore_errors=True)


def _set_aside(directory: Path, step: int) -> None:
    names = itertools.chain([f"bad-{step}"], (f"bad-{step}-{n}" for n in itertools.count(2)))
    free = next(name for name in names if not (directory / name).exists())
    os.rename(directory / str(step), directory / free)


def _brief(error: Exception) -> str:
    """One short line; TensorStore's own messages fill pages."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:100]}" if lines else type(error).__name__


def _finite(metrics: Mapping[str, Any]) -> dict[str, float]:
    values = {name: float(value) for name, value in metrics.items()}
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"metric {name!r} of a checkpoint is {value}: leave it out.")
    return values


def _seal(content: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    return {"content": json.loads(text), "crc32": zlib.crc32(text.encode())}


def _unseal(sealed: dict[str, Any]) -> dict[str, Any]:
    if _seal(sealed["content"])["crc32"] != sealed["crc32"]:
        raise ValueError("its checksum differs")
    return sealed["content"]


def _require_same_architecture(specs: dict[str, Any], targets: dict[str, Any], where: str) -> None:
    for name in sorted(specs.keys() | targets.keys()):
        saved, wanted = specs.get(name), targets.get(name)
        saved_as = f"{saved['dtype']}{saved['shape']}" if saved else "absent"
        wanted_as = f"{wanted.dtype}{list(wanted.shape)}" if wanted is not None else "absent"
        if saved_as != wanted_as:
            raise CheckpointError(
                f"{where} is of another architecture:\n"
                f"{name} is {saved_as} in the checkpoint and {wanted_as} in the model.\n"
                "Run with the config of that run, or in another workdir."
            )
