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
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.shared import harness


class Chip(NamedTuple):
    """A chip's topology for the compiler, and its peak, cloud.google.com/tpu/docs/v5e and /v5p."""

    topology: str
    teraflops: float  # bfloat16
    gigabytes: float  # of HBM


CHIPS = {"v5e": Chip("v5e:2x2", 197.0, 16.0), "v5p": Chip("v5p:2x2x1", 459.0, 95.0)}
SIZES = {"symmetric_info_nce": 512, "siglip": 768}  # loss: D, as published figures of GPUs have it


def compiled(chip: Chip, loss: str, pairs: int, dim: int, block_size: int | None) -> Any:
    """Compile value and gradient for the first chip of a topology."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.experimental import topologies
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    from contrastive_jax import losses

    devices = topologies.get_topology_desc(platform="tpu", topology_name=chip.topology).devices
    sharding = NamedSharding(Mesh(np.array(devices[:1]), ("data",)), PartitionSpec())
    x = jax.ShapeDtypeStruct((pairs, dim), jnp.bfloat16, sharding=sharding)
    function: Callable = getattr(losses, loss)

    def mean(a, b):
        return function(a, b, 0.5, block_size=block_size).mean()

    return jax.jit(jax.value_and_grad(mean, (0, 1))).lower(x, x).compile()


def row(name: str, loss: str, block_size: int | None, pairs: int) -> dict[str, Any]:
    """Compile one form of a loss for a chip: its memory, or why it does not fit."""
    chip, dim = CHIPS[name], SIZES[loss]
    products = 6 if block_size is None else 8
    about = {"chip": name, "loss": loss, "pairs": pairs, "dim": dim, "block_size": block_size}
    bound = products * pairs**2 * dim / (chip.teraflops * 1e12)
    start = time.perf_counter()
    try:
        memory = compiled(chip, loss, pairs, dim, block_size).memory_analysis()
    except Exception as error:  # the compiler's own class says no more than its message
        needed = re.search(r"\(([\d.]+G)\)", str(error))
        if needed is None:
            raise
        return {**about, "needs": f"{needed[1]}B of {chip.gigabytes:.0f} GB"}
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
    os.environ |= {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_LIBRARY_PATH": str(args.libtpu.resolve()),
    }
    rows = []
    for chip in CHIPS:
        for loss in SIZES:
            for block_size in (args.block_size, None):
                rows.append(row(chip, loss, block_size, args.pairs))
                print(rows[-1])
    what = "value and gradient of the mean loss to bfloat16 [pairs, dim], compiled for one chip"
    record = {**harness.circumstances(("jax", "libtpu")), "protocol": {"what": what}}
    harness.write(args.out, {**record, "rows": rows})


if __name__ == "__main__":
    main()
