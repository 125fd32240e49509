"""Kill a run of the digits again and again: it has to end like an uninterrupted one.

    python -m benchmarks.kill_test --kills 50
    python -m benchmarks.kill_test --smoke    # a try

First an uninterrupted run of the config, then the same command killed by SIGKILL at random moments,
half of them while a checkpoint is being written, until the kills are used up; then it may finish.
Its last state has to be bit-equal to that of the uninterrupted run, and metrics.jsonl must hold
each step once, with the same numbers. Writes benchmarks/results/kill_test.json.
"""

import argparse
import contextlib
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.shared import harness
from benchmarks.shared.harness import RESULTS, ROOT

VERSIONS = ("jax", "orbax-checkpoint")
COMMAND = (
    "--config=configs/digits.py",
    "--config.train.log_every=1",
    "--config.checkpoint.every_steps=5",
    "--config.eval.figures=False",
    "--config.eval.labels_per_class=0",
)


class Run(NamedTuple):
    """A folder and what is trained in it."""

    folder: Path
    arguments: tuple[str, ...]

    def start(self) -> subprocess.Popen:
        command = [sys.executable, "-m", "experiments.simclr", *COMMAND, *self.arguments]
        with open(self.folder.with_suffix(".log"), "a") as log:
            return subprocess.Popen(
                [*command, f"--workdir={self.folder}"], cwd=ROOT, stdout=log, stderr=log
            )

    def rows(self) -> list[dict[str, Any]]:
        file = self.folder / "metrics.jsonl"
        lines = file.read_text().splitlines(keepends=True) if file.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def steps(self) -> int:
        return len(self.rows())

    def uncommitted(self) -> set[int]:
        """The inodes of the folders of steps that are not yet committed, or never will be."""
        found = set()
        for folder in (self.folder / "checkpoints").glob("[0-9]*"):
            with contextlib.suppress(FileNotFoundError):  # just renamed
                if not (folder / "commit_success.txt").exists():
                    found.add(folder.stat().st_ino)
        return found

    def outcome(self) -> dict[str, Any]:
        summary = json.loads((self.folder / "results" / "summary.json").read_text())
        return {"state_sha256": summary["state_sha256"], "step": summary["step"]}


def finish(process: subprocess.Popen) -> None:
    """Wait for a run that has to end well."""
    if process.wait() != 0:
        raise SystemExit(f"a run ended with exit code {process.returncode}; see its log")


def wait_for(process: subprocess.Popen, condition: Callable[[], bool]) -> bool:
    """Wait until a condition holds; False when the process ended before."""
    while not condition():
        if process.poll() is not None:
            return False
        time.sleep(0.005)
    return True


def kill(run: Run, rng: random.Random, steps: int) -> dict[str, Any]:
    """Start a run, let it make some progress, kill it; returns where it stood."""
    target = min(run.steps() + rng.randint(1, 7), steps - 1)
    left_over = run.uncommitted()

    def saving() -> bool:
        return bool(run.uncommitted() - left_over)

    process = run.start()
    alive = wait_for(process, lambda: run.steps() >= target)
    if alive and rng.random() < 0.5:
        wait_for(process, saving)
        time.sleep(rng.random() * 0.01)
    else:
        time.sleep(rng.random() * 0.05)
    in_flight = saving()
    process.send_signal(signal.SIGKILL)
    code = process.wait()
    if code not in (0, -signal.SIGKILL):
        raise SystemExit(f"a run ended with exit code {code}; see {run.folder}.log")
    return {"step": run.steps(), "during_a_save": in_flight, "killed": code != 0}


def compare(uninterrupted: Run, killed: Run) -> dict[str, bool]:
    """Compare two finished runs: all of it has to hold."""
    steps = [row["step"] for row in killed.rows()]
    return {
        "state_is_bit_equal": killed.outcome() == uninterrupted.outcome(),
        "each_step_once": steps == list(range(1, len(steps) + 1)),
        "metrics_are_equal": killed.rows() == uninterrupted.rows(),
    }


def main() -> None:
    """Run both, compare, write what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=400, help="of training")
    parser.add_argument("--out", type=Path, default=RESULTS / "kill_test.json")
    arguments = harness.parse(parser, kills=2, steps=30)
    place, rng = Path(tempfile.mkdtemp()), random.Random(arguments.seed)
    length = (f"--config.train.steps={arguments.steps}",)
    uninterrupted, killed = Run(place / "uninterrupted", length), Run(place / "killed", length)
    finish(uninterrupted.start())
    kills: list[dict[str, Any]] = []
    while len(kills) < arguments.kills:
        kills.append(kill(killed, rng, arguments.steps))
        print(f"kill {len(kills)} of {arguments.kills}: {kills[-1]}", flush=True)
        if not kills[-1]["killed"]:  # it came to its end first: start another run
            shutil.rmtree(killed.folder)
            kills.pop()
    finish(killed.start())
    equal = compare(uninterrupted, killed)
    result = {
        "kills": len(kills),
        "during_a_save": sum(at["during_a_save"] for at in kills),
        "steps": arguments.steps,
        "seed": arguments.seed,
        **equal,
        **harness.circumstances(VERSIONS),
        "at": kills,
    }
    harness.write(arguments.out, result)
    print({name: value for name, value in result.items() if name != "at"})
    if not all(equal.values()):
        raise SystemExit(f"not like the uninterrupted run: {place}")
    shutil.rmtree(place)


if __name__ == "__main__":
    main()
