"""A loss as a function of one tile of the similarity matrix, and the reduction of its terms."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from contrastive_jax._numerics import log_sum_exp


class Terms(NamedTuple):
    """Arrays [N, M] that a tile adds to its rows, or their reductions [N].

    `exponents` are reduced by log-sum-exp (-inf leaves a pair out), `values` by sum.
    """

    exponents: tuple[jax.Array, ...] = ()
    values: tuple[jax.Array, ...] = ()


# tile(s_NM, params, rows, cols): the terms of N rows and M columns from their similarities, from
# differentiable params, and from data of the rows and columns (pytrees with leading axes
# N and M, not differentiated). Elementwise in the pairs; jitted code compares it by identity.
Tile = Callable[[jax.Array, Any, Any, Any], Terms]


def similarities(q_ND: jax.Array, k_MD: jax.Array) -> jax.Array:
    """Inner products [N, M], accumulated in float32."""
    contract_last = (((1,), (1,)), ((), ()))
    return lax.dot_general(q_ND, k_MD, contract_last, preferred_element_type=jnp.float32)


def reduce_terms(terms: Terms, axis: int) -> Terms:
    return Terms(
        tuple(log_sum_exp(x, axis) for x in terms.exponents),
        tuple(jnp.sum(x, axis) for x in terms.values),
    )
