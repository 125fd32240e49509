"""Time the import of the library and the first step of the digits, cold and warm.

    python -m benchmarks.startup
    python -m benchmarks.startup --smoke    # a try

Imports are timed in fresh processes that take turns: JAX alone, and what is imported beyond it.
The first step is that of `python -m experiments.simclr --config configs/digits.py`, done through
the launcher's own functions in a fresh process: cold with an empty folder of compiled programs,
warm with what the cold start left there. The operating system's file cache is warm in both.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.shared import harness

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
LIBRARY = (
    "augment data evaluation.knn evaluation.probes evaluation.diagnostics grad_cache losses mining "
    "objectives.simclr encoders.resnet encoders.heads parallel queue storage.workdir training"
)
IMPORTS = {
    "jax": "import jax, jax.numpy",
    "contrastive_jax.losses": "import jax, jax.numpy; from contrastive_jax import losses",
    "contrastive_jax, all of it": "import jax, jax.numpy, "
    + ", ".join(f"contrastive_jax.{name}" for name in LIBRARY.split()),
    "experiments.simclr": "import jax, jax.numpy, experiments.simclr",
}
TIMED = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"
STARTED = "CONTRASTIVE_JAX_BENCHMARK_STARTED"


def import_rows(rounds: int) -> list[dict[str, Any]]:
    """Time each import, and what it adds to that of JAX."""
    seconds: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for round_number in range(rounds + 1):
        for name, statement in IMPORTS.items():
            taken = fresh_import(statement)
            if round_number > 0:  # the first round fills the file cache
                seconds[name].append(taken)
    jax_alone = statistics.median(seconds["jax"])
    return [
        {"import": name, **harness.timing(s), "beyond_jax": statistics.median(s) - jax_alone}
        for name, s in seconds.items()
    ]


def fresh_import(statement: str) -> float:
    command = [sys.executable, "-c", TIMED.format(statement)]
    out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=harness.ROOT)
    return float(out.stdout.split()[-1])


def first_step_rows(rounds: int) -> list[dict[str, Any]]:
    """Time cold and warm starts in turn, each pair with a new cache folder."""
    starts: dict[str, list[dict[str, float]]] = {"cold": [], "warm": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            for measured in starts.values():
                environment = {**os.environ, "XDG_CACHE_HOME": cache, STARTED: repr(time.time())}
                environment.pop("JAX_COMPILATION_CACHE_DIR", None)
                command = [sys.executable, "-m", "benchmarks.startup", "--first_step"]
                out = subprocess.run(
                    command, stdout=subprocess.PIPE, text=True, check=True, env=environment
                )
                measured.append(json.loads(out.stdout.splitlines()[-1]))
    return [
        {
            "start": name,
            "seconds": {
                phase: statistics.median(s[phase] for s in measured) for phase in measured[0]
            },
            "rounds": measured,
        }
        for name, measured in starts.items()
    ]


def first_step() -> dict[str, float]:
    """Time the phases up to the first step of the digits, in this process."""
    started, marks = float(os.environ[STARTED]), [("process", time.time())]

    from benchmarks.shared import work
    from contrastive_jax import training
    from experiments import simclr
    from experiments.run import build, lifecycle

    marks.append(("imports", time.time()))
    lifecycle.set_up_jax()
    config = work.read_config(f"{harness.ROOT}/configs/digits.py")
    run = build.build(simclr.EXPERIMENT, config)
    marks.append(("data and objects", time.time()))
    state = run.fresh_state()
    marks.append(("initial state", time.time()))
    finished = training.run(
        run.objective,
        run.optimizer,
        run.feed,
        state,
        plan=run.plan._replace(steps=1),
        mesh=run.mesh,
        write=lambda step, row: None,
    )
    end = time.time()
    phases, previous = {}, started
    for name, mark in marks:
        phases[name], previous = mark - previous, mark
    phases["compile the step"] = finished.compile_seconds
    phases["the step"] = end - previous - finished.compile_seconds
    imported = marks[1][1]
    return {**phases, "from run start": end - imported, "from process start": end - started}


def run(args: argparse.Namespace) -> dict[str, Any]:
    result = {
        **harness.circumstances(PACKAGES),
        "protocol": {
            "imports": "median seconds in fresh processes, in turn; the first round is left out",
            "first_step": "configs/digits.py through the launcher's functions, median of rounds",
            "cold": "an empty folder of compiled programs; warm: the same folder again",
            "from run start": "without the imports and the start of Python",
            "rounds": args.rounds,
            "import_rounds": args.import_rounds,
        },
        "imports": import_rows(args.import_rounds),
        "first_step": first_step_rows(args.rounds),
    }
    for row in result["imports"]:
        print("{import:28s} {seconds:7.3f} s, {beyond_jax:7.3f} s beyond jax".format(**row))
    for row in result["first_step"]:
        phases = ", ".join(f"{name} {s:.2f}" for name, s in row["seconds"].items())
        print(f"first step, {row['start']}: {phases}")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="pairs of a cold and a warm start")
    parser.add_argument("--import_rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=harness.RESULTS / "startup_cpu.json")
    parser.add_argument("--first_step", action="store_true", help=argparse.SUPPRESS)
    args = harness.parse(parser, rounds=1, import_rounds=1)
    if args.first_step:
        print(json.dumps(first_step()))
    else:
        harness.write(args.out, run(args))


if __name__ == "__main__":
    main()
