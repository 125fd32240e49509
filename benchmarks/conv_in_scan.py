"""Time the gradient of a convolution inside a `lax.scan` on a CPU: XLA's own, and ours.

    python -m benchmarks.conv_in_scan
    python -m benchmarks.conv_in_scan --smoke     # a try

The gradient to the input and that to the filter, of a 3 x 3 convolution of 32 channels on 4 chunks
of 16 images of 32 x 32: all at once, and chunk by chunk in a scan. Contenders take turns in one
process.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.shared import harness


def make_steps(chunks: int, batch: int) -> dict[str, harness.Step]:
    """Compile each gradient of each form, as training steps are compiled."""
    import jax
    import jax.numpy as jnp

    from contrastive_jax import parallel
    from contrastive_jax.encoders.conv import conv2d
    from contrastive_jax.training import compiler_options

    options = compiler_options.for_steps(parallel.make_mesh())
    x = jax.random.normal(jax.random.key(0), (chunks, batch, 32, 32, 32))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 32, 32)) / 17

    def xla(x: jax.Array, kernel: jax.Array) -> jax.Array:
        dims = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=dims)

    def ours(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return conv2d(x, kernel, 1, ((1, 1), (1, 1)))

    def whole(convolve: Callable, x: Any, kernel: Any) -> jax.Array:
        return jnp.sum(convolve(x.reshape(-1, *x.shape[2:]), kernel) ** 2)

    def in_scan(convolve: Callable, x: Any, kernel: Any) -> jax.Array:
        return jnp.sum(jax.lax.scan(lambda _, x: (None, convolve(x, kernel)), None, x)[1] ** 2)

    steps = {}
    for library, convolve in (("XLA", xla), ("contrastive_jax", ours)):
        for form in (whole, in_scan):
            for number, of in enumerate(("input", "filter")):
                gradient = jax.grad(lambda *a, f=form, c=convolve: f(c, *a), number)
                compiled = jax.jit(gradient, compiler_options=options).lower(x, kernel).compile()
                name = f"{library}, {form.__name__}, to the {of}"
                steps[name] = lambda run=compiled: jax.block_until_ready(run(x, kernel))
    return steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chunks", type=int, default=4)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=harness.RESULTS / "conv_in_scan_cpu.json")
    args = harness.parse(parser, chunks=2, batch=8, rounds=1)
    seconds = harness.take_turns(make_steps(args.chunks, args.batch), args.rounds)
    rows = [{"name": name, **harness.timing(each)} for name, each in seconds.items()]
    for row in rows:
        print("{name:44s} {seconds:8.3f} s".format(**row))
    protocol = {"chunks": args.chunks, "batch": args.batch, "rounds": args.rounds}
    record = {**harness.circumstances(("jax", "jaxlib")), "protocol": protocol}
    harness.write(args.out, {**record, "rows": rows})


if __name__ == "__main__":
    main()
