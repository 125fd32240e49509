"""Pairs of a labeled batch: distances or similarities, and which pairs share a label."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from contrastive_jax._numerics import bounded, safe_sqrt, unit
from contrastive_jax.losses._engine.checks import (
    arrays,
    check_embedding,
    check_labels,
    check_option,
)
from contrastive_jax.losses._engine.mapped_axis import gather, global_index


class LabeledPairs(NamedTuple):
    """A number for each of N anchors and M rows of all devices, and which pairs count."""

    value_NM: jax.Array
    positive_NM: jax.Array
    negative_NM: jax.Array


def distances(
    x_ND: jax.Array, labels_N: jax.Array, kind: str, axis_name: str | None
) -> LabeledPairs:
    check_option("distance", kind, ("euclidean", "squared", "cosine"))
    x_ND, labels_N = _checked(x_ND, labels_N)
    x_ND = unit(x_ND) if kind == "cosine" else bounded(x_ND)
    x_MD = gather(x_ND, axis_name)
    if kind == "cosine":
        return _labeled(1.0 - x_ND @ x_MD.T, labels_N, axis_name)
    # |x|^2 + |y|^2 - 2 x.y loses its digits for near points far from the origin: center first.
    center = jax.lax.stop_gradient(x_MD.mean(axis=0, keepdims=True))
    x_ND, x_MD = x_ND - center, x_MD - center
    square_N, square_M = jnp.sum(x_ND**2, axis=1), jnp.sum(x_MD**2, axis=1)
    square = square_N[:, None] + square_M[None, :] - 2.0 * x_ND @ x_MD.T
    square = jnp.maximum(square, 0.0)
    return _labeled(safe_sqrt(square) if kind == "euclidean" else square, labels_N, axis_name)


def cosines(x_ND: jax.Array, labels_N: jax.Array, axis_name: str | None) -> LabeledPairs:
    x_ND, labels_N = _checked(x_ND, labels_N)
    x_ND = unit(x_ND)
    return _labeled(x_ND @ gather(x_ND, axis_name).T, labels_N, axis_name)


def _checked(x_ND: jax.Array, labels_N: jax.Array) -> tuple[jax.Array, jax.Array]:
    x_ND, labels_N = arrays(x_ND=x_ND, labels_N=labels_N)
    check_embedding("x_ND", x_ND, "ND")
    check_labels("labels_N", labels_N, "x_ND", len(x_ND))
    return x_ND, labels_N


def _labeled(value_NM: jax.Array, labels_N: jax.Array, axis_name: str | None) -> LabeledPairs:
    index_N = global_index(len(labels_N), axis_name)
    labels_M, index_M = gather((labels_N, index_N), axis_name)
    same = labels_N[:, None] == labels_M[None, :]
    return LabeledPairs(value_NM, same & (index_N[:, None] != index_M[None, :]), ~same)
