"""NT-Xent of a labeled batch: each positive pair against the negatives of its anchor alone."""

import jax
import jax.numpy as jnp
from jax import lax

from contrastive_jax._numerics import softplus
from contrastive_jax.losses._engine.checks import arrays, check_labels
from contrastive_jax.losses._engine.mapped_axis import global_index
from contrastive_jax.losses._engine.reduce import over_keys, over_self
from contrastive_jax.losses._engine.similarity import (
    Ids,
    check_views,
    keys_of_other_ids,
    scaled,
)
from contrastive_jax.losses._engine.tile import Terms


def labeled_nt_xent(
    z_BVD: jax.Array,
    labels_B: jax.Array,
    temperature: jax.Array | float = 0.1,
    *,
    axis_name: str | None = None,
    block_size: int | None = None,
) -> jax.Array:
    """Compute NT-Xent with labels: each pair of one label against the anchor's negatives.

        loss_i = 1/|P(i)| sum_{p in P(i)} -log( exp s(i, p) / (exp s(i, p) + sum_n exp s(i, n)) )

    with unit vectors, s(a, b) = z_a . z_b / temperature, P(i) the other views of i's label, and n
    the views of other labels. Other positives are not in the denominator, as they are in `sup_con`:
    this is what optax's `ntxent` and pytorch-metric-learning's NTXentLoss compute.

    Use it to repeat results of optax or pytorch-metric-learning; else `sup_con`.

    Args:
      z_BVD: embeddings of V views of B examples, any float dtype; normalized inside.
      labels_B: integers.
      temperature: scalar above 0; may be traced, its gradient is exact.
      axis_name: mapped axis over which the batch is sharded; pairs come from all devices.
      block_size: None for the dense form, or the side of the tiles of the linear-memory form. Tiles
        have reverse mode only: for `jvp` or a Hessian use None, or `jacrev` of `grad`.

    Returns:
      float32 [B, V], one loss per anchor; 0 for an anchor without positives or negatives.

    Raises:
      ValueError: wrong rank or dtype, labels that do not fit, temperature <= 0, block_size < 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> z_BVD = jnp.ones((4, 1, 8))
      >>> print(losses.labeled_nt_xent(z_BVD, jnp.array([0, 0, 0, 1]))[:, 0].round(4))  # log 2
      [0.6931 0.6931 0.6931 0.    ]

    Reference: Chen et al., A Simple Framework for Contrastive Learning of Visual Representations,
    ICML 2020, equation 1 (arXiv 2002.05709), for each positive pair of a label.
    """
    z_BVD, labels_B = arrays(z_BVD=z_BVD, labels_B=labels_B)
    check_views(z_BVD, temperature, block_size, at_least=1)
    B, V, D = z_BVD.shape
    check_labels("labels_B", labels_B, "z_BVD", B)
    rows = Ids(global_index(B * V, axis_name), jnp.repeat(labels_B, V))
    z_ND = scaled(z_BVD, temperature, sides=2).reshape(B * V, D)
    form = {"axis_name": axis_name, "block_size": block_size}
    negatives_N = over_self(keys_of_other_ids, z_ND, rows, **form).exponents[0]
    some = negatives_N > -jnp.inf
    # The negatives are further features of the anchor, so that a tile has s(i, p) - negatives_i.
    more_N3 = -_in_parts(jnp.where(some, negatives_N, 0.0))
    anchor = jnp.concatenate([z_ND, more_N3], axis=1)
    positive = jnp.concatenate([z_ND, jnp.ones_like(more_N3)], axis=1)
    count, total = over_keys(_positive_pairs, anchor, positive, rows, rows, **form).values
    return jnp.where(some, total / jnp.maximum(count, 1.0), 0.0).reshape(B, V)


def _positive_pairs(s: jax.Array, params: tuple[()], rows: Ids, cols: Ids) -> Terms:
    positive = rows.index[:, None] != cols.index[None, :]
    positive &= rows.id[:, None] == cols.id[None, :]
    return Terms(values=(positive.astype(jnp.float32), jnp.where(positive, softplus(-s), 0.0)))


def _in_parts(x_N: jax.Array) -> jax.Array:
    """Numbers as sums of three that bfloat16 holds: no accelerator rounds them in a product."""
    parts = []
    for _ in range(2):
        parts.append(lax.stop_gradient(lax.reduce_precision(x_N, 8, 7)))
        x_N = x_N - parts[-1]
    return jnp.stack([*parts, x_N], axis=1)
