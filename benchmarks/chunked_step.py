"""Time a step that encodes in chunks and computes its loss in tiles against the plain one.

    python -m benchmarks.chunked_step
    python -m benchmarks.chunked_step --smoke       # a try

The step is that of configs/cifar.py:cpu, on random images: augmentation, encoder with batch norm,
NT-Xent, gradient and update. Each variant runs in a process of its own. Memory is what XLA reserves
for the temporaries of the compiled step, and the rise of the resident set in one step.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from benchmarks.shared import harness


def measure(variant: str, args: argparse.Namespace) -> dict:
    """Compile the step of a variant, and run it if it is asked for."""
    import jax

    from contrastive_jax import parallel, training
    from contrastive_jax.data import Dataset
    from experiments.run import build
    from experiments.run.sections import complete
    from experiments.simclr import EXPERIMENT

    random = np.random.default_rng(0)
    n = args.batch
    images = {
        "image": random.integers(0, 256, (n, 32, 32, 3), np.uint8),
        "label": random.integers(0, 10, n).astype(np.int32),
    }
    names = tuple(map(str, range(10)))
    dataset = Dataset("random", images, images, names, n)
    config = complete(_config(variant, args), EXPERIMENT.all_sections())
    run = build.build(EXPERIMENT, config, load=lambda config: dataset)
    state = run.fresh_state()
    resident = parallel.put_replicated(dict(run.feed.resident), run.mesh)
    sent = parallel.put_batch(run.feed.batch_at(0), run.mesh)
    key = jax.random.key(0)
    step = training.make_train_step(run.objective, run.optimizer, run.feed, run.mesh)
    compiled = step.lower(state, resident, sent, key).compile()
    temporaries = compiled.memory_analysis().temp_size_in_bytes / 2**20
    seconds, risen = [], None
    for _ in range(args.rounds):
        harness.restart_peak()
        before, start = harness.resident_kilobytes("VmRSS"), time.perf_counter()
        state, metrics = compiled(state, resident, sent, key)
        jax.block_until_ready((state, metrics))
        seconds.append(time.perf_counter() - start)
        # later calls reuse what the first one left resident
        risen = risen or (harness.resident_kilobytes("VmHWM") - before) / 1024
    timed = harness.timing(seconds[1:] or seconds) if seconds else {}
    return {"name": variant, **timed, "temporaries_mb": temporaries, "risen_mb": risen}


def _config(variant: str, args: argparse.Namespace):
    from configs import cifar

    config = cifar.get_config("cpu")
    config.data.batch_size = args.batch
    with config.unlocked():
        config.train.steps = 1000
        if variant == "chunks and tiles":
            config.train.chunk_size = args.chunk
            config.loss.block_size = args.block
    return config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8192)
    parser.add_argument("--chunk", type=int, default=256)
    parser.add_argument("--block", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=4, help="the first is not timed; 0: memory")
    parser.add_argument("--out", type=Path, default=harness.RESULTS / "chunked_step_cpu.json")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = harness.parse(parser, batch=64, chunk=16, block=32, rounds=2)
    if args.measure:
        print(json.dumps(measure(args.measure, args)))
        return
    sizes = [f"--{name}={getattr(args, name)}" for name in ("batch", "chunk", "block", "rounds")]
    rows = []
    for name in ("plain", "chunks and tiles"):
        line = harness.in_own_process("benchmarks.chunked_step", *sizes, "--measure", name)
        rows.append(json.loads(line))
        print(rows[-1])
    protocol = {name: getattr(args, name) for name in ("batch", "chunk", "block", "rounds")}
    ratios = {
        key: rows[1][key] / rows[0][key]
        for key in ("seconds", "temporaries_mb", "risen_mb")
        if rows[0].get(key)
    }
    print({key: round(value, 3) for key, value in ratios.items()})
    record = {**harness.circumstances(("jax", "numpy")), "protocol": protocol}
    harness.write(args.out, {**record, "rows": rows, "ratios": ratios})


if __name__ == "__main__":
    main()
