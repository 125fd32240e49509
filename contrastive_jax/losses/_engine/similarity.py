"""Temperature, ids and positives, as the losses on cosine similarities share them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from contrastive_jax._numerics import as_array, log_sum_exp, softplus, unit
from contrastive_jax.losses._engine.checks import (
    check_block_size,
    check_embedding,
    check_labels,
    check_positive,
    check_shapes,
)
from contrastive_jax.losses._engine.mapped_axis import global_index
from contrastive_jax.losses._engine.reduce import over_self
from contrastive_jax.losses._engine.tile import Terms, Tile


class Ids(NamedTuple):
    """A row's place in the global batch, and the id of what it depicts."""

    index: jax.Array
    id: jax.Array


def check_views(
    z_BVD: jax.Array, temperature: Any, block_size: int | None, at_least: int = 2
) -> None:
    check_embedding("z_BVD", z_BVD, "BVD")
    check_positive("temperature", temperature)
    check_block_size(block_size)
    V = z_BVD.shape[1]
    if V < at_least:
        raise ValueError(
            f"z_BVD has {V} view(s), expected at least {at_least}: pass [B,V,D] with more views."
        )


def check_pairs(
    query_BD: jax.Array,
    key_BD: jax.Array,
    temperature: Any,
    ids_B: jax.Array | None,
    axis_name: str | None,
    block_size: int | None,
) -> Ids:
    """Check the arguments that the pair losses share; return the ids of each pair.

    Without ids they are the places, so that a pair is known by itself alone.
    """
    check_embedding("query", query_BD, "BD")
    check_embedding("key", key_BD, "BD")
    check_shapes("key", key_BD, "query", query_BD.shape)
    check_positive("temperature", temperature)
    check_block_size(block_size)
    index = global_index(len(query_BD), axis_name)
    if ids_B is None:
        return Ids(index, index)
    check_labels("ids_B", ids_B, "query", len(query_BD))
    return Ids(index, as_array("ids_B", ids_B))


def scaled(
    x: jax.Array, temperature: jax.Array | float, sides: int, *, normalize: bool = True
) -> jax.Array:
    """Scale unit rows by 1 / temperature, or by its root where both sides carry it.

    With the temperature inside the vectors, its gradient follows from theirs in every form.
    """
    scale = 1.0 / jnp.asarray(temperature, jnp.float32)
    rows = unit(x) if normalize else x.astype(jnp.float32)
    return rows * (scale if sides == 1 else jnp.sqrt(scale))


def other_examples(s: jax.Array, params: tuple[()], rows: jax.Array, cols: jax.Array) -> Terms:
    return Terms((jnp.where(rows[:, None] != cols[None, :], s, -jnp.inf),))


def other_keys(s: jax.Array, params: tuple[()], rows: Ids, cols: Ids) -> Terms:
    return Terms((jnp.where(rows.index[:, None] != cols.index[None, :], s, -jnp.inf),))


def keys_of_other_ids(s: jax.Array, params: tuple[()], rows: Ids, cols: Ids) -> Terms:
    return Terms((jnp.where(rows.id[:, None] != cols.id[None, :], s, -jnp.inf),))


def other_views_of(
    z_BVD: jax.Array, tile: Tile, params: Any, axis_name: str | None, block_size: int | None
) -> Terms:
    """Terms [B, V] over the pairs of all views, where a row or column is known by its example."""
    B, V, D = z_BVD.shape
    example = global_index(B * V, axis_name) // V
    terms = over_self(
        tile, z_BVD.reshape(B * V, D), example, params, axis_name=axis_name, block_size=block_size
    )
    return jax.tree.map(lambda x: x.reshape(B, V), terms)


def positives_of(z_BVD: jax.Array) -> jax.Array:
    """Similarities [B, V, V-1] of each view to the other views of its example."""
    V = z_BVD.shape[1]
    s_BVV = jnp.einsum("bvd,bwd->bvw", z_BVD, z_BVD)
    others = jnp.array([[w for w in range(V) if w != v] for v in range(V)])
    return jnp.take_along_axis(s_BVV, others[None], axis=2)


def against_negatives(
    negatives_B: jax.Array, matching_B: jax.Array, *, twice: bool = False
) -> jax.Array:
    """-log of a pair's softmax probability, from the log-sum-exp of its negatives.

    0 without negatives; `twice` counts the pair twice among all.
    """
    loss = softplus(negatives_B - matching_B)
    return jnp.where(negatives_B > -jnp.inf, softplus(loss), 0.0) if twice else loss


def mean_positive_loss(positives_BVW: jax.Array, negatives_BV: jax.Array) -> jax.Array:
    """Average over the positives p: log( sum of e^s over all / e^{s(p)} ).

    Written in differences to the positive, so that a small loss keeps its digits.
    """
    every = jnp.concatenate([positives_BVW, negatives_BV[..., None]], axis=-1)
    return log_sum_exp(every[:, :, None, :] - positives_BVW[..., None]).mean(axis=-1)
