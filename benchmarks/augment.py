"""Count random views per second: ours, torchvision's and lightly's on PIL images in a DataLoader.

    python -m benchmarks.augment --data_dir DIR
    python -m benchmarks.augment --smoke    # a try

The recipe is that of configs/cifar.py: crop, flip, color jitter, grayscale, two views of 32 x 32
an image. Each contender runs in a process of its own and they take turns. A turn times --batches
batches in a row after a few that are not timed; a loader's processes have started by then, and
what they prepared in advance counts for them. The peer's best number of workers is what counts.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.shared import harness, work

PACKAGES = ("jax", "jaxlib", "numpy", "torch", "torchvision", "lightly", "pillow")
MODULE = "benchmarks.augment"
WARM_UP = 4  # as many as two workers prepare in advance


def contenders(workers: list[int]) -> list[str]:
    peers = ("torchvision PIL", "lightly PIL")
    loaders = [f"{peer}, {n} workers" for peer in peers for n in workers]
    return ["contrastive_jax", "torch batched", *loaders]


def batches(name: str, images: np.ndarray, batch_size: int) -> Callable[[], object]:
    """Make the function that computes the two views of the next batch."""
    settings = work.config("cpu", batch_size, "float32").augment.to_dict()
    if name == "contrastive_jax":
        return ours(images, batch_size, settings)
    import torch

    from benchmarks.peers import torch_views

    torch.set_num_threads(os.cpu_count() or 1)
    if name == "torch batched":
        return batched(images, batch_size, settings)
    library, _, workers = name.partition(" PIL, ")
    loader = torch_views.loader(images, settings, library, batch_size, int(workers.split()[0]))
    made = forever(loader)
    return lambda: next(made)


def ours(images: np.ndarray, batch_size: int, settings: dict[str, Any]) -> Callable[[], object]:
    """Gather uint8 images on the device and augment them, one program as in the training step."""
    import jax

    from contrastive_jax import augment, data

    views = augment.make_views(**settings)
    feed = data.feed(
        {"image": images, "label": np.zeros(len(images), np.int32)}, batch_size, seed=0
    )
    resident = jax.device_put(dict(feed.resident))
    key, done = jax.random.key(0), 0

    @jax.jit
    def two_views(resident, sent, key):
        batch = feed.assemble(resident, sent)
        return views.train(key, batch["image"], batch["index"])

    def make() -> None:
        nonlocal done
        sent = feed.batch_at(done)
        jax.block_until_ready(two_views(resident, sent, jax.random.fold_in(key, done)))
        done += 1

    return make


def batched(images: np.ndarray, batch_size: int, settings: dict[str, Any]) -> Callable[[], object]:
    """Make the views of the plain torch loop."""
    import torch

    from benchmarks.peers import torch_views

    resident = torch.from_numpy(np.asarray(images)).permute(0, 3, 1, 2).contiguous()

    def make() -> None:
        index = torch.randint(len(resident), (batch_size,))
        torch_views.batched(resident[index].repeat(2, 1, 1, 1), settings)

    return make


def forever(loader: Any) -> Any:
    while True:
        yield from loader


def measure(turn: dict[str, Any]) -> dict[str, float]:
    """Measure views per second and peak memory of one turn, in this process."""
    images = np.load(turn["images"], mmap_mode="c", allow_pickle=False)
    make = batches(turn["contender"], images, turn["batch_size"])
    for _ in range(WARM_UP):
        make()
    harness.restart_peak()
    start = time.perf_counter()
    for _ in range(turn["batches"]):
        make()
    rate = 2 * turn["batch_size"] * turn["batches"] / (time.perf_counter() - start)
    return {"rate": rate, "megabytes": harness.resident_kilobytes("VmHWM") / 1024}


def run(args: argparse.Namespace) -> dict[str, Any]:
    names, skipped = harness.split_installed(contenders(args.workers))
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        path, source = work.save_images(folder, args.data_dir)
        shared = {"images": str(path), "batch_size": args.batch_size, "batches": args.batches}
        for _ in range(args.rounds):
            for name, done in turns.items():
                turn = json.dumps({**shared, "contender": name})
                done.append(json.loads(harness.in_own_process(MODULE, "--turn", turn)))
    protocol = {
        "what": "views of 32 x 32 a second; median of the turns, each in a process of its own",
        "recipe": "configs/cifar.py: crop, flip, jitter 0.4/0.4/0.4/0.1 at 0.8, grayscale 0.1",
        "images": source,
        "batch_size": args.batch_size,
        "batches": args.batches,
        "warm_up_batches": WARM_UP,
        "megabytes": "peak resident set of the main process, libraries included, workers not",
        "rounds": args.rounds,
    }
    rows = [row(name, done) for name, done in turns.items()]
    found = {"protocol": protocol, "skipped": skipped, "rows": rows}
    return {**harness.circumstances(PACKAGES), **found}


def row(name: str, turns: list[dict[str, float]]) -> dict[str, Any]:
    rates = [turn["rate"] for turn in turns]
    found = {
        "contender": name,
        "views_per_second": statistics.median(rates),
        "spread": [min(rates), max(rates)],
        "rounds": rates,
        "megabytes": max(turn["megabytes"] for turn in turns),
    }
    print("{contender:28s} {views_per_second:10.0f} views/s".format(**found))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--data_dir", help="of prepared CIFAR-10; default: TFDS_DATA_DIR")
    parser.add_argument("--out", type=Path, default=harness.RESULTS / "augment_cpu.json")
    parser.add_argument("--turn", help=argparse.SUPPRESS)
    args = harness.parse(parser, batch_size=64, batches=2, rounds=1, workers=[0])
    if args.turn:
        print(json.dumps(measure(json.loads(args.turn))))
    else:
        harness.write(args.out, run(args))


if __name__ == "__main__":
    main()
