"""Batches of captioned images: captions beside streamed images, and one of several captions."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from contrastive_jax.data.examples import Examples, in_rows
from contrastive_jax.types import Batch, Feed

_STREAM = 1  # of random numbers, beside that of the order


def beside(feed: Feed, resident: Examples) -> Feed:
    """Add the rows of arrays in memory to the batches of a streamed set, by their "index".

    Args:
      feed: of the streamed set.
      resident: arrays of all its examples.
    """

    held, gather = in_rows(resident)

    def assemble(held: Batch, sent: Batch) -> dict[str, jax.Array]:
        return {**gather(held, sent), **feed.assemble({}, sent)}

    return feed._replace(resident=held, assemble=assemble)


def sampled(feed: Feed, n: int, seed: int) -> Feed:
    """Show one of an example's "captions", a function of (seed, epoch, example), as its "tokens".

    Args:
      feed: whose batches hold "captions" [B,T,L], "n_captions" [B] and "index" [B].
      n: examples of the set.
      seed: of the sample.

    Example:
      >>> from contrastive_jax.data.examples import feed
      >>> captions_NTL = np.arange(12, dtype=np.int32).reshape(2, 3, 2)
      >>> some = {"captions": captions_NTL, "n_captions": np.array([3, 1], np.int32)}
      >>> batches = sampled(feed(some, batch_size=2, seed=0), n=2, seed=0)
      >>> batch = batches.assemble(batches.resident, batches.batch_at(0))
      >>> sorted(batch), batch["tokens"][batch["index"] == 1].tolist()
      (['index', 'tokens'], [[6, 7]])
    """

    def batch_at(step: int) -> Mapping[str, Any]:
        sent = feed.batch_at(step)
        epoch = int(step) // (n // len(sent["index"]))
        return {**sent, "number": _numbers(seed, epoch, n)[sent["index"]]}

    def assemble(resident: Batch, sent: Batch) -> dict[str, jax.Array]:
        given = {name: values for name, values in sent.items() if name != "number"}
        batch = dict(feed.assemble(resident, given))
        captions_BTL, n_captions_B = batch.pop("captions"), batch.pop("n_captions")
        chosen_B = sent["number"] % n_captions_B
        rows = jax.numpy.arange(len(chosen_B), dtype=np.int32)
        return {**batch, "tokens": captions_BTL[rows, chosen_B]}

    spec = feed.spec
    if spec is not None:
        spec = {**spec, "number": jax.ShapeDtypeStruct(spec["index"].shape, np.int32)}
    return feed._replace(batch_at=batch_at, assemble=assemble, spec=spec)


@functools.lru_cache(maxsize=2)  # two, for a loop that asks one batch ahead
def _numbers(seed: int, epoch: int, n: int) -> np.ndarray:
    rng = np.random.default_rng((seed, epoch, _STREAM))
    return rng.integers(0, 2**31 - 1, n, dtype=np.int32)
