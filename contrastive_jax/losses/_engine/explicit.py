"""Explicit negatives beside the keys of a batch: padded, and known by their ids."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from contrastive_jax._numerics import as_array
from contrastive_jax.losses._engine.checks import (
    check_embedding,
    check_labels,
    check_shapes,
)
from contrastive_jax.losses._engine.similarity import Ids
from contrastive_jax.losses._engine.tile import Terms


class Given(NamedTuple):
    """Negatives that came with each query; rows of padding are zero."""

    rows_BKD: jax.Array
    real_BK: jax.Array  # bool
    ids_BK: jax.Array | None


class Keys(NamedTuple):
    """What is known of a key: whose it is, its id if it has one, and whether it is no padding."""

    owner: jax.Array  # the place of its query in the global batch
    id: jax.Array
    named: jax.Array  # bool: the id counts
    real: jax.Array  # bool


def check_given(
    query_BD: jax.Array,
    negatives_BKD: Any,
    negatives_mask_BK: Any,
    negatives_ids_BK: Any,
    ids_B: Any,
) -> Given | None:
    """Check what is given of explicit negatives; None without any."""
    named = {"negatives_mask_BK": negatives_mask_BK, "negatives_ids_BK": negatives_ids_BK}
    if negatives_BKD is None:
        for name, x in named.items():
            if x is not None:
                raise ValueError(f"{name} is given, but negatives_BKD is None: pass both.")
        return None
    rows = as_array("negatives_BKD", negatives_BKD)
    mask, ids = (None if x is None else as_array(name, x) for name, x in named.items())
    check_embedding("negatives_BKD", rows, "BKD")
    (B, D), K = query_BD.shape, rows.shape[1]
    check_shapes("negatives_BKD", rows, "query", (B, K, D))
    mask = jnp.ones((B, K), bool) if mask is None else mask
    check_shapes("negatives_mask_BK", mask, "negatives_BKD", (B, K))
    if mask.dtype != bool:
        raise ValueError(
            f"negatives_mask_BK has dtype {mask.dtype}, expected bool (True is real): compare it."
        )
    if ids is not None:
        check_shapes("negatives_ids_BK", ids, "negatives_BKD", (B, K))
        check_labels("negatives_ids_BK", ids.reshape(-1), "negatives_BKD", B * K)
        if ids_B is None:
            raise ValueError("negatives_ids_BK is given, but ids_B is None: pass both.")
    return Given(jnp.where(mask[:, :, None], rows, jnp.zeros((), rows.dtype)), mask, ids)


def keys_of_batch(ids: Ids) -> Keys:
    yes = jnp.ones(ids.index.shape, bool)
    return Keys(ids.index, ids.id, yes, yes)


def keys_with(ids: Ids, given: Given) -> Keys:
    """The keys of the batch, followed by the explicit negatives of all its queries."""
    size, K = given.real_BK.size, given.real_BK.shape[1]
    named = given.ids_BK is not None
    more = Keys(
        jnp.repeat(ids.index, K),
        jnp.zeros(size, ids.id.dtype) if given.ids_BK is None else given.ids_BK.reshape(-1),
        jnp.full(size, named, bool),
        given.real_BK.reshape(-1),
    )
    return jax.tree.map(lambda x, y: jnp.concatenate([x, y]), keys_of_batch(ids), more)


def rows_with(key_BD: jax.Array, negatives_BKD: jax.Array) -> jax.Array:
    """The rows that `keys_with` describes."""
    return jnp.concatenate([key_BD, negatives_BKD.reshape(-1, negatives_BKD.shape[-1])])


def are_negatives(rows: Ids, cols: Keys) -> jax.Array:
    """bool [N, M]: a query's negatives are all real keys but those of its own id."""
    same = cols.named[None, :] & (rows.id[:, None] == cols.id[None, :])
    return cols.real[None, :] & ~same


def negatives_of_queries(s: jax.Array, params: tuple[()], rows: Ids, cols: Keys) -> Terms:
    return Terms((jnp.where(are_negatives(rows, cols), s, -jnp.inf),))


def negatives_of_other_queries(s: jax.Array, params: tuple[()], rows: Ids, cols: Keys) -> Terms:
    other = rows.index[:, None] != cols.owner[None, :]
    return Terms((jnp.where(other & are_negatives(rows, cols), s, -jnp.inf),))
