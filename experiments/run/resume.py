"""What a run may find in its folder and resume from, and what has changed since."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from contrastive_jax.errors import ConfigError
from contrastive_jax.storage import workdir
from contrastive_jax.training.checkpoint import Checkpointer, Restored
from experiments.run import restore
from experiments.run.build import Experiment, Run
from experiments.run.command_line import plain
from experiments.run.sections import leaves

# What may change between two starts of one run: its length, and how it is watched and scored.
RESUMABLE = (
    "train.steps",
    "train.epochs",
    "train.log_every",
    "checkpoint.",
    "eval.",
    "log.",
    "data.data_dir",
    "data.workers",
    "data.bank",
)


def check_folder(folder: Path, experiment: Experiment, config: ConfigDict) -> None:
    """Refuse a folder that holds the run of another method or config.

    Raises:
      ConfigError: naming the keys that differ.
    """
    if not (folder / "config.json").exists():
        return
    before = restore.description(folder)
    method = restore.method_of(before)
    if method != experiment.name:
        raise ConfigError(
            f"{folder} holds a run of the method {method!r}, not {experiment.name!r}.\n"
            "Pass another --workdir."
        )
    _refuse_config(folder, restore.config_of(before, experiment), plain(config))


def finished_summary(
    folder: Path, experiment: Experiment, config: ConfigDict
) -> dict[str, Any] | None:
    """Read the summary of a folder where this very config was trained and scored, else None."""
    path = folder / "results" / "summary.json"
    if not path.exists() or not (folder / "config.json").exists():
        return None
    summary = workdir.read_json(path)
    trained = restore.config_of({"config": summary["config"]}, experiment)
    return summary if trained == plain(config) else None


def state(
    run: Run, checkpointer: Checkpointer, folder: Path, identity: Mapping[str, Any], strict: bool
) -> Restored | None:
    """Restore the newest checkpoint that can be trusted and is of this run; say what has changed.

    Args:
      run: what is about to train.
      checkpointer: of the folder.
      folder: the workdir.
      identity: of the data that is about to be trained on.
      strict: an error for a damaged step rather than an older one.

    Raises:
      CheckpointError: none can be trusted, or they are of another architecture.
      ConfigError: they are of another config, of other data, or beyond the asked length.
    """
    restored = checkpointer.restore(run.abstract_state(), strict=strict)
    if restored is None:
        return None
    before = restored.meta.get("config")
    now = plain(run.config)
    if before is not None:
        before = restore.config_of({"config": before}, run.experiment)
        _refuse_config(folder, before, now)
    _refuse_data(folder, restored.meta.get("data"), identity)
    if restored.step > run.plan.steps:
        raise ConfigError(
            f"{folder} holds a checkpoint of step {restored.step}, and the config trains "
            f"{run.plan.steps} steps.\nTrain at least as long, or pass another --workdir."
        )
    for line in restored.skipped:
        print(f"warning: {line}", file=sys.stderr)
    if restored.skipped:
        print(f"warning: resuming from step {restored.step}, the newest good one", file=sys.stderr)
    allowed = differences(before, now)[1] if before is not None else []
    for line in (*allowed, *_machine_notes(restored.meta)):
        print(f"note: {line}", file=sys.stderr)
    return restored


def _refuse_config(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    refused, _ = differences(before, now)
    if refused:
        raise ConfigError(
            f"{folder} holds a run of another config: {'; '.join(refused[:3])}.\n"
            "Pass another --workdir, or the config that it was started with."
        )


def _refuse_data(folder: Path, before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> None:
    if before is None or before["sha256"] == now["sha256"]:
        return
    names = ("name", "train", "test", "image_shape")
    changed = [f"{k}: {before[k]} -> {now[k]}" for k in names if before.get(k) != now.get(k)]
    raise ConfigError(
        f"{folder} was trained on other data: {'; '.join(changed) or 'its content differs'}.\n"
        "Pass another --workdir, or the data that it was started with."
    )


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """List the keys that make it another run, and those that may change between two starts.

    >>> differences({"loss": {"temperature": 0.1}}, {"loss": {"temperature": 0.2}})
    (['loss.temperature: 0.1 -> 0.2'], [])
    """
    old, new = dict(leaves(before)), dict(leaves(now))
    refused: list[str] = []
    allowed: list[str] = []
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key) and "[" not in key:
            kind = allowed if key.startswith(RESUMABLE) else refused
            kind.append(f"{key}: {old.get(key)!r} -> {new.get(key)!r}")
    return refused, allowed


def meta(run: Run, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Make what a checkpoint holds beside the state."""
    config = plain(run.config)
    named = {"method": run.experiment.name, "data": dict(identity)}
    return {"config": config, "machine": machine(), **named}


def machine() -> dict[str, Any]:
    """Describe what two machines have to share for equal bits."""
    devices = jax.devices()
    kind = f"{len(devices)} x {devices[0].device_kind}"
    threads = {"cpus": _usable_cpus()} if devices[0].platform == "cpu" else {}
    processes = jax.process_count()
    return {"devices": kind, "processes": processes, **threads, "jax": jax.__version__}


def _usable_cpus() -> int | None:
    """What decides how XLA splits its sums on a CPU; Linux alone tells what a process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _machine_notes(meta: Mapping[str, Any]) -> list[str]:
    before, now = meta.get("machine", {}), machine()
    keys = sorted(before.keys() & now.keys())
    changed = [f"{key}: {before[key]} -> {now[key]}" for key in keys if before[key] != now[key]]
    return [f"{'; '.join(changed)}: equal to rounding, not bit for bit"] if changed else []
