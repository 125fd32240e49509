"""Break the code on purpose, one way for each row: its tests have to fail then.

python -m pytest tests/faults --sabotaged
"""

import contextlib
import logging
import os
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optax

from contrastive_jax import data, parallel
from contrastive_jax.data import digits_and_npz, records, tfds
from contrastive_jax.errors import ConfigError
from contrastive_jax.storage import jsonl, tensorboard, workdir
from contrastive_jax.training import checkpoint, checksums, loop, manifest, orbax_store
from experiments.run import build, failures, multihost, restore, resume, signals
from experiments.scoring import pictures

_undo: list[Callable[[], None]] = []


def apply(name: str) -> None:
    """Break the code in this process; the empty name does nothing."""
    if name:
        BREAKS[name]()


def mend() -> None:
    """Take back what `apply` did."""
    while _undo:
        _undo.pop()()


def patch(where: Any, name: str, value: Any) -> None:
    """Replace an attribute until `mend`."""
    before = getattr(where, name)
    _undo.append(lambda: setattr(where, name, before))
    setattr(where, name, value)


def nothing(*args: Any, **kwargs: Any) -> None:
    """In place of something that matters."""


def _forget_optimizer() -> None:
    restore = checkpoint.Checkpointer.restore

    def forgetful(self: Any, *args: Any, **kwargs: Any) -> Any:
        restored = restore(self, *args, **kwargs)
        if restored is None:
            return None
        import jax

        blank = jax.tree.map(lambda x: x * 0, restored.state.opt_state)
        return restored._replace(state=restored.state._replace(opt_state=blank))

    patch(checkpoint.Checkpointer, "restore", forgetful)


def _no_sigterm() -> None:
    patch(signals, "SIGNALS", signals.SIGNALS[:1])


def _no_fallback() -> None:
    first_good = checkpoint.Checkpointer._first_good

    def newest_only(self: Any, candidates: Any, targets: Any) -> Any:
        return first_good(self, candidates[:1], targets)

    patch(checkpoint.Checkpointer, "_first_good", newest_only)


def _no_checksum() -> None:
    verified = manifest.verified

    def trusting(name: str, stored: Any, entry: dict[str, Any], target: Any) -> Any:
        return verified(name, stored, {**entry, "crc32": checksums.crc32(stored)}, target)

    patch(checkpoint, "verified", trusting)


def _no_commit_mark() -> None:
    patch(orbax_store.ocp.options, "AtomicityOptions", nothing)


def _newest_by_time() -> None:
    steps = checkpoint.Checkpointer.steps

    def by_time(self: Any) -> list[int]:
        age = lambda step: os.path.getmtime(self._directory / str(step))  # noqa: E731
        return sorted(steps(self), key=age)

    patch(checkpoint.Checkpointer, "steps", by_time)


def _refuse_no_file() -> None:
    patch(workdir, "prepare", lambda path: Path(path))


def _pickles() -> None:
    load = np.load
    patch(
        digits_and_npz.np,
        "load",
        lambda *args, **kwargs: load(*args, **{**kwargs, "allow_pickle": True}),
    )


def _loss_alone() -> None:
    require = loop.require_finite

    def careless(values: Any, *args: Any) -> None:
        require({name: value for name, value in values.items() if "loss" in name}, *args)

    patch(loop, "require_finite", careless)


def _bare_norms() -> None:
    from contrastive_jax.losses import softmax
    from contrastive_jax.losses._engine import similarity

    bare = lambda x: x / (x**2).sum(-1, keepdims=True) ** 0.5  # noqa: E731
    patch(softmax, "unit", bare)
    patch(similarity, "unit", bare)


def _no_label_check() -> None:
    patch(data, "number_labels", lambda examples, *args, **kwargs: examples)


def _wrong_error(name: str, *modules: Any) -> Callable[[], None]:
    def apply_to_all() -> None:
        for module in modules:
            patch(module, name, lambda *args: ValueError("something is wrong"))

    return apply_to_all


def _sink_that_stops_the_run() -> None:
    def drop(self: Any, error: Exception) -> None:
        raise error

    patch(tensorboard.TensorBoardWriter, "_drop", drop)


def _lock_by_existence() -> None:
    @contextlib.contextmanager
    def lock(folder: Path) -> Any:
        try:
            (folder / ".pid").touch(exist_ok=False)
        except FileExistsError:
            raise workdir.WorkdirBusyError("taken") from None
        yield
        (folder / ".pid").unlink()

    patch(workdir, "lock", lock)


def _never_strict() -> None:
    restore = checkpoint.Checkpointer.restore

    def lenient(self: Any, abstract: Any, **settings: Any) -> Any:
        return restore(self, abstract, **{**settings, "strict": False})

    patch(checkpoint.Checkpointer, "restore", lenient)


def _replace(where: Any, name: str, value: Any = nothing) -> Callable[[], None]:
    return lambda: patch(where, name, value)


def _swallow_save_errors() -> None:
    finish = checkpoint.Checkpointer._finish

    def silent(self: Any) -> None:
        with contextlib.suppress(checkpoint.CheckpointError):
            finish(self)

    patch(checkpoint.Checkpointer, "_finish", silent)
    logging.disable()


def _any_length() -> None:
    state = resume.state

    def lenient(run: Any, *args: Any) -> Any:
        return state(run._replace(plan=run.plan._replace(steps=sys.maxsize)), *args)

    patch(resume, "state", lenient)


def _fatal_pictures() -> None:
    """`except Exception` finds this name in its module first, and it catches nothing."""
    pictures.Exception = ()  # type: ignore
    _undo.append(lambda: delattr(pictures, "Exception"))


def _pictures_first() -> None:
    draw = pictures.draw

    def first(run: Any, state: Any, folder: Path, *args: Any) -> None:
        path = folder / "results" / "summary.json"
        scores = path.read_text()
        path.unlink()
        draw(run, state, folder, *args)
        path.write_text(scores)

    patch(pictures, "draw", first)


BREAKS: dict[str, Callable[[], None]] = {
    "metrics.jsonl is not rewound": _replace(jsonl, "_rewind", lambda path, step: -1),
    "the optimizer's state is not restored": _forget_optimizer,
    "SIGTERM is not caught": _no_sigterm,
    "no thread watches for signals": _replace(signals.StopSignal, "_watch"),
    "a second signal leaves with 1": _replace(signals, "ABANDONED", 1),
    "failed saves are not reported": _swallow_save_errors,
    "errors of the disk exit with 1": _replace(checkpoint.CheckpointError, "exit_code", 1),
    "the workdir is not tried": _refuse_no_file,
    "no step but the newest is tried": _no_fallback,
    "damaged steps are deleted": _replace(
        checkpoint, "set_aside", lambda folder, step: shutil.rmtree(folder / str(step))
    ),
    "checksums are not compared": _no_checksum,
    "steps need no commit mark": _no_commit_mark,
    "remains are not removed": _replace(checkpoint, "remove_uncommitted"),
    "the workdir is not locked": _replace(workdir, "lock", contextlib.nullcontext),
    "a killed run leaves its lock": _lock_by_existence,
    "--strict_resume is not heeded": _never_strict,
    "configs are not compared": _replace(restore, "differences", lambda *args: ([], [])),
    "shapes are not compared": _replace(checkpoint, "require_same_architecture"),
    "another machine is not mentioned": _replace(resume, "_machine_notes", lambda *args: []),
    "metrics may be NaN": _replace(loop, "require_finite"),
    "only the loss has to be finite": _loss_alone,
    "no step is left out": _replace(optax, "apply_if_finite", lambda optimizer, steps: optimizer),
    "labels are not checked": _no_label_check,
    "errors of records are passed on as they are": _wrong_error("_unreadable", records),
    "missing data is an error like others": _wrong_error("DataError", tfds, records),
    "config errors exit with 1": _replace(ConfigError, "exit_code", 1),
    "norms are not safe at zero": _bare_norms,
    "batches are not checked": _replace(build, "check_batch"),
    "pickles are loaded": _pickles,
    "archive members need not be files": _replace(tarfile.TarInfo, "isreg", lambda self: True),
    "the newest step is the youngest folder": _newest_by_time,
    "a broken sink stops the run": _sink_that_stops_the_run,
    "nothing waits for the last save": _replace(checkpoint.Checkpointer, "__exit__"),
    "memory errors are passed on as they are": _replace(
        failures, "memory_explained", lambda *args: contextlib.nullcontext()
    ),
    "processes do not hear of each other's signals": _replace(
        parallel, "any_process", lambda mesh, local: digits_and_npz
    ),
    "a dead process is not missed": _replace(multihost, "HEARTBEAT_SECONDS", 86400),
    "the start is not watched": _replace(multihost, "_give_up"),
    "no address is named": _replace(multihost, "_place", lambda wanted: "A process"),
    "data is not compared": _replace(restore, "refuse_other_data"),
    "the length is not compared": _any_length,
    "a picture that fails ends the run": _fatal_pictures,
    "pictures come before scores": _pictures_first,
    "processes need not agree": _replace(multihost, "_compare"),
}
