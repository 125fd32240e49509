"""Training several seeds in one program against training them in turn: seconds of a step of all.

    python benchmarks/seeds_at_once.py            # the ablations' digits, preset cpu
    python benchmarks/seeds_at_once.py --config configs/ablations/losses.py:cpu --seeds 5
    python benchmarks/seeds_at_once.py --smoke    # a try

Both run the loops' own compiled steps on the same states, batches and keys and take turns in one
process (A B A B ...). "in turn" is a step of each seed, one after another. Compiling is timed once,
apart, without the cache of earlier runs.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import harness

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")
DIGITS = "configs/ablations/temperature.py:cpu"


def built(path: str, batch_size: int | None) -> Any:
    """The run that a config of experiments.simclr stands for."""
    from experiments import command_line, launch, simclr

    config = command_line.parse(["seeds_at_once", f"--config={harness.ROOT / path}"], "").config
    config.data.batch_size = batch_size or config.data.batch_size
    return launch.build(simclr.EXPERIMENT, config)


def in_turn(run: Any, seeds: Sequence[int]) -> tuple[Callable[[], object], float]:
    """A step of each seed, one after another, and the seconds of compiling it."""
    import jax

    from contrastive_jax import train

    states, resident, sent, keys = inputs(run, seeds)
    jitted = train.make_train_step(run.objective, run.optimizer, run.feed, run.mesh)
    compiled, seconds = timed_compile(jitted, states[0], resident, sent[0], keys[0])

    def step() -> None:
        for i in range(len(states)):
            states[i], _ = compiled(states[i], resident, sent[i], keys[i])
        jax.block_until_ready(states)

    return step, seconds


def at_once(run: Any, seeds: Sequence[int]) -> tuple[Callable[[], object], float]:
    """One step of all seeds, and the seconds of compiling it."""
    import jax
    import jax.numpy as jnp

    from contrastive_jax import parallel, together, train

    states, resident, sent, keys = inputs(run, seeds)
    stack = jax.jit(
        lambda trees: jax.tree.map(lambda *x: jnp.stack(x), *trees),
        out_shardings=parallel.replicated(run.mesh),
    )
    stacked, keys = stack(states), stack(keys)
    sent = jax.device_put(stack(sent), parallel.batched(run.mesh, axis=1))
    vmapped = together.make_step(run.objective, run.optimizer, run.feed)
    jitted = train.compiled(vmapped, run.mesh)
    compiled, seconds = timed_compile(jitted, stacked, resident, sent, keys)

    def step() -> None:
        nonlocal stacked
        stacked, _ = compiled(stacked, resident, sent, keys)
        jax.block_until_ready(stacked)

    return step, seconds


def inputs(run: Any, seeds: Sequence[int]) -> tuple[list, Any, list, list]:
    """Fresh states, the resident arrays, the first batch and the key of each seed."""
    import jax

    from contrastive_jax import data, parallel, train

    feeds = [data.train_feed(run.dataset, seed) for seed in seeds]
    sent = [parallel.put_batch(feed.batch_at(0), run.mesh) for feed in feeds]
    keys = [train.stream_key(seed, train.AUGMENT_STREAM) for seed in seeds]
    keys = [jax.device_put(key, parallel.replicated(run.mesh)) for key in keys]
    resident = parallel.put_replicated(dict(run.feed.resident), run.mesh)
    return [run.init(seed) for seed in seeds], resident, sent, keys


def timed_compile(jitted: Any, *arguments: Any) -> tuple[Callable[..., Any], float]:
    start = time.perf_counter()
    compiled = jitted.lower(*arguments).compile()
    return compiled, time.perf_counter() - start


def measure(args: argparse.Namespace) -> dict[str, Any]:
    run, seeds = built(args.config, args.batch_size), range(args.seeds)
    made = {"in turn": in_turn(run, seeds), "at once": at_once(run, seeds)}
    seconds = harness.take_turns({name: step for name, (step, _) in made.items()}, args.rounds)
    rows = [
        {"name": name, **harness.timing(seconds[name]), "compile_seconds": made[name][1]}
        for name in made
    ]
    for row in rows:
        print("{name:8s} {seconds:8.3f} s, compiled in {compile_seconds:.1f} s".format(**row))
    ratio = rows[1]["seconds"] / rows[0]["seconds"]
    print(f"at once takes {ratio:.2f} times as long as in turn")
    protocol = {key: value for key, value in vars(args).items() if key != "out"}
    protocol["batch_size"] = run.dataset.batch_size
    protocol["what"] = f"a step of all {args.seeds} seeds, median of the rounds"
    return {
        **harness.circumstances(PACKAGES),
        "protocol": protocol,
        "ratio": ratio,
        "rows": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default=DIGITS, help="of experiments.simclr")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batch_size", type=int, help="default: the config's")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=harness.RESULTS / "seeds_at_once_cpu.json")
    args = harness.parse(parser, config="configs/digits.py:smoke", rounds=1)
    sys.path.insert(0, str(harness.ROOT))
    harness.write(args.out, measure(args))


if __name__ == "__main__":
    main()
