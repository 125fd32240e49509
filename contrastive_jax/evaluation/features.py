"""Compute the features of a whole set: the frozen encoder in batches, results on the host."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np

from contrastive_jax.evaluation.neighbors import pad_rows
from contrastive_jax.types import EmbedFn, ModelState, Params


def extract(
    embed: EmbedFn,
    params: Params,
    model_state: ModelState,
    arrays: Mapping[str, np.ndarray],
    *,
    batch_size: int,
    shard: Callable[[Mapping[str, np.ndarray]], Mapping[str, jax.Array]] | None = None,
    out_sharding: Any = None,
) -> dict[str, np.ndarray]:
    """Compute the encoder's outputs for a whole set of examples, in order, as float32 on the host.

    The last batch is padded and its padding dropped, so `embed` compiles once.

    Args:
      embed: one of `Objective.embed`, (params, model_state, batch) -> arrays [B, ...].
      params: as `embed` takes them.
      model_state: as `embed` takes it.
      arrays: N rows each, such as {"image": [N, H, W, C]}; a batch has B rows of each.
      batch_size: B, examples in one call, over all devices.
      shard: puts a host batch on the devices; default: on the default device.
      out_sharding: of what `embed` returns; the compiler's choice by default. Where several
        processes hold a batch it has to be replicated.

    Returns:
      What `embed` returns, {"features": [N, F], "embedding": [N, D]}.

    Raises:
      ValueError: no examples, arrays of unequal length, or `batch_size` not positive.

    >>> def embed(params, model_state, batch):
    ...     return {"features": batch["image"].reshape(len(batch["image"]), -1) * params}
    >>> import jax.numpy as jnp
    >>> image = np.arange(20, dtype=np.uint8).reshape(5, 2, 2, 1)
    >>> extract(embed, jnp.float32(0.5), {}, {"image": image}, batch_size=2)["features"][4]
    array([8. , 8.5, 9. , 9.5], dtype=float32)
    """
    lengths = {len(array) for array in arrays.values()}
    n = max(lengths, default=0)
    if len(lengths) != 1 or n == 0 or batch_size < 1:
        raise ValueError(
            f"need arrays of one length and batch_size >= 1, got {sorted(lengths)} and {batch_size}"
        )
    compiled, place = jax.jit(embed, out_shardings=out_sharding), shard or jax.device_put
    parts: list[dict[str, np.ndarray]] = []
    pending = None
    for start in range(0, n, batch_size):
        rows = slice(start, start + batch_size)
        batch = {name: pad_rows(array[rows], batch_size) for name, array in arrays.items()}
        running = compiled(params, model_state, place(batch))
        if pending is not None:  # fetch one batch while the next is computed
            parts.append(jax.device_get(pending))
        pending = running
    parts.append(jax.device_get(pending))
    join = partial(np.concatenate, dtype=np.float32)
    return {name: join([part[name] for part in parts])[:n] for name in parts[0]}
