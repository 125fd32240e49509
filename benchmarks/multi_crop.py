"""Time a step with small views beside the step of two large views, and what their pixels say.

    python -m benchmarks.multi_crop
    python -m benchmarks.multi_crop --smoke       # a try

The step is that of SwAV in configs/swav.py:cpu (or of another method that reads small views), on
random images: two large views of 32 pixels and n small ones of 16. Each small view has a quarter of
the pixels of a large one. The contenders take turns in one process. Memory is what the compiled
step needs.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.shared import harness

METHODS = ("swav", "dino", "lejepa")


def make_step(n_small: int, args: argparse.Namespace) -> tuple[Callable[[], None], float, float]:
    """Compile a step with so many small views.

    Returns:
      A call of some steps, the pixels of the views of an image, the megabytes of the step.
    """
    import jax

    from contrastive_jax import parallel, training

    run = _run(n_small, args)
    state = run.fresh_state()
    resident = parallel.put_replicated(dict(run.feed.resident), run.mesh)
    sent = parallel.put_batch(run.feed.batch_at(0), run.mesh)
    key = jax.random.key(0)
    step = training.make_train_step(run.objective, run.optimizer, run.feed, run.mesh)
    compiled = step.lower(state, resident, sent, key).compile()

    def some_steps() -> None:
        nonlocal state
        for _ in range(args.steps):
            state, _ = compiled(state, resident, sent, key)
        jax.block_until_ready(state)

    shown = run.config.augment
    pixels = shown.n_views * shown.size**2 + shown.n_small_views * shown.small_size**2
    return some_steps, pixels, (training.held_bytes(compiled) or 0) / 2**20


def _run(n_small: int, args: argparse.Namespace) -> Any:
    """Build the run of a method on random images."""
    from configs import _images
    from contrastive_jax.data import Dataset
    from experiments.run import build, command_line
    from experiments.run.methods import METHODS as known
    from experiments.run.sections import complete

    config = command_line.read(f"{harness.ROOT}/configs/{args.method}.py:cpu")
    config.data.batch_size = args.batch
    config.train.update({"steps": 10_000})
    if n_small:
        _images.small_views(config, n_small)
    random = np.random.default_rng(0)
    images = {
        "image": random.integers(0, 256, (args.batch, 32, 32, 3), np.uint8),
        "label": random.integers(0, 10, args.batch).astype(np.int32),
    }
    dataset = Dataset("random", images, images, tuple(map(str, range(10))), args.batch)
    experiment = known[args.method]
    whole = complete(config, experiment.all_sections())
    return build.build(experiment, whole, load=lambda config: dataset)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", choices=METHODS, default="swav")
    parser.add_argument("--small", type=int, nargs="+", default=[2, 4, 6], help="numbers of views")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=5, help="timed in one turn")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=harness.RESULTS / "multi_crop_cpu.json")
    args = harness.parse(parser, small=[2], batch=32, steps=1, rounds=2)
    made = {n: make_step(n, args) for n in (0, *args.small)}
    names = {n: "2 large" + f" + {n} small" * bool(n) for n in made}
    timed = harness.take_turns({names[n]: step for n, (step, *_) in made.items()}, args.rounds)
    rows = []
    for n, (_, pixels, megabytes) in made.items():
        timing = harness.timing([seconds / args.steps for seconds in timed[names[n]]])
        rows.append({"name": names[n], **timing, "megabytes": megabytes, "pixels": pixels})
        for key in ("seconds", "pixels"):
            rows[-1][f"{key}_ratio"] = rows[-1][key] / rows[0][key]
        print(
            "{name:18s} {seconds:8.4f} s a step, x {seconds_ratio:.2f}; "
            "pixels x {pixels_ratio:.2f}".format(**rows[-1])
        )
    protocol = {key: value for key, value in vars(args).items() if key != "out"}
    record = {**harness.circumstances(("jax", "numpy")), "protocol": protocol, "rows": rows}
    harness.write(args.out, record)


if __name__ == "__main__":
    main()
