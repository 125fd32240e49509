"""Where the numbers of a run come from: its config's digest, command, device and versions."""

import hashlib
import importlib.metadata
import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

import contrastive_jax
from contrastive_jax.storage import workdir
from experiments.run import resume

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def fingerprint(resolved: Mapping[str, Any]) -> str:
    """A digest of a resolved config."""
    return hashlib.sha256(json.dumps(resolved, sort_keys=True).encode()).hexdigest()


def saved_summary(folder: Path, config: ConfigDict) -> dict[str, Any] | None:
    """The summary of a folder where this very config was trained and scored, else None.

    Raises:
      ConfigError: the folder holds a run of another config.
    """
    resolved = json.loads(config.to_json())
    resume.refuse_another_config(folder, resolved)
    path = folder / "results" / "summary.json"
    summary = workdir.read_json(path) if path.exists() else None
    return summary if summary and summary["config_sha256"] == fingerprint(resolved) else None


def of_run(config: ConfigDict, step: int, seconds: Mapping[str, float]) -> dict[str, Any]:
    """What a summary says of how its numbers came about."""
    resolved = json.loads(config.to_json())
    devices = jax.devices()
    return {
        "step": step,
        "seconds": dict(seconds),
        "config": resolved,
        "config_sha256": fingerprint(resolved),
        "device": f"{len(devices)} x {devices[0].device_kind}",
        "cpus": os.cpu_count(),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Of this project and of the packages that decide its numbers."""
    installed = {name: importlib.metadata.version(name) for name in PACKAGES}
    python = ".".join(map(str, sys.version_info[:3]))
    return {"contrastive_jax": contrastive_jax.__version__, "python": python, **installed}


def command_text(argv: Sequence[str]) -> str:
    """What a person typed, as it should be typed again."""
    module = Path(argv[0]).stem
    return shlex.join(["python", "-m", f"experiments.{module}", *argv[1:]])
