"""Given pairs of rows: their distance, and a flag for each."""

import jax
import jax.numpy as jnp
from jax.core import Tracer

from contrastive_jax._numerics import bounded, euclidean, unit


def distance_between(x_BD: jax.Array, y_BD: jax.Array, kind: str) -> jax.Array:
    """Distances [B]: "euclidean", "squared" or "cosine"."""
    if kind == "euclidean":
        return euclidean(x_BD, y_BD)
    if kind == "cosine":
        return 1.0 - jnp.sum(unit(x_BD) * unit(y_BD), axis=-1)
    gap = bounded(x_BD) - bounded(y_BD)
    return jnp.sum(gap * gap, axis=-1)


def zero_or_one(name: str, flag_B: jax.Array) -> jax.Array:
    """float32; NaN where a traced value is neither, which a run notices."""
    if flag_B.dtype == bool:
        return flag_B.astype(jnp.float32)
    valid = (flag_B == 0) | (flag_B == 1)
    if not isinstance(valid, Tracer) and not valid.all():
        raise ValueError(f"{name} holds values other than 0 and 1: compare the class ids first.")
    return jnp.where(valid, flag_B.astype(jnp.float32), jnp.nan)
