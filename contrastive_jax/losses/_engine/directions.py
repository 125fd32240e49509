"""The negatives of a pair by direction: of its query and of its key, on either side."""

from typing import Any

import jax
import jax.numpy as jnp

from contrastive_jax._numerics import log_sum_exp
from contrastive_jax.losses._engine.checks import check_option
from contrastive_jax.losses._engine.explicit import (
    Given,
    keys_with,
    negatives_of_other_queries,
    negatives_of_queries,
    rows_with,
)
from contrastive_jax.losses._engine.reduce import over_both, over_keys, over_self
from contrastive_jax.losses._engine.similarity import Ids, keys_of_other_ids

DIRECTIONS = ("query_to_key", "key_to_query", "query_to_query", "key_to_key")


def check_directions(directions: Any) -> None:
    if isinstance(directions, str):
        raise ValueError(f"directions is {directions!r}, expected a tuple: ({directions!r},).")
    for direction in directions:
        check_option("directions", direction, DIRECTIONS)
    if "query_to_key" not in directions:
        raise ValueError(f"directions is {directions!r}: add 'query_to_key', which has the pair.")


def log_sum_of_negatives(
    directions: tuple[str, ...],
    query_BD: jax.Array,
    key_BD: jax.Array,
    ids: Ids,
    given: Given | None,
    **form: Any,
) -> jax.Array:
    """Log-sum-exp [B] over the negatives in all directions; scaled rows, -inf over nothing."""
    tile, each = keys_of_other_ids, []
    if given is None and "key_to_query" in directions:
        each += over_both(tile, query_BD, key_BD, ids, ids, **form)
    elif given is None:
        each.append(over_keys(tile, query_BD, key_BD, ids, ids, **form))
    else:
        keys, cols = rows_with(key_BD, given.rows_BKD), keys_with(ids, given)
        each.append(over_keys(negatives_of_queries, query_BD, keys, ids, cols, **form))
        if "key_to_query" in directions:
            each.append(over_keys(tile, key_BD, query_BD, ids, ids, **form))
        if "key_to_key" in directions:
            each.append(over_keys(negatives_of_other_queries, key_BD, keys, ids, cols, **form))
    if "query_to_query" in directions:
        each.append(over_self(tile, query_BD, ids, **form))
    if given is None and "key_to_key" in directions:
        each.append(over_self(tile, key_BD, ids, **form))
    return log_sum_exp(jnp.stack([terms.exponents[0] for terms in each], axis=-1))
