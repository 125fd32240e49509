"""Labelled images, what they must satisfy, and batches of them by index."""

import functools
from typing import NamedTuple, cast

import jax
import numpy as np

from contrastive_jax.errors import DataError
from contrastive_jax.types import Batch, Feed

UNLABELLED = -1


class Examples(NamedTuple):
    """Labelled images; a label of -1 means unlabelled."""

    image: np.ndarray  # [N,H,W,C] uint8
    label: np.ndarray  # [N] int32


class Stream(NamedTuple):
    """A training split that stays on disk, by what a process needs to read it."""

    folder: str  # of the prepared set
    split: str
    mode: str  # Pillow's name of the pixels
    n: int  # images, the first ones of the split
    workers: int  # processes that decode; 0 for threads of this one
    on_corrupt: str = "error"  # or "skip": what to do with an image that cannot be read


class Dataset(NamedTuple):
    """A training and a test split, with the batch size that training uses.

    Where the training split is streamed, `train` is the labelled part of it that evaluation uses.
    """

    name: str
    train: Examples
    test: Examples
    class_names: tuple[str, ...]
    batch_size: int
    stream: Stream | None = None

    @property
    def n_train(self) -> int:
        """Images that training sees in an epoch, but for those of a last incomplete batch."""
        return len(self.train.image) if self.stream is None else self.stream.n


def labelled(examples: Examples) -> Examples:
    """The examples that have a label: what a nearest-neighbour bank or a probe can use.

    Raises:
      DataError: when no example has one.

    Example:
      >>> some = Examples(np.zeros((3, 2, 2, 1), np.uint8), np.array([4, -1, 5], np.int32))
      >>> labelled(some).label
      array([4, 5], dtype=int32)
    """
    keep = examples.label != UNLABELLED
    if not keep.any():
        raise DataError(
            f"none of the {len(keep)} training images has a label, and evaluation needs some\n"
            "Train on a split that has both, such as train_split='train+unlabelled'"
        )
    return examples if keep.all() else Examples(examples.image[keep], examples.label[keep])


def feed(examples: Examples, batch_size: int, seed: int) -> Feed:
    """Batches of in-memory examples, gathered by index inside the compiled step.

    Epoch e visits the examples in the order `default_rng((seed, e)).permutation(N)` and drops the
    last N mod B, so `batch_at(step)` depends on nothing but (seed, step).

    Args:
      examples: N images and labels. They are the feed's `resident`, still on the host: place them
        on the device once.
      batch_size: B, from 1 to N.
      seed: int >= 0.

    Returns:
      A feed whose batches are {"image": [B,H,W,C] uint8, "label": [B] int32, "index": [B] int32}.

    Raises:
      ValueError: for a batch size or a seed out of range.

    Example:
      >>> some = Examples(np.zeros((6, 2, 2, 1), np.uint8), np.arange(6, dtype=np.int32))
      >>> batches = feed(some, batch_size=2, seed=0)
      >>> batch = batches.assemble(batches.resident, batches.batch_at(0))
      >>> bool((batch["label"] == batch["index"]).all())
      True
    """
    n = len(examples.image)
    check_feed(batch_size, n, seed)

    def batch_at(step: int) -> dict[str, np.ndarray]:
        return {"index": batch_rows(int(step), n, batch_size, seed)}

    return Feed(cast(Batch, examples._asdict()), batch_at, _gather)


def batch_rows(step: int, n: int, batch_size: int, seed: int) -> np.ndarray:
    """Which of n examples are the batch of a step: [B] int32.

    >>> sorted(np.concatenate([batch_rows(step, 6, 2, seed=0) for step in range(3)]).tolist())
    [0, 1, 2, 3, 4, 5]
    """
    epoch, batch = divmod(step, n // batch_size)
    return _order(seed, epoch, n)[batch * batch_size :][:batch_size].copy()


@functools.lru_cache(maxsize=2)  # two, for a loop that looks one batch ahead
def _order(seed: int, epoch: int, n: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(n).astype(np.int32)


def _gather(resident: Batch, sent: Batch) -> dict[str, jax.Array]:
    rows = {name: values[sent["index"]] for name, values in resident.items()}
    return {**rows, "index": sent["index"]}


def check_feed(batch_size: int, n: int, seed: int) -> None:
    """Raise ValueError unless 1 <= batch_size <= n and seed >= 0.

    >>> check_feed(256, 1297, seed=0)
    """
    check_batch_size(batch_size, n)
    if seed < 0:
        raise ValueError(f"seed is {seed}; it must be 0 or more")


def check_batch_size(batch_size: int, n: int) -> None:
    """Raise ValueError unless 1 <= batch_size <= n.

    >>> check_batch_size(256, 1297)
    """
    if not 1 <= batch_size <= n:
        raise ValueError(
            f"batch_size is {batch_size} but the training split has {n} images\nChoose 1 to {n}"
        )


def check_split(examples: Examples, what: str, classes: int, lowest: int) -> None:
    """Raise DataError unless image is uint8 [N,H,W,C] and label integers [N] in lowest..classes-1.

    >>> check_split(Examples(np.zeros((1, 2, 2, 3), np.uint8), np.array([9])), "a", 10, lowest=0)
    """
    image, label = examples
    if image.ndim != 4 or image.dtype != np.uint8 or 0 in image.shape[1:]:
        raise DataError(
            f"{what}: image is {image.dtype} {list(image.shape)}, but must be uint8 [N,H,W,C]\n"
            "Scale to 0..255, add a channel axis by image[..., None], then .astype('uint8')"
        )
    if label.ndim != 1 or not np.issubdtype(label.dtype, np.integer):
        raise DataError(
            f"{what}: label is {label.dtype} {list(label.shape)}, but must be integers [N]\n"
            "Save one class number an image, counting from 0"
        )
    if len(image) != len(label) or len(image) == 0:
        raise DataError(
            f"{what}: {len(image)} images and {len(label)} labels\n"
            "A split needs one label an image, and at least one image"
        )
    wrong = np.flatnonzero((label < lowest) | (label >= classes))
    if wrong.size:
        raise DataError(
            f"{what}: label {label[wrong[0]]} at index {wrong[0]} is not in "
            f"{lowest}..{classes - 1}\nClasses count from 0 and are those of the training split; "
            "-1 (unlabelled) may be in that split only"
        )
