"""Time the SimCLR step under each choice of XLA's CPU options.

    python -m benchmarks.compiler_options             # ResNet-18 at batch 128, small encoder at 256
    python -m benchmarks.compiler_options --smoke     # a try

The same step is compiled under each choice, and they take turns in one process (A B C A B C ...).
contrastive_jax/training/compiler_options.py sets the choice that this justifies. The images are
random: no option depends on them.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.shared import harness, work

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")
TYPES = "LIBRARY_FUSION_TYPE_"
CHOICES = {
    "XLA's defaults": {},
    "YNNPACK for reductions": {"xla_cpu_experimental_ynn_fusion_type": f"{TYPES}REDUCE"},
    "and for single products": {
        "xla_cpu_experimental_ynn_fusion_type": f"{TYPES}REDUCE,{TYPES}INDIVIDUAL_DOT"
    },
    "no YNNPACK": {"xla_cpu_experimental_ynn_fusion_type": ""},
}


def compiled_step(name: str, options: dict[str, str]) -> harness.Step:
    """Compile the step that the command trains with under these options."""
    from benchmarks.shared import simclr_jax
    from contrastive_jax.training import compiler_options

    images = np.random.default_rng(0).integers(0, 256, (2000, 32, 32, 3), np.uint8)
    chosen = compiler_options.for_steps
    compiler_options.for_steps = lambda mesh: options or None
    try:
        contender = simclr_jax.contender(work.config(name, None, "float32"), images)
    finally:
        compiler_options.for_steps = chosen

    def step() -> None:
        contender.step()
        contender.wait()

    return step


def measure(args: argparse.Namespace) -> dict[str, Any]:
    rows = []
    for name in args.works:
        steps = {choice: compiled_step(name, options) for choice, options in CHOICES.items()}
        rounds = args.rounds or {"resnet18": 3}.get(name, 15)
        for choice, seconds in harness.take_turns(steps, rounds).items():
            row = {"work": name, "choice": choice, "options": CHOICES[choice]}
            rows.append({**row, **harness.timing(seconds)})
            print("{work:9s} {choice:24s} {seconds:8.3f} s".format(**rows[-1]), flush=True)
    protocol = {
        "what": "seconds of a whole step, median of the rounds",
        "batch_sizes": {name: work.BATCH_SIZES[name] for name in args.works},
    }
    return {**harness.circumstances(PACKAGES), "protocol": protocol, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--works", nargs="+", default=["resnet18", "cpu"], choices=work.PRESETS)
    parser.add_argument("--rounds", type=int, help="default: 3 for resnet18, else 15")
    parser.add_argument("--out", type=Path, default=harness.RESULTS / "compiler_options_cpu.json")
    args = harness.parse(parser, works=["smoke"], rounds=2)
    harness.write(args.out, measure(args))


if __name__ == "__main__":
    main()
