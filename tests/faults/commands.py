"""Run real commands in separate processes: start, inject, wait, compare.

The toy's processes are forked from one that has imported everything, because importing costs more
than training it; `experiments.simclr` is started as a person does.
"""

import json
import multiprocessing
import os
import runpy
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import pytest

from tests.faults import inject

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = float(os.environ.get("FAULTS_PATIENCE_SECONDS", 600))  # a machine may be busy
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["tests.faults.toy", "experiments.text", "experiments.clip", "experiments.prepare"]
    + ["sklearn.datasets"]
)


class Kind(NamedTuple):
    """A command to inject faults into: its module and arguments; whether a process is forked."""

    module: str
    arguments: tuple[str, ...]
    forked: bool
    wider: str = ""  # a change of its architecture
    examples: int = 0  # in its training set
    batch: int = 0


TOY = Kind(
    "tests.faults.toy",
    ("--config=tests/faults/toy_config.py",),
    True,
    "encoder.features=32",
    256,
    32,
)
SIMCLR = Kind(
    "experiments.simclr",
    (
        "--config=configs/digits.py:smoke",
        "--config.train.steps=12",
        "--config.train.log_every=1",
        "--config.checkpoint.every_steps=3",
        "--config.eval.every_steps=0",
        "--config.eval.probe_steps=2",
        "--config.eval.labels_per_class=0",
        "--config.eval.figures=False",
    ),
    False,
    "encoder.width=0.25",
    1297,
    256,
)
TEXT = Kind(
    "experiments.text",
    ("--config=tests/faults/text_config.py",),
    True,
    "encoder.dim=16",
    48,
    8,
)
CLIP = Kind(
    "experiments.clip",
    ("--config=tests/faults/clip_config.py",),
    True,
    "head.output_dim=16",
    256,
    32,
)
PREPARE = Kind("experiments.prepare", (), True)
KINDS = {"toy": TOY, "simclr": SIMCLR, "text": TEXT, "clip": CLIP}


# For tests of the lab that runs on texts, and on images with texts, have to pass as well.
ON_TEXTS_TOO = pytest.mark.parametrize(
    "lab", ["toy", "text", "clip", pytest.param("simclr", marks=pytest.mark.slow)], indirect=True
)


class Ended(NamedTuple):
    """A process that is over."""

    code: int
    out: str
    err: str


class Running(NamedTuple):
    """A process under way; its output goes to files, so that it never waits for a reader."""

    process: Any  # multiprocessing's or subprocess's
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def code(self) -> int | None:
        forked = hasattr(self.process, "exitcode")
        return self.process.exitcode if forked else self.process.poll()

    def until(self, condition: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
        """Wait for something that the process does; an error if it ends or takes too long."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.code() is None or condition(), self.end()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.002)

    def end(self, seconds: float = PATIENCE_SECONDS) -> Ended:
        """Wait for the end."""
        if hasattr(self.process, "exitcode"):
            self.process.join(seconds)
        else:
            self.process.wait(seconds)
        code = self.code()
        assert code is not None, self.log.read_text()
        return Ended(code, self.log.read_text(), self.log.with_suffix(".err").read_text())


def start(
    kind: Kind,
    workdir: Path | str | None,
    *arguments: str,
    faults: tuple[str, ...] = (),
    log: Path,
    env: Mapping[str, str] | None = None,
) -> Running:
    """Start a command.

    Args:
      kind: which one.
      workdir: the run's folder; None for a command that has none.
      arguments: further ones of the command line.
      faults: what goes wrong in it, as `inject.apply` reads it.
      log: file for its stdout; stderr goes beside it.
      env: further environment variables.
    """
    arguments = (
        *kind.arguments,
        *([] if workdir is None else [f"--workdir={workdir}"]),
        *arguments,
    )
    log.touch()  # the process has it once it runs; who waits for a word in it may be earlier
    broken = os.environ.get("FAULTS_SABOTAGE", "")
    cache = str(log.parents[1] / "cache")
    env = {"XDG_CACHE_HOME": cache, "FAULTS_SABOTAGE": broken, **(env or {})}
    if kind.forked:
        passed = (kind.module, arguments, faults, log, env)
        process = FORKS.Process(target=_run, args=passed)
        process.start()
        return Running(process, log)
    armed = ("tests.faults.inject", ",".join(faults)) if faults or broken else ()
    with log.open("w") as out, log.with_suffix(".err").open("w") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", *armed, kind.module, *arguments],
            cwd=ROOT,
            env={**os.environ, "JAX_PLATFORMS": "cpu", **env},
            stdout=out,
            stderr=err,
        )
    return Running(process, log)


def _run(
    module: str,
    arguments: tuple[str, ...],
    faults: tuple[str, ...],
    log: Path,
    env: Mapping[str, str],
) -> None:
    os.environ.update(env)
    os.chdir(ROOT)
    for path, descriptor in ((log, 1), (log.with_suffix(".err"), 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    sys.argv = [module, *arguments]
    sys.modules.pop(module, None)  # it is run anew, as __main__
    jax.config.update("jax_platforms", "cpu")
    inject.apply(faults)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def with_devices(n: int) -> dict[str, str]:
    """The environment of a process that sees n devices."""
    count = f"--xla_force_host_platform_device_count={n}"
    return {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {count}"}


def rows(workdir: Path) -> list[int]:
    """The steps of metrics.jsonl."""
    file = workdir / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return [json.loads(line)["step"] for line in lines]


def committed(workdir: Path) -> list[int]:
    """The steps that are whole on disk."""
    marks = (workdir / "checkpoints").glob("*/commit_success.txt")
    return sorted(int(mark.parent.name) for mark in marks if mark.parent.name.isdigit())


def digest_of(ended: Ended) -> str:
    """The SHA-256 of the last state, which a finished run prints."""
    (line,) = [line for line in ended.out.splitlines() if "state sha256" in line]
    return line.split()[-1]


def assert_short_error(ended: Ended, code: int, *says: str) -> None:
    """At most three lines on stderr that say what is wrong, and the promised exit code."""
    assert ended.code == code, ended
    error = ended.err[ended.err.index("error: ") :]
    assert len(error.strip().splitlines()) <= 3, error
    for text in says:
        assert text in error, error
    assert "Traceback" not in ended.err
