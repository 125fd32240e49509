"""Batches of several sets: from which of them a batch comes, or each of its examples.

Draws are numbered. Of every W = w_1 + ... + w_K in a row set k has w_k, in a random order, and a
draw is the next batch of its set, or the next example. So a step is a function of (seed, step), and
after every W draws each set has had its share exactly.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

BY = ("batch", "example")
MOST = 10_000  # draws that weights divide: their order is held in memory
_DRAWS = 2**31  # the stream of the order of draws; that of a set's examples is the set's number


class Mix(NamedTuple):
    """Sets that lie one behind the other, and how often each is drawn."""

    names: tuple[str, ...]
    sizes: tuple[int, ...]  # examples
    weights: tuple[int, ...]  # draws of each among as many as all have
    by: str  # a draw is a "batch" of one set, or an "example"

    def unit(self, batch_size: int) -> int:
        """Examples of a draw."""
        return batch_size if self.by == "batch" else 1

    def shares(self) -> str:
        """Say how many examples each set has, and its share of the draws."""
        of_all = [100 * weight / sum(self.weights) for weight in self.weights]
        named = zip(self.names, self.sizes, of_all, strict=True)
        return ", ".join(f"{name} {size:,} ({share:.0f} %)" for name, size, share in named)

    def steps_per_epoch(self, batch_size: int) -> int:
        """Batches that show the whole draws of every set once, if none has another weight."""
        unit = self.unit(batch_size)
        return sum(size // unit for size in self.sizes) * unit // batch_size


def make(
    names: Sequence[str],
    sizes: Sequence[int],
    batch_size: int,
    weights: Sequence[int] | None = None,
    by: str = "batch",
) -> Mix:
    """Choose how sets are mixed, by the keys `weights` and `mix` of the config's `data`.

    Args:
      names, sizes: of the sets, in their order.
      batch_size: B.
      weights: draws of each set, whole numbers; None for as many as it has, so that an epoch shows
        every example once.
      by: "batch" for batches of one set each, "example" for sets that meet within a batch.

    Raises:
      ValueError: weights that are not one positive whole number a set, or too large ones, another
        `by`, or a set that does not fill a batch of its own.

    >>> make(["faq", "forum"], [60, 20], batch_size=20).weights
    (3, 1)
    >>> make(["faq", "forum"], [60, 20], batch_size=20, weights=(4, 2)).weights
    (2, 1)
    """
    if by not in BY:
        raise ValueError(f"data.mix is {by!r}; give one of {BY}")
    if weights is not None and len(weights) != len(names):
        raise ValueError(
            f"data.weights has {len(weights)} numbers for {len(names)} sets; give as many "
            f"numbers, or {len(weights)} paths (divided by commas in --data_dir)"
        )
    if not all(type(weight) is int and weight >= 1 for weight in weights or ()):
        raise ValueError(
            f"data.weights is {weights}; give whole numbers of 1 or more, such as (2, 1)"
        )
    if weights is not None:
        weights = [weight // math.gcd(*weights) for weight in weights]
        if sum(weights) > MOST:
            raise ValueError(f"data.weights have the sum {sum(weights):,}; give at most {MOST:,}")
    if 0 in sizes:
        name = names[list(sizes).index(0)]
        raise ValueError(f"all pairs of {name} are in an earlier set; leave it out of data.path")
    mix = Mix(tuple(names), tuple(sizes), (), by)
    whole = tuple(size // mix.unit(batch_size) for size in sizes)
    if 0 in whole:
        name, size = names[whole.index(0)], sizes[whole.index(0)]
        raise ValueError(
            f"{name} has {size} training pairs of its own, and a draw takes "
            f"{mix.unit(batch_size)}\nLower data.batch_size, set data.mix=example, or leave it out"
        )
    return mix._replace(weights=whole if weights is None else tuple(weights))


def rows_at(mix: Mix, batch_size: int, seed: int) -> Callable[[int], np.ndarray]:
    """Choose which examples are the batch of a step: a function from it to [B] int32.

    Epoch e of a set visits it in the order `default_rng((seed, e, number of the set))`, and leaves
    out what does not fill a draw.

    >>> few = make(["faq", "forum"], [4, 2], batch_size=2)
    >>> rows = [rows_at(few, 2, seed=0)(step).tolist() for step in range(3)]
    >>> sorted(map(sorted, rows))[-1], sorted(sum(rows, []))
    ([4, 5], [0, 1, 2, 3, 4, 5])
    """
    unit = mix.unit(batch_size)
    first_K = np.cumsum((0, *mix.sizes), dtype=np.int32)
    order = functools.lru_cache(maxsize=2 * len(mix.sizes))(functools.partial(_order, seed))
    cycle_of = functools.lru_cache(maxsize=2)(functools.partial(_cycle, seed, mix.weights))

    def drawn(draw: int) -> np.ndarray:
        cycle, place = divmod(draw, sum(mix.weights))
        part, before = (int(x_W[place]) for x_W in cycle_of(cycle))
        size = mix.sizes[part]
        epoch, i = divmod(cycle * mix.weights[part] + before, size // unit)
        return first_K[part] + order(part, epoch, size)[i * unit : (i + 1) * unit]

    n = batch_size // unit
    return lambda step: np.concatenate([drawn(draw) for draw in range(step * n, (step + 1) * n)])


def _order(seed: int, part: int, epoch: int, n: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch, part)).permutation(n).astype(np.int32)


def _cycle(seed: int, weights: Sequence[int], cycle: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each draw of a cycle the set [W], and how many of that set come before it [W]."""
    rng = np.random.default_rng((seed, cycle, _DRAWS))
    part_W = rng.permutation(np.repeat(np.arange(len(weights)), weights))
    before_W = np.empty_like(part_W)
    for part, weight in enumerate(weights):
        before_W[part_W == part] = np.arange(weight)
    return part_W, before_W
