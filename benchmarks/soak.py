"""Inject a random fault into runs of the digits every 20 seconds, for half an hour.

    python -m benchmarks.soak --minutes 30
    python -m benchmarks.soak --smoke    # a try

The faults: SIGKILL, SIGTERM, Ctrl-C, twice Ctrl-C; and, while the run is down, a flipped byte, a
cut or an emptied file in its newest checkpoint, a stray folder; and a second run beside it. After
each, the same command again. A run that ends is compared with the uninterrupted run, bit by bit,
and the next starts. Writes benchmarks/results/soak.json.
"""

import argparse
import collections
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.kill_test import VERSIONS, Run, compare, finish
from benchmarks.shared import harness
from benchmarks.shared.harness import RESULTS

HOLDS = ("state_is_bit_equal", "each_step_once", "metrics_are_equal")
# The fault -> the exit codes that it may lead to: 0 where it came too late, and that of the signal
# itself where it came so early that the command was still being imported.
ENDS = {
    "SIGKILL": (-signal.SIGKILL, 0),
    "SIGTERM": (75, 0, -signal.SIGTERM),
    "SIGINT": (75, 0, -signal.SIGINT),
    "SIGINT twice": (130, 75, 0, -signal.SIGINT),
}


def inject(process: subprocess.Popen, fault: str) -> int:
    """Send the signals of a fault; returns the exit code."""
    name, *twice = fault.split()
    for _ in range(1 + len(twice)):
        process.send_signal(signal.Signals[name])
        time.sleep(0.01)
    return process.wait()


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file: Path) -> None:
    file.write_bytes(b"")


DAMAGE: dict[str, Callable[[Path], None]] = {"flip": flip, "cut": cut, "empty": empty}


def damage(run: Run, rng: random.Random) -> str:
    """Spoil a file of the newest checkpoint, if there is another one to fall back to."""
    marks = list((run.folder / "checkpoints").glob("*/commit_success.txt"))
    steps = sorted((int(m.parent.name) for m in marks if m.parent.name.isdigit()), reverse=True)
    kind = rng.choice([*DAMAGE, "stray"])
    if kind == "stray":
        (run.folder / "checkpoints" / str(10**6 + rng.randrange(10**6))).mkdir(exist_ok=True)
    elif len(steps) > 1:
        newest = run.folder / "checkpoints" / str(steps[0])
        files = [file for file in newest.glob("state/**/d/*") if file.is_file()]
        DAMAGE[kind](max(files, key=lambda file: file.stat().st_size))
    else:
        return "none"
    return kind


def intrude(run: Run) -> int:
    """A second run in the same folder; its exit code has to be 6, or 0 where the run is over."""
    code = run.start().wait()
    if code not in (6, 0):
        raise SystemExit(f"a second run ended with exit code {code}")
    return code


def soak(run: Run, until: float, every: float, rng: random.Random) -> list[dict[str, Any]]:
    """Run to the end with a fault every so often; returns the faults."""
    injected: list[dict[str, Any]] = []
    while True:
        process = run.start()
        pause = every if time.monotonic() < until else None
        try:
            if rng.random() < 0.2 and pause:
                time.sleep(every / 2)
                injected.append({"fault": "a second run", "code": intrude(run)})
            code = process.wait(pause)
        except subprocess.TimeoutExpired:
            fault = rng.choice([*ENDS])
            code = inject(process, fault)
            if code not in ENDS[fault]:
                raise SystemExit(f"{fault} led to exit code {code}; see {run.folder}.log") from None
            injected.append({"fault": fault, "code": code, "at_row": run.steps()})
            if code and rng.random() < 0.4:
                injected.append({"fault": damage(run, rng)})
            print(injected[-1], flush=True)
            continue
        if code != 0:
            raise SystemExit(f"a run ended with exit code {code}; see {run.folder}.log")
        return injected


def main() -> None:
    """Soak, compare, write what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--every", type=float, default=20, help="seconds between faults")
    parser.add_argument("--steps", type=int, default=1000, help="of training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "soak.json")
    arguments = harness.parse(parser, minutes=0.5, every=8, steps=60)
    place, rng = Path(tempfile.mkdtemp()), random.Random(arguments.seed)
    length = (f"--config.train.steps={arguments.steps}",)
    uninterrupted = Run(place / "uninterrupted", length)
    finish(uninterrupted.start())
    started = time.monotonic()
    runs = []
    while not runs or time.monotonic() < started + 60 * arguments.minutes:
        run = Run(place / f"run{len(runs)}", length)
        injected = soak(run, started + 60 * arguments.minutes, arguments.every, rng)
        runs.append({**compare(uninterrupted, run), "injected": injected})
        shutil.rmtree(run.folder)
    faults = collections.Counter(each["fault"] for run in runs for each in run["injected"])
    right = sum(all(run[name] for name in HOLDS) for run in runs)
    result = {
        "minutes": (time.monotonic() - started) / 60,
        "runs": len(runs),
        "runs_like_the_uninterrupted_one": right,
        "faults": dict(faults),
        "steps": arguments.steps,
        "seed": arguments.seed,
        **harness.circumstances(VERSIONS),
        "each": runs,
    }
    harness.write(arguments.out, result)
    print({name: value for name, value in result.items() if name != "each"})
    if right != len(runs):
        raise SystemExit(f"not like the uninterrupted run: {place}")
    shutil.rmtree(place)


if __name__ == "__main__":
    main()
