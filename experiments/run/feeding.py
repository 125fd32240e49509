"""What a loss of the library consumes, made of the views of a batch and its labels.

Every function takes (z_BVD, label_B, key) and gives `Fed`; arrays keep the order of the examples,
so that each device feeds its own rows.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from contrastive_jax import mining
from contrastive_jax._numerics import dot


class Fed(NamedTuple):
    """The arrays of a loss, in its order: embeddings [..., D], then others of as many rows."""

    embeddings: tuple[jax.Array, ...]
    others: tuple[jax.Array, ...] = ()
    kept: jax.Array | None = None  # rows whose loss counts; None for all


Feeding = Callable[[jax.Array, jax.Array | None, jax.Array | None], Fed]


def views(z_BVD, label_B, key) -> Fed:
    """All views of each example."""
    return Fed((z_BVD,))


def views_and_labels(z_BVD, label_B, key) -> Fed:
    """All views of each example, and its label."""
    return Fed((z_BVD,), (_classes(label_B),))


def logits(z_BVD, label_B, key) -> Fed:
    """The embeddings as class logits, and labels as they are."""
    return Fed((z_BVD,), (label_B,))


def two_sides(z_BVD, label_B, key) -> Fed:
    """The first view of each example and its second."""
    return Fed(_sides(z_BVD))


def two_sides_and_labels(z_BVD, label_B, key) -> Fed:
    """The two views of each example, and its label."""
    return Fed(_sides(z_BVD), (_classes(label_B),))


def two_sides_and_targets(z_BVD, label_B, key) -> Fed:
    """The two views, and for each first view the same weight on all second views of its label."""
    class_B = _classes(label_B)
    same_BB = (class_B[:, None] == class_B[None, :]).astype(jnp.float32)
    return Fed(_sides(z_BVD), (same_BB / same_BB.sum(axis=1, keepdims=True),))


def two_sides_guided(z_BVD, label_B, key) -> Fed:
    """The two views, and themselves without a gradient as the guide."""
    return Fed(_sides(z_BVD), jax.lax.stop_gradient(_sides(z_BVD)))


def rows(z_BVD, label_B, key) -> Fed:
    """Every view as a row."""
    return Fed((_rows(z_BVD),))


def labeled_rows(z_BVD, label_B, key) -> Fed:
    """Every view as a row with the label of its example."""
    return Fed((_rows(z_BVD),), (jnp.repeat(_classes(label_B), z_BVD.shape[1]),))


def rows_and_proxies(z_BVD, label_B, key) -> Fed:
    """Every view as a row with its label; unlabeled rows do not count. The proxies come after."""
    label_N = jnp.repeat(label_B, z_BVD.shape[1])
    return Fed((_rows(z_BVD),), (label_N,), label_N >= 0)


def scored_pairs(z_BVD, label_B, key) -> Fed:
    """Pairs of views of one image, score 1, and of neighbors in the batch: 1 for one label, or 0.

    The batch is in random order, so the neighbor is a random example.
    """
    x_BD, y_BD = _sides(z_BVD)
    class_B = _classes(label_B)
    same_B = (class_B == jnp.roll(class_B, 1)).astype(jnp.float32)
    both = lambda a, b: jnp.stack([a, b], axis=1).reshape(-1, *a.shape[1:])  # noqa: E731
    scores = both(jnp.ones_like(same_B), same_B)
    return Fed((both(x_BD, x_BD), both(y_BD, jnp.roll(y_BD, 1, axis=0))), (scores,))


def dissimilar_pairs(z_BVD, label_B, key) -> Fed:
    """The same pairs, with 1 for those of different labels."""
    fed = scored_pairs(z_BVD, label_B, key)
    return fed._replace(others=(1.0 - fed.others[0],))


MINERS = ("hardest_negative", "semi_hard_negative", "distance_weighted_negative", "easy_positive")


def triplets(z_BVD, label_B, key, *, by: str) -> Fed:
    """Every view as an anchor, its other view as the positive, and a mined negative.

    "easy_positive" takes the nearest row of the label in place of the other view, and the hardest
    negative. Rows for which nothing is found do not count.
    """
    first_BD, second_BD = _sides(z_BVD)
    anchor_ND = _rows(z_BVD)
    other_ND = _rows(jnp.stack([second_BD, first_BD], axis=1))
    example_N = jnp.repeat(jnp.arange(len(z_BVD), dtype=jnp.int32), 2)
    if by == "easy_positive":
        example_N = jnp.repeat(_classes(label_B), 2)
    positive, negative, kept = _mine(by, jax.lax.stop_gradient(anchor_ND), example_N, key)
    positive_ND = other_ND if positive is None else anchor_ND[positive]
    return Fed((anchor_ND, positive_ND, anchor_ND[negative]), (), kept)


def queries_and_negatives(z_BVD, label_B, key, *, by: str) -> Fed:
    """The same triplets, with each negative as the only one of its query."""
    fed = triplets(z_BVD, label_B, key, by=by)
    anchor_ND, positive_ND, negative_ND = fed.embeddings
    return fed._replace(embeddings=(anchor_ND, positive_ND, negative_ND[:, None, :]))


def _mine(name: str, x_ND: jax.Array, label_N: jax.Array, key: jax.Array | None):
    """(index of the positive or None for the other view, index of the negative, found)."""
    if name == "distance_weighted_negative":  # on the sphere, as its density has it
        x_ND = x_ND / jnp.maximum(jnp.linalg.norm(x_ND, axis=1, keepdims=True), 1e-12)
    distance_NN = _distances(x_ND)
    if name == "semi_hard_negative":
        found = mining.semi_hard_negative(distance_NN, label_N)
        row_N = jnp.arange(len(x_ND))
        return None, found.index[row_N, row_N ^ 1], found.valid[row_N, row_N ^ 1]
    if name == "distance_weighted_negative":
        dim = x_ND.shape[1]
        assert key is not None
        found = mining.distance_weighted_negative(key, distance_NN, label_N, dim)
        return None, found.index, found.valid
    negative = mining.hardest_negative(distance_NN, label_N)
    if name == "hardest_negative":
        return None, negative.index, negative.valid
    positive = mining.easy_positive(distance_NN, label_N)
    return positive.index, negative.index, positive.valid & negative.valid


def _distances(x_ND: jax.Array) -> jax.Array:
    """Euclidean distances between all rows, which only choose: they need no exact small digits."""
    x_ND = (x_ND - x_ND.mean(axis=0, keepdims=True)).astype(jnp.float32)
    square_N = jnp.sum(x_ND**2, axis=1)
    return jnp.sqrt(jnp.maximum(square_N[:, None] + square_N[None, :] - 2.0 * dot(x_ND, x_ND.T), 0))


def _sides(z_BVD: jax.Array) -> tuple[jax.Array, jax.Array]:
    if z_BVD.shape[1] != 2:
        raise ValueError(
            f"this loss.kind compares two views and was given {z_BVD.shape[1]}; "
            "set augment.n_views to 2"
        )
    return z_BVD[:, 0], z_BVD[:, 1]


def _rows(z_BVD: jax.Array) -> jax.Array:
    return z_BVD.reshape(-1, z_BVD.shape[-1])


def _classes(label_B: jax.Array) -> jax.Array:
    """Labels in which every unlabeled example, -1, is a class of its own."""
    own_B = -1 - jnp.arange(len(label_B), dtype=label_B.dtype)
    return jnp.where(label_B >= 0, label_B, own_B)
