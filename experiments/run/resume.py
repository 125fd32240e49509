"""What a run may find in its folder and resume from, and what has changed since."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from contrastive_jax.data import cpus
from contrastive_jax.errors import ConfigError
from contrastive_jax.storage import workdir
from contrastive_jax.training.checkpoint import Checkpointer, Restored
from experiments.run import restore
from experiments.run.build import Experiment, Run
from experiments.run.command_line import plain
from experiments.run.sections import PLACES, absolute

RESUMABLE = (*restore.FREE, "train.steps", "train.epochs")  # may change between two starts


def check_folder(folder: Path, experiment: Experiment, config: ConfigDict) -> None:
    """Refuse a folder that holds the run of another method or config.

    Raises:
      ConfigError: naming the keys that differ.
    """
    if (folder / "verdict.json").exists():
        raise ConfigError(f"{folder} holds an ablation; pass another --workdir for a run.")
    if not (folder / "config.json").exists() or not _has_trained(folder):
        return
    before = restore.description(folder)
    method = restore.method_of(before)
    if method != experiment.name:
        raise ConfigError(
            f"{folder} holds a run of the method {method!r}, not {experiment.name!r}.\n"
            "Pass another --workdir."
        )
    _allowed_changes(folder, before, experiment, config)


def _has_trained(folder: Path) -> bool:
    """Whether a run got further than its config: one that failed before leaves nothing to keep."""
    steps = (folder / "checkpoints").glob("*[0-9]*")
    return (folder / "metrics.jsonl").exists() or any(steps)


def summary_of(folder: Path) -> dict[str, Any]:
    """Read the scores after the last training; {} where there are none."""
    path = folder / "results" / "summary.json"
    summary = workdir.read_json(path) if path.exists() else None
    whole = isinstance(summary, dict) and {"config", "evaluations"} <= summary.keys()
    return summary if whole else {}


def finished_summary(
    folder: Path, experiment: Experiment, config: ConfigDict
) -> dict[str, Any] | None:
    """Read the summary of a folder where this config was trained, scored and drawn, else None.

    How a run is watched and scored may differ: `experiments.evaluate` scores it again.
    """
    summary = summary_of(folder)
    if not summary or not (folder / "config.json").exists() or _mark(folder).exists():
        return None
    refused, _ = restore.differences(summary, experiment, config, restore.FREE)
    return None if refused else summary


@contextmanager
def unfinished(folder: Path) -> Iterator[None]:
    """Mark a run as not complete until the block, which scores and draws it, has ended."""
    _mark(folder).touch()
    yield
    _mark(folder).unlink()


def _mark(folder: Path) -> Path:
    return folder / ".unfinished"


def same_place(folder: Path, config: ConfigDict) -> bool:
    """Whether a run's data is where it was, so that it need not be read again to be known."""
    before = restore.description(folder)["config"]["data"]
    places = [(before.get(key), config.data.get(key)) for key in PLACES]
    return all(old == now or (now and old == absolute(now)) for old, now in places)


def check_data(folder: Path, identity: Mapping[str, Any]) -> None:
    """Refuse a folder whose run was trained on other data.

    Raises:
      ConfigError: naming what differs.
    """
    if (folder / "config.json").exists():
        restore.refuse_other_data(folder, restore.description(folder).get("data"), identity)


def state(
    run: Run, checkpointer: Checkpointer, folder: Path, identity: Mapping[str, Any], strict: bool
) -> Restored | None:
    """Restore the newest checkpoint that can be trusted and is of this run; say what has changed.

    Raises:
      CheckpointError: none can be trusted, or they are of another architecture.
      ConfigError: they are of another config, of other data, or beyond the asked length.
    """
    restored = checkpointer.restore(run.abstract_state(), strict=strict)
    if restored is None:
        return None
    known = "config" in restored.meta
    allowed = _allowed_changes(folder, restored.meta, run.experiment, run.config) if known else []
    restore.refuse_other_data(folder, restored.meta.get("data"), identity)
    if restored.step > run.plan.steps:
        raise ConfigError(
            f"{folder} holds a checkpoint of step {restored.step}, and the config trains "
            f"{run.plan.steps} steps.\nTrain at least as long, or pass another --workdir."
        )
    for line in restored.skipped:
        print(f"warning: {line}", file=sys.stderr)
    if restored.skipped:
        print(f"warning: resuming from step {restored.step}, the newest good one", file=sys.stderr)
    for line in (*allowed, *_machine_notes(restored.meta)):
        print(f"note: {line}", file=sys.stderr)
    return restored


def _allowed_changes(
    folder: Path, before: Mapping[str, Any], experiment: Experiment, config: ConfigDict
) -> list[str]:
    refused, allowed = restore.differences(before, experiment, config, RESUMABLE)
    if refused:
        raise ConfigError(
            f"{folder} holds a run of another config: {'; '.join(refused[:3])}.\n"
            "Pass another --workdir, or the config that it was started with."
        )
    return allowed


def meta(run: Run, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Make what a checkpoint holds beside the state."""
    named = {"method": run.experiment.name, "data": dict(identity)}
    return {"config": plain(run.config), "machine": machine(), **named}


def machine() -> dict[str, Any]:
    """Describe what two machines have to share for equal bits."""
    devices = jax.devices()
    described = {
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "processes": jax.process_count(),
        "jax": jax.__version__,
    }
    if devices[0].platform != "cpu":
        return described
    return {**described, "cpus": cpus.usable()}  # XLA's threads


def _machine_notes(meta: Mapping[str, Any]) -> list[str]:
    before, now = meta.get("machine", {}), machine()
    keys = sorted(before.keys() & now.keys())
    changed = [f"{key}: {before[key]} -> {now[key]}" for key in keys if before[key] != now[key]]
    return [f"{'; '.join(changed)}: equal to rounding, not bit for bit"] if changed else []
