"""Where the numbers of a run come from: method, config, code, data, device and versions."""

import functools
import hashlib
import importlib.metadata
import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

import contrastive_jax
from contrastive_jax import data
from contrastive_jax.data import cpus
from experiments.run.build import Run
from experiments.run.command_line import plain
from experiments.run.restore import SCHEMA
from experiments.run.sections import PLACES, absolute

ROOT = Path(__file__).parents[2]
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def describe(run: Run, command: str, before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Make the config.json of a run: all that a later command needs to know of it.

    Args:
      run: what is about to train.
      command: what a person typed.
      before: the config.json of a run that resumes, which keeps its first command and code; later
        starts are listed under "resumed".
    """
    config = plain(run.config)
    for key in PLACES:
        if place := config["data"].get(key):
            config["data"][key] = absolute(place)
    start = {"command": command, "versions": versions(), "code": code()}
    if before is not None:
        resumed = [*before.get("resumed", []), start]
        return {**before, "config": config, "data": data.identity(run.dataset), "resumed": resumed}
    named = {"schema": SCHEMA, "method": run.experiment.name, "config": config}
    return {**named, **start, "data": data.identity(run.dataset)}


def of_scores(run: Run, description: Mapping[str, Any], step: int) -> dict[str, Any]:
    """Make the part of a results file that says what was scored."""
    devices, config = jax.devices(), plain(run.config)
    return {
        "schema": SCHEMA,
        "step": step,
        **{name: description.get(name) for name in ("method", "code", "data")},
        "scored_by": code(),
        "config": config,
        "config_sha256": hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest(),
        "device": f"{len(devices)} x {devices[0].device_kind}",
        "cpus": cpus.usable(),
        "versions": versions(),
    }


@functools.cache
def code() -> dict[str, Any]:
    """Identify the code that runs: git commit, uncommitted changes, SHA-256 of the sources."""
    commit = _git("rev-parse", "HEAD") if (ROOT / ".git").exists() else None
    changes = _git("status", "--porcelain", "--untracked-files=no") if commit else None
    dirty = None if changes is None else bool(changes)
    return {"commit": commit, "dirty": dirty, "sha256": code_digest()}


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def code_digest() -> str:
    """Compute the SHA-256 of the source files of the library and the experiments."""
    sha = hashlib.sha256()
    for folder in ("contrastive_jax", "experiments"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            sha.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return sha.hexdigest()


def versions() -> dict[str, str]:
    """List the versions of this project and of the packages that decide its numbers."""
    installed = {name: importlib.metadata.version(name) for name in PACKAGES}
    python = ".".join(map(str, sys.version_info[:3]))
    return {"contrastive_jax": contrastive_jax.__version__, "python": python, **installed}


def command_text(argv: Sequence[str]) -> str:
    """Write a command line as a person should type it again."""
    module = Path(argv[0]).stem
    return shlex.join(["python", "-m", f"experiments.{module}", *argv[1:]])
