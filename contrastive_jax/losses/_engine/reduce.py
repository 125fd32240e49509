"""Reduce the similarity matrix of an in-batch loss to a few numbers per row.

Each function reduces the whole matrix, described by its tile, to numbers per row: in one piece
(`block_size=None`), in tiles, or in tiles around a ring of devices (`axis_name` with `block_size`),
always with the same value and gradient.
"""

from typing import Any

import jax

from contrastive_jax.losses._engine.blockwise import reduce_blockwise
from contrastive_jax.losses._engine.mapped_axis import gather
from contrastive_jax.losses._engine.sweep import Operands, Plan
from contrastive_jax.losses._engine.tile import Terms, Tile, reduce_terms, similarities


def over_keys(
    tile: Tile,
    q_ND: jax.Array,
    k_MD: jax.Array,
    rows: Any,
    cols: Any,
    params: Any = (),
    *,
    axis_name: str | None = None,
    block_size: int | None = None,
) -> Terms:
    """Reduce each row of q over all keys (of all devices)."""
    if block_size is not None:
        plan = Plan(tile, int(block_size), axis_name, columns=False, triangle=False)
        return reduce_blockwise(plan, Operands(q_ND, k_MD, rows, cols, params))[0]
    k_MD, cols = gather((k_MD, cols), axis_name)
    return reduce_terms(tile(similarities(q_ND, k_MD), params, rows, cols), axis=1)


def over_both(
    tile: Tile,
    q_ND: jax.Array,
    k_MD: jax.Array,
    rows: Any,
    cols: Any,
    params: Any = (),
    *,
    axis_name: str | None = None,
    block_size: int | None = None,
) -> tuple[Terms, Terms]:
    """Reduce each row of q over all keys, and each key over all rows of q.

    The tile must be symmetric: tile(s.T, params, cols, rows) must be
    tile(s, params, rows, cols) transposed.
    """
    if block_size is not None:
        plan = Plan(tile, int(block_size), axis_name, columns=True, triangle=False)
        return reduce_blockwise(plan, Operands(q_ND, k_MD, rows, cols, params))
    if axis_name is not None:
        by_query = over_keys(tile, q_ND, k_MD, rows, cols, params, axis_name=axis_name)
        by_key = over_keys(tile, k_MD, q_ND, cols, rows, params, axis_name=axis_name)
        return by_query, by_key
    terms = tile(similarities(q_ND, k_MD), params, rows, cols)
    return reduce_terms(terms, axis=1), reduce_terms(terms, axis=0)


def over_self(
    tile: Tile,
    z_ND: jax.Array,
    rows: Any,
    params: Any = (),
    *,
    axis_name: str | None = None,
    block_size: int | None = None,
) -> Terms:
    """Reduce each row of z over all rows of z; the tile must be symmetric."""
    if block_size is not None:
        plan = Plan(tile, int(block_size), axis_name, columns=True, triangle=True)
        return reduce_blockwise(plan, Operands(z_ND, z_ND, rows, rows, params))[0]
    return over_keys(tile, z_ND, z_ND, rows, rows, params, axis_name=axis_name)
