"""Count the images a second that a host decodes and crops, against torch's loader.

    python -m pip install -r benchmarks/requirements.txt
    python -m benchmarks.host_input                   # minutes, on a quiet machine
    python -m benchmarks.host_input --images 32 --height 40 --width 48 --size 16 --rounds 1 \
        --seconds 0.2 --out /tmp/host_input.json      # a try

Every contender reads the same JPEGs in random order and makes two random resized crops of each as
uint8, in batches: contrastive_jax from an ArrayRecord set through `data.train_feed`, torch from
files through a DataLoader whose dataset opens the JPEG with Pillow once and applies torchvision's
RandomResizedCrop twice. Flips, color and blur are left out: they are done on the device here. The
JPEGs are noise with the spectrum of photographs; their mean size in bytes is recorded, and all of
them come out of the page cache.

With 0 workers everything runs in one process that is bound to one core, with one thread of torch.
With W workers each contender has W processes, on all cores. Contenders take turns (A B C A B C
...); a turn starts its loader anew, waits for its first batches, and from then on counts images
for --seconds. Reported is the median over the rounds, and that over the cores in use.
"""

import argparse
import contextlib
import importlib.util
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.shared import harness, photos

PACKAGES = ("jax", "grain", "array_record", "pillow", "numpy", "torch", "torchvision")
Batches = Iterator[int]  # the sizes of batches as they arrive, without end


def ours(folder: Path, workers: int, args: argparse.Namespace) -> Batches:
    """Read a streamed set by `data.train_feed`."""
    from contrastive_jax import augment, data

    sizes = {"batch_size": args.batch_size, "image_size": args.size, "bank": 1, "limit_test": 1}
    dataset = data.load(
        "tfds", name="snapshots", data_dir=folder, streaming=True, workers=workers, **sizes
    )
    crops = augment.make_views(args.size).crops
    with contextlib.closing(data.train_feed(dataset, 0, crops)) as feed:
        for step in itertools.count():
            yield len(feed.batch_at(step)["image"])


class TwoCrops:
    """A torch dataset: two random resized crops [2, C, S, S] uint8 of each file."""

    def __init__(self, folder: Path, size: int, on_tensors: bool):
        from torchvision.transforms import v2

        self.files = sorted(folder.glob("*.jpg"))
        to_tensor, crop = v2.PILToTensor(), v2.RandomResizedCrop(size, antialias=True)
        self.once = to_tensor if on_tensors else lambda image: image
        self.each = crop if on_tensors else v2.Compose([crop, to_tensor])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int):
        import torch
        from PIL import Image

        with Image.open(self.files[index]) as image:
            decoded = self.once(image.convert("RGB"))
            return torch.stack([self.each(decoded), self.each(decoded)]), index % 3


def torch_loader(folder: Path, workers: int, args: argparse.Namespace, on_tensors: bool) -> Batches:
    """Read files by torch's DataLoader with torchvision's transforms."""
    torch = harness.import_torch()
    from torch.utils.data import DataLoader, RandomSampler

    torch.set_num_threads(1)  # a DataLoader's workers have one each as well
    images = TwoCrops(folder, args.size, on_tensors)
    endless = RandomSampler(images, replacement=True, num_samples=2**40)
    loader = DataLoader(images, args.batch_size, sampler=endless, num_workers=workers)
    for crops, _ in loader:
        yield len(crops)


def torch_on_pillow(*args) -> Batches:
    return torch_loader(*args, on_tensors=False)


def torch_on_tensors(*args) -> Batches:
    return torch_loader(*args, on_tensors=True)


CONTENDERS = {
    "contrastive_jax": ours,
    "torch DataLoader, torchvision on Pillow images": torch_on_pillow,
    "torch DataLoader, torchvision on tensors": torch_on_tensors,
}


def installed_contenders() -> dict[str, Callable[..., Batches]]:
    """List what can run here: without torch, ours alone."""
    if any(importlib.util.find_spec(name) is None for name in ("torch", "torchvision")):
        return {"contrastive_jax": ours}
    return CONTENDERS


def make_photos(folder: Path, args: argparse.Namespace) -> int:
    """Write the same JPEGs as files and as a prepared set; returns their mean size in bytes."""
    spread = [(round(0.8 * side), round(1.2 * side)) for side in (args.height, args.width)]
    encoded = photos.photos(args.images, *spread, seed=0)
    for i, jpeg in enumerate(encoded):
        (folder / f"{i:06d}.jpg").write_bytes(jpeg)
    photos.write_set(folder, {"train": encoded, "test": encoded[:1]})
    return round(statistics.mean(map(len, encoded)))


@contextlib.contextmanager
def cores_for(workers: int) -> Iterator[int]:
    """Bind this thread, and all that it starts, to one core if there are no workers."""
    every = os.sched_getaffinity(0)
    cores = every if workers else {max(every)}
    os.sched_setaffinity(0, cores)
    try:
        yield len(cores)
    finally:
        os.sched_setaffinity(0, every)


def rate(batches: Batches, workers: int, seconds: float) -> float:
    """Count images a second, once the loader has been running for some batches."""
    for _ in range(1 + 2 * workers):  # what was made while it started
        next(batches)
    images, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        images += next(batches)
    return images / (time.perf_counter() - start)


def measure(folder: Path, workers: int, args: argparse.Namespace) -> list[dict]:
    """Measure every contender once in each round; returns a row for each."""
    contenders = installed_contenders()
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    with cores_for(workers) as cores:
        for _ in range(args.rounds):
            for name, contender in contenders.items():
                with contextlib.closing(contender(folder, workers, args)) as batches:
                    rates[name].append(rate(batches, workers, args.seconds))
                time.sleep(harness.REST)
    return [row(name, workers, cores, rates[name]) for name in contenders]


def row(name: str, workers: int, cores: int, rates: list[float]) -> dict:
    median = statistics.median(rates)
    result = {
        "name": name,
        "workers": workers,
        "cores": cores,
        "images_per_second": median,
        "images_per_second_per_core": median / cores,
        "rounds": rates,
    }
    print(f"{name:48s} {workers:3d} workers {median / cores:8.1f} images/s a core", flush=True)
    return result


def run(args: argparse.Namespace) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        jpeg_bytes = make_photos(Path(folder), args)
        rows = [row for workers in args.workers for row in measure(Path(folder), workers, args)]
    protocol = {
        "what": "decode a JPEG and cut two random resized crops as uint8",
        "images": args.images,
        "height and width": [args.height, args.width],
        "spread of both": "0.8 to 1.2, uniform",
        "mean bytes of a JPEG": jpeg_bytes,
        "crop": args.size,
        "batch_size": args.batch_size,
        "seconds of a turn": args.seconds,
        "rounds": args.rounds,
        "images_per_second": "median of the rounds, contenders in turn in one process",
    }
    return {**harness.circumstances(PACKAGES), "protocol": protocol, "rows": rows}


def parse() -> argparse.Namespace:
    cores = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--height", type=int, default=375)
    parser.add_argument("--width", type=int, default=500)
    parser.add_argument("--size", type=int, default=224, help="side of a crop")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, cores])
    parser.add_argument("--seconds", type=float, default=5.0, help="that a turn is timed")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=harness.RESULTS / "host_input.json")
    return harness.parse(parser, images=64, workers=[0], seconds=0.5, rounds=1)


def main() -> None:
    args = parse()
    harness.write(args.out, run(args))


if __name__ == "__main__":  # workers import this file
    main()
