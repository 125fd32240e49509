"""What a run may find in its folder and go on from, and what it says of what has changed."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from contrastive_jax.errors import ConfigError
from contrastive_jax.storage import workdir
from contrastive_jax.training.checkpoint import Checkpointer, Restored
from experiments.run import command_line

# What may change between two starts of one run: its length, and how it is watched and scored.
RESUMABLE = (
    "train.steps",
    "train.epochs",
    "train.log_every",
    "checkpoint.",
    "eval.",
    "data.data_dir",
    "data.workers",
    "data.bank",
)


def refuse_another_config(folder: Path, now: Mapping[str, Any]) -> None:
    """A workdir belongs to one config, but for what a resumed run may change.

    Raises:
      ConfigError: config.json of the folder names another one.
    """
    path = folder / "config.json"
    if path.exists():
        _refuse(folder, workdir.read_json(path)["config"], now)


def restore(
    checkpointer: Checkpointer,
    abstract: Any,
    folder: Path,
    config: Mapping[str, Any],
    *,
    strict: bool = False,
) -> Restored | None:
    """The newest checkpoint that can be trusted and is of this config; says what has changed.

    Args:
      checkpointer: of the folder.
      abstract: the state's shapes and shardings.
      folder: the workdir.
      config: the resolved config of this start.
      strict: an error for a damaged step rather than an older one.

    Raises:
      CheckpointError: none can be trusted, or they are of another architecture.
      ConfigError: they are of another config.
    """
    restored = checkpointer.restore(abstract, strict=strict)
    if restored is None:
        return None
    before = restored.meta.get("config", config)
    _refuse(folder, before, config)
    for line in restored.skipped:
        print(f"warning: {line}", file=sys.stderr)
    if restored.skipped:
        print(f"warning: resuming from step {restored.step}, the newest good one", file=sys.stderr)
    for line in (*_changes(before, config)[1], *_machine_notes(restored.meta)):
        print(f"note: {line}", file=sys.stderr)
    return restored


def machine() -> dict[str, Any]:
    """What two machines have to share for equal bits."""
    devices = jax.devices()
    kind = f"{len(devices)} x {devices[0].device_kind}"
    threads = {"cpus": _usable_cpus()} if devices[0].platform == "cpu" else {}
    processes = jax.process_count()
    return {"devices": kind, "processes": processes, **threads, "jax": jax.__version__}


def _usable_cpus() -> int | None:
    """What decides how XLA splits its sums on a CPU; Linux alone tells what a process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _refuse(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    refused, _ = _changes(before, now)
    if refused:
        raise ConfigError(
            f"{folder} holds a run of another config: {'; '.join(refused[:3])}.\n"
            "Pass another --workdir, or the config that it was started with."
        )


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """What was changed of what makes the run another one, and of what does not."""
    old, new = dict(command_line.leaves(before)), dict(command_line.leaves(now))
    refused: list[str] = []
    allowed: list[str] = []
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key) and "[" not in key:
            kind = allowed if key.startswith(RESUMABLE) else refused
            kind.append(f"{key}: {old.get(key)!r} -> {new.get(key)!r}")
    return refused, allowed


def _machine_notes(meta: Mapping[str, Any]) -> list[str]:
    before, now = meta.get("machine", {}), machine()
    keys = sorted(before.keys() & now.keys())
    changed = [f"{key}: {before[key]} -> {now[key]}" for key in keys if before[key] != now[key]]
    return [f"{'; '.join(changed)}: equal to rounding, not bit for bit"] if changed else []
