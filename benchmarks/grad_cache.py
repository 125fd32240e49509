"""Time a step with GradCache, which encodes in chunks, against the plain one.

    python -m benchmarks.grad_cache
    python -m benchmarks.grad_cache --pairs 32 --chunk 8 --rounds 1 --out /tmp/gc.json   # a try

Both compute the gradient of the mean NT-Xent loss to the weights of a residual MLP, which treats
each row by itself, in float32. Memory is what XLA reserves for temporaries of the compiled step.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.shared import harness


def encode(params: list, x: np.ndarray, key: object) -> np.ndarray:
    """Apply blocks x + relu(x W) U, to each row by itself as GradCache needs."""
    import jax

    del key
    for up, down in params:
        x = x + jax.nn.relu(x @ up) @ down
    return x


def make_steps(args: argparse.Namespace) -> dict[str, tuple[Callable[[], object], float]]:
    """Compile both steps: name -> (step, megabytes of temporaries)."""
    import jax

    from contrastive_jax import losses
    from contrastive_jax.grad_cache import encode_in_chunks

    random = np.random.default_rng(0)
    shapes = [((args.dim, 4 * args.dim), (4 * args.dim, args.dim))] * args.blocks
    params = jax.tree.map(
        lambda shape: jax.numpy.asarray(random.normal(0, 0.05, shape).astype(np.float32)),
        shapes,
        is_leaf=lambda x: isinstance(x[0], int),
    )
    x = jax.numpy.asarray(random.normal(size=(args.pairs, 2, args.dim)).astype(np.float32))
    key = jax.random.key(0)

    def plain(params):
        return losses.nt_xent(encode(params, x, key), 0.5).mean()

    def chunked(params):
        z = encode_in_chunks(encode, params, x, key, chunk_size=args.chunk)
        return losses.nt_xent(z, 0.5).mean()

    steps = {}
    for name, loss in (("plain", plain), ("chunks", chunked)):
        compiled = jax.jit(jax.grad(loss)).lower(params).compile()
        megabytes = compiled.memory_analysis().temp_size_in_bytes / 2**20
        steps[name] = lambda compiled=compiled: jax.block_until_ready(compiled(params)), megabytes
    return steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=2048)
    parser.add_argument("--chunk", type=int, default=128)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=harness.RESULTS / "grad_cache_cpu.json")
    args = harness.parse(parser, pairs=256, dim=32, rounds=1)
    steps = make_steps(args)
    seconds = harness.take_turns({name: step for name, (step, _) in steps.items()}, args.rounds)
    rows = [
        {"name": name, **harness.timing(seconds[name]), "megabytes": round(megabytes, 1)}
        for name, (_, megabytes) in steps.items()
    ]
    protocol = {key: value for key, value in vars(args).items() if key != "out"}
    ratio = rows[1]["seconds"] / rows[0]["seconds"]
    for row in rows:
        print("{name:8s} {seconds:8.3f} s {megabytes:8.1f} MB".format(**row))
    print(f"chunks take {ratio:.2f} times as long")
    record = {**harness.circumstances(("jax", "numpy")), "protocol": protocol, "rows": rows}
    harness.write(args.out, record)


if __name__ == "__main__":
    main()
