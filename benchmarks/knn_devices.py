"""Split a search for neighbors over devices: equality with one device, and bytes on each.

    python -m benchmarks.knn_devices         # 200,000 x 512 on 1 to 8 simulated devices: minutes

The search of random features on the simulated devices of one CPU has to find what one device finds,
bit for bit; its time is no figure, as the devices share the cores. The plan is what XLA's compiler
says of a search in a bank of ImageNet's size, for which no array is made: bytes of the arguments
and of the temporary arrays of one device. Queries are searched for 512 at a time, so that it holds
for 50,000 as for 512. Exits with 1 where a neighbor is another.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.shared import harness
from contrastive_jax import parallel
from contrastive_jax.evaluation import neighbors

DEVICES = (1, 2, 4, 8)
PLANNED = (1, 8, 64)
BANK, DIM, K = 1_281_167, 2048, 200
BLOCK_SIZE = 8192
PACKAGES = ("jax", "numpy")


def equal(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Compare what several devices find with what one finds."""
    rng = np.random.default_rng(0)
    bank, query = (
        rng.standard_normal((n, args.dim), np.float32) for n in (args.bank, args.queries)
    )
    bank[-args.queries :] = bank[: args.queries]  # ties

    def search(count: int) -> tuple[np.ndarray, np.ndarray]:
        options = {"block_size": args.block_size, "devices": jax.devices()[:count]}
        return neighbors.knn_neighbors(bank, query, k=args.k, **options)

    one, rows = search(1), []
    for count in DEVICES:
        pairs = zip(search(count), one, strict=True)
        rows.append({"devices": count, "equal": all(np.array_equal(*pair) for pair in pairs)})
        print(rows[-1], flush=True)
    return rows


def plan(count: int) -> dict[str, Any]:
    """Compile the search of some queries in a large bank, and read the bytes of a device."""
    mesh = parallel.make_mesh(jax.devices()[:count])
    split, whole = parallel.batched(mesh), parallel.replicated(mesh)
    tiles = -(-BANK // BLOCK_SIZE)
    rows = -(-tiles // count) * count * BLOCK_SIZE
    bank = jax.ShapeDtypeStruct((rows, DIM), np.float32, sharding=split)
    queries = (
        jax.ShapeDtypeStruct((neighbors._QUERY_ROWS, DIM), np.float32, sharding=whole),
        jax.ShapeDtypeStruct((neighbors._QUERY_ROWS,), np.int32, sharding=whole),
        jax.ShapeDtypeStruct((), np.int32, sharding=whole),
    )
    known = {"k": K, "metrics": ("cosine",), "block_size": BLOCK_SIZE, "mesh": mesh}
    used = neighbors._nearest.lower(bank, *queries, **known).compile().memory_analysis()
    return {
        "devices": count,
        "bank_gigabytes": used.argument_size_in_bytes / 2**30,
        "temporary_gigabytes": used.temp_size_in_bytes / 2**30,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bank", type=int, default=200_000)
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--k", type=int, default=K)
    parser.add_argument("--block_size", type=int, default=BLOCK_SIZE)
    parser.add_argument("--out", type=Path, default=harness.RESULTS / "knn_devices.json")
    args = harness.parse(parser, bank=500, queries=64, dim=8, k=60, block_size=16)
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", max(PLANNED))
    compared = equal(args)
    holds = all(row["equal"] for row in compared)
    sizes = ("bank", "queries", "dim", "k", "block_size")
    record = {
        **harness.circumstances(PACKAGES),
        **{name: getattr(args, name) for name in sizes},
        "compared": compared,
        "plan": {
            **{"bank": BANK, "dim": DIM, "k": K, "queries_at_once": neighbors._QUERY_ROWS},
            "devices": [plan(count) for count in PLANNED],
        },
        "holds": holds,
    }
    harness.write(args.out, record)
    raise SystemExit(0 if holds else "does not hold: a neighbor is another")


if __name__ == "__main__":
    main()
