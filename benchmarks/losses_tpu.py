"""Compile large losses for a TPU, on any machine, and record what they need of it.

    python -m pip download --no-deps "libtpu==0.0.42.*" && unzip libtpu-*.whl -d DIR   # jax[tpu]'s
    python -m benchmarks.losses_tpu --libtpu DIR/libtpu/libtpu.so
    python -m benchmarks.losses_tpu --libtpu DIR/libtpu/libtpu.so --smoke

XLA's compiler for TPUs runs without one: value and gradient of the mean loss to bfloat16 embeddings
on one chip. Memory is that of the compiled program. No time is measured: the bound is that of the
matrix products at the chip's peak, which no program can beat: value 2 N^2 D, gradient 4 N^2 D, and
2 N^2 D again where tiles compute their similarities anew in the backward pass.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.shared import harness, tpu

TOPOLOGIES = {"v5e": "v5e:2x2", "v5p": "v5p:2x2x1"}
SIZES = {"symmetric_info_nce": 512, "siglip": 768}  # loss: D, as published figures of GPUs have it


def compiled(topology: str, loss: str, pairs: int, dim: int, block_size: int | None) -> Any:
    """Compile value and gradient for the first chip of a topology."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    from contrastive_jax import losses

    sharding = NamedSharding(Mesh(np.array(tpu.devices(topology)[:1]), ("data",)), PartitionSpec())
    x = jax.ShapeDtypeStruct((pairs, dim), jnp.bfloat16, sharding=sharding)
    function: Callable = getattr(losses, loss)

    def mean(a, b):
        return function(a, b, 0.5, block_size=block_size).mean()

    return jax.jit(jax.value_and_grad(mean, (0, 1))).lower(x, x).compile()


def row(name: str, loss: str, block_size: int | None, pairs: int) -> dict[str, Any]:
    """Compile one form of a loss for a chip: its memory, or why it does not fit."""
    topology, dim = TOPOLOGIES[name], SIZES[loss]
    products = 6 if block_size is None else 8
    about = {"chip": name, "loss": loss, "pairs": pairs, "dim": dim, "block_size": block_size}
    bound = products * pairs**2 * dim / (tpu.CHIPS[name].teraflops * 1e12)
    start = time.perf_counter()
    try:
        memory = compiled(topology, loss, pairs, dim, block_size).memory_analysis()
    except Exception as error:  # the compiler's own class says no more than its message
        needed = tpu.needed_of(error)
        if needed is None:
            raise
        return {**about, "needs": needed}
    return {
        **about,
        "temporaries_mb": round(memory.temp_size_in_bytes / 2**20, 1),
        "arguments_mb": round(memory.argument_size_in_bytes / 2**20, 1),
        "seconds_of_products_at_peak": round(bound, 4),
        "seconds_to_compile": round(time.perf_counter() - start, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--libtpu", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=65_536)
    parser.add_argument("--block-size", type=int, default=4096)
    parser.add_argument("--out", type=Path, default=harness.RESULTS / "losses_tpu_compiled.json")
    args = harness.parse(parser, pairs=2048, block_size=512)
    tpu.use(args.libtpu)
    rows = []
    for chip in TOPOLOGIES:
        for loss in SIZES:
            for block_size in (args.block_size, None):
                rows.append(row(chip, loss, block_size, args.pairs))
                print(rows[-1])
    what = "value and gradient of the mean loss to bfloat16 [pairs, dim], compiled for one chip"
    about = {**harness.circumstances(("jax",)), "libtpu": tpu.version_of(args.libtpu)}
    record = {**about, "protocol": {"what": what}}
    harness.write(args.out, {**record, "rows": rows})


if __name__ == "__main__":
    main()
