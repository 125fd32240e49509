"""Count the images a second that are read from a folder of JPEGs, against torch on the same files.

    python -m pip install -r benchmarks/requirements.txt
    python -m benchmarks.folder_loader                # minutes, on a quiet machine
    python -m benchmarks.folder_loader --smoke        # a try

crops    two random resized crops of each image as uint8, in batches and in random order:
         contrastive_jax from data.source=folder with data.streaming, torch from torchvision's
         ImageFolder through a DataLoader, whose transform makes the crops of one decoded image, by
         torchvision on Pillow images and on tensors.
centers  every image once, resized and center-cropped, into one array: contrastive_jax by
         `data.load("folder", image_size=...)`, torch by ImageFolder with Resize and CenterCrop
         through a DataLoader, its batches copied into one array.

The JPEGs are noise with the spectrum of photographs, in ten class folders; all of them come out of
the page cache. Both are measured on images of ImageNet's size and on those of a camera's, which
contrastive_jax lets the JPEG decoder shrink. With 0 workers everything runs in one process bound to
one core; with W workers each contender has W processes (contrastive_jax has a thread a core for the
centers). Contenders take turns (A B C A B C ...), as in benchmarks.host_input; the medians over the
rounds are reported, and ours as a fraction of the faster torch.
"""

import argparse
import contextlib
import functools
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks import host_input
from benchmarks.shared import harness, photos

CLASSES = 10


def ours(folder: Path, workers: int, args: argparse.Namespace) -> Iterator[int]:
    """Stream crops by `data.train_feed`."""
    from contrastive_jax import augment, data

    sizes = {"batch_size": args.batch_size, "image_size": args.size, "bank": 1, "limit_test": 1}
    dataset = data.load("folder", data_dir=folder, streaming=True, workers=workers, **sizes)
    crops = augment.make_views(args.size).crops
    with contextlib.closing(data.train_feed(dataset, 0, crops)) as feed:
        for step in itertools.count():
            yield len(feed.batch_at(step)["image"])


class TwoCrops:
    """Two random resized crops [2, C, S, S] uint8 of a decoded image."""

    def __init__(self, size: int, on_tensors: bool):
        from torchvision.transforms import v2

        to_tensor, crop = v2.PILToTensor(), v2.RandomResizedCrop(size, antialias=True)
        self.once = to_tensor if on_tensors else lambda image: image
        self.each = crop if on_tensors else v2.Compose([crop, to_tensor])

    def __call__(self, image):
        import torch

        decoded = self.once(image)
        return torch.stack([self.each(decoded), self.each(decoded)])


def torch_crops(
    folder: Path, workers: int, args: argparse.Namespace, on_tensors: bool
) -> Iterator[int]:
    """Read crops by torchvision's ImageFolder and torch's DataLoader."""
    torch = harness.import_torch()
    from torch.utils.data import DataLoader, RandomSampler
    from torchvision.datasets import ImageFolder

    torch.set_num_threads(1)  # a DataLoader's workers have one each as well
    images = ImageFolder(str(folder), TwoCrops(args.size, on_tensors))
    endless = RandomSampler(images, replacement=True, num_samples=2**40)
    for crops, _ in DataLoader(images, args.batch_size, sampler=endless, num_workers=workers):
        yield len(crops)


def our_centers(folder: Path, workers: int, args: argparse.Namespace) -> int:
    """Read all images into memory; returns their number."""
    from contrastive_jax import data

    loaded = data.load("folder", data_dir=folder, batch_size=1, image_size=args.size)
    return len(loaded.train["image"]) + len(loaded.test["image"])


def torch_centers(folder: Path, workers: int, args: argparse.Namespace) -> int:
    """Read all images into one array by torch; returns their number."""
    torch = harness.import_torch()
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    torch.set_num_threads(1)
    cubic = v2.InterpolationMode.BICUBIC
    cut = [v2.Resize(args.size, interpolation=cubic), v2.CenterCrop(args.size), v2.PILToTensor()]
    images = ImageFolder(str(folder), v2.Compose(cut))
    kept = np.empty((len(images), 3, args.size, args.size), np.uint8)
    at = 0
    for batch, _ in DataLoader(images, args.batch_size, num_workers=workers):
        kept[at : at + len(batch)] = batch.numpy()
        at += len(batch)
    return at


CROPS: dict[str, Callable[..., Iterator[int]]] = {
    "contrastive_jax": ours,
    "torch DataLoader, ImageFolder, Pillow": functools.partial(torch_crops, on_tensors=False),
    "torch DataLoader, ImageFolder, tensors": functools.partial(torch_crops, on_tensors=True),
}
CENTERS: dict[str, Callable[..., int]] = {
    "contrastive_jax": our_centers,
    "torch DataLoader, ImageFolder": torch_centers,
}


def crops_rate(contender: Callable, folder: Path, workers: int, args: argparse.Namespace) -> float:
    with contextlib.closing(contender(folder, workers, args)) as batches:
        return host_input.rate(batches, workers, args.seconds)


def centers_rate(
    contender: Callable, folder: Path, workers: int, args: argparse.Namespace
) -> float:
    start = time.perf_counter()
    images = contender(folder, workers, args)
    return images / (time.perf_counter() - start)


WORK = {"crops": (CROPS, crops_rate), "centers": (CENTERS, centers_rate)}
CAMERA = "large "  # begins the work on images of a camera's size


def measure(work: str, folder: Path, workers: int, args: argparse.Namespace) -> list[dict]:
    """Measure every contender once in each round; returns a row for each."""
    contenders, rate = WORK[work.removeprefix(CAMERA)]
    installed = [name for name in contenders if name in args.runnable]
    rates: dict[str, list[float]] = {name: [] for name in installed}
    with host_input.cores_for(workers) as cores:
        for _ in range(args.rounds):
            for name in installed:
                rates[name].append(rate(contenders[name], folder, workers, args))
                time.sleep(harness.REST)
    rows = [
        {"work": work, **host_input.row(name, workers, cores, rates[name])} for name in installed
    ]
    peers = [row["images_per_second"] for row in rows[1:]]
    if peers:
        rows[0]["of_the_fastest_peer"] = rows[0]["images_per_second"] / max(peers)
        print(f"{work}: {rows[0]['of_the_fastest_peer']:.2f} of the fastest peer", flush=True)
    return rows


def write_folder(folder: Path, n: int, sides: tuple[int, int]) -> int:
    """Write JPEGs of about this height and width into class folders; returns their mean bytes."""
    spread = [(round(0.8 * side), round(1.2 * side)) for side in sides]
    encoded = photos.photos(n, *spread, seed=0)
    for i, jpeg in enumerate(encoded):
        target = folder / f"class{i % CLASSES}" / f"{i:06d}.jpg"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(jpeg)
    return round(statistics.mean(map(len, encoded)))


def run(args: argparse.Namespace) -> dict:
    args.runnable, skipped = harness.split_installed({**CROPS, **CENTERS})
    sets = {"": (args.images, tuple(args.sides)), CAMERA: (args.large, tuple(args.large_sides))}
    rows, written = [], {}
    for name, (n, sides) in sets.items():
        with tempfile.TemporaryDirectory() as folder:
            jpeg_bytes = write_folder(Path(folder), n, sides)
            written[f"{name}images"] = {"n": n, "sides": sides, "mean bytes": jpeg_bytes}
            for work in WORK:
                for workers in args.workers:
                    rows += measure(name + work, Path(folder), workers, args)
    protocol = {
        "crops": "decode a JPEG and cut two random resized crops as uint8",
        "centers": "decode each JPEG once, resize, crop the center, into one array",
        **written,
        "spread of both sides": "0.8 to 1.2, uniform",
        "size": args.size,
        "batch_size": args.batch_size,
        "seconds of a turn of crops": args.seconds,
        "rounds": args.rounds,
        "images_per_second": "median of the rounds, contenders in turn in one process",
    }
    found = {"protocol": protocol, "skipped": skipped, "rows": rows}
    return {**harness.circumstances(host_input.PACKAGES), **found}


def parse() -> argparse.Namespace:
    cores = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--sides", type=int, nargs=2, default=[375, 500], help="height and width")
    parser.add_argument("--large", type=int, default=80, help="images of a camera's size")
    parser.add_argument("--large-sides", type=int, nargs=2, default=[3024, 4032])
    parser.add_argument("--size", type=int, default=224, help="side of a crop")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, cores])
    parser.add_argument("--seconds", type=float, default=5.0, help="that a turn of crops is timed")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=harness.RESULTS / "folder_loader.json")
    tiny = {"images": 128, "sides": [120, 160], "large": 80, "large_sides": [300, 400], "size": 32}
    return harness.parse(parser, workers=[0], seconds=0.5, rounds=1, **tiny)


def main() -> None:
    args = parse()
    harness.write(args.out, run(args))


if __name__ == "__main__":  # workers import this file
    main()
