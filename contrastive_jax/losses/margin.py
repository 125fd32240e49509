"""Margin losses: contrastive pairs, triplets, NT-margin.

Losses on distances take embeddings as they come, but for a row with an entry beyond 1e15, whose
square would leave float32: it is shrunk to that.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from contrastive_jax._numerics import as_array, softplus, unit
from contrastive_jax.losses._engine.checks import (
    arrays,
    check_embedding,
    check_flag,
    check_option,
    check_positive,
    check_shapes,
)
from contrastive_jax.losses._engine.mapped_axis import global_index
from contrastive_jax.losses._engine.pairs import distance_between, zero_or_one
from contrastive_jax.losses._engine.reduce import over_keys
from contrastive_jax.losses._engine.similarity import check_views, positives_of
from contrastive_jax.losses._engine.tile import Terms


def margin_contrastive(
    x_BD: jax.Array,
    y_BD: jax.Array,
    dissimilar_B: jax.Array,
    margin: jax.Array | float = 1.0,
    *,
    positive_margin: jax.Array | float = 0.0,
    distance: str = "euclidean",
    hinge: str = "squared",
) -> jax.Array:
    """Compute the contrastive loss of Hadsell, Chopra and LeCun, of similar and dissimilar pairs.

        loss_i = (1 - Y_i) max(0, D_i - positive_margin)^2 / 2 + Y_i max(0, margin - D_i)^2 / 2

    with D_i = |x_i - y_i|, as in the paper, whose positive margin is 0. A linear hinge has neither
    the squares nor the halves.

    Use it for pairs that are labeled similar or not: verification, duplicates.

    Args:
      x_BD, y_BD: embeddings of any float dtype, taken as they come (not normalized).
      dissimilar_B: Y, boolean or 0/1 of any dtype: 1 for a dissimilar pair, as in the paper. Of
        anything else, which only a traced array may hold, the loss is NaN.
      margin: scalar above 0, in the units of the embedding.
      positive_margin: distance up to which a similar pair has no loss.
      distance: "euclidean" or "cosine" (1 - cosine similarity).
      hinge: "squared" or "linear".

    Returns:
      float32 [B], one loss per pair.

    Raises:
      ValueError: wrong rank or dtype, batches that differ, margin <= 0, unknown distance or hinge,
        class ids for `dissimilar_B`.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> x, y = jnp.zeros((2, 2)), jnp.array([[0.5, 0.0], [0.5, 0.0]])
      >>> print(losses.margin_contrastive(x, y, jnp.array([0, 1])))
      [0.125 0.125]

    Reference: Hadsell et al., Dimensionality Reduction by Learning an Invariant Mapping,
    CVPR 2006, equation 4.
    """
    x_BD, y_BD, dissimilar_B = arrays(x_BD=x_BD, y_BD=y_BD, dissimilar_B=dissimilar_B)
    check_embedding("x_BD", x_BD, "BD")
    check_embedding("y_BD", y_BD, "BD")
    check_shapes("y_BD", y_BD, "x_BD", x_BD.shape)
    check_shapes("dissimilar_B", dissimilar_B, "x_BD", x_BD.shape[:1])
    margin = check_positive("margin", margin)
    positive_margin = check_positive("positive_margin", positive_margin, or_zero=True)
    check_option("distance", distance, ("euclidean", "cosine"))
    check_option("hinge", hinge, ("squared", "linear"))
    distance_B = distance_between(x_BD, y_BD, distance)
    dissimilar = zero_or_one("dissimilar_B", dissimilar_B)
    push = jnp.maximum(0.0, margin - distance_B)
    pull = jnp.maximum(0.0, distance_B - positive_margin)
    if hinge == "squared":
        push, pull = 0.5 * push**2, 0.5 * pull**2
    return (1.0 - dissimilar) * pull + dissimilar * push


def triplet(
    anchor_BD: jax.Array,
    positive_BD: jax.Array,
    negative_BD: jax.Array,
    margin: jax.Array | float | None = 1.0,
    *,
    distance: str = "euclidean",
) -> jax.Array:
    """Compute the triplet loss: the negative must be farther away than the positive, by a margin.

        loss_i = max(0, d(anchor_i, positive_i) - d(anchor_i, negative_i) + margin)
        loss_i = log(1 + exp(d(anchor_i, positive_i) - d(anchor_i, negative_i)))   without a margin

    Use it for triplets that are given, or mined by `mining`.

    Args:
      anchor_BD, positive_BD, negative_BD: embeddings of any float dtype, taken as they come.
      margin: scalar above 0, in the units of the distance, or None for the soft margin.
      distance: "euclidean", "squared" (FaceNet's) or "cosine" (1 - cosine similarity).

    Returns:
      float32 [B], one loss per triplet.

    Raises:
      ValueError: wrong rank or dtype, batches that differ, margin <= 0, unknown distance.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> anchor, near, far = jnp.zeros((1, 2)), jnp.full((1, 2), 0.3), jnp.full((1, 2), 0.5)
      >>> print(losses.triplet(anchor, near, far, margin=1.0).round(4))
      [0.7172]

    References: Schroff et al., FaceNet, CVPR 2015, equation 3 (arXiv 1503.03832); Hermans et al.,
    In Defense of the Triplet Loss, 2017, section 2 (arXiv 1703.07737) for the plain distance.
    """
    anchor_BD, positive_BD, negative_BD = arrays(
        anchor_BD=anchor_BD, positive_BD=positive_BD, negative_BD=negative_BD
    )
    check_embedding("anchor_BD", anchor_BD, "BD")
    check_embedding("positive_BD", positive_BD, "BD")
    check_embedding("negative_BD", negative_BD, "BD")
    check_shapes("positive_BD", positive_BD, "anchor_BD", anchor_BD.shape)
    check_shapes("negative_BD", negative_BD, "anchor_BD", anchor_BD.shape)
    margin = None if margin is None else check_positive("margin", margin)
    check_option("distance", distance, ("euclidean", "squared", "cosine"))
    # Cast once: gradients of the two distances, each rounded to infinity in float16, add to NaN.
    anchor_BD = anchor_BD.astype(jnp.float32)
    near = distance_between(anchor_BD, positive_BD, distance)
    far = distance_between(anchor_BD, negative_BD, distance)
    return softplus(near - far) if margin is None else jnp.maximum(0.0, near - far + margin)


class _View(NamedTuple):
    example: jax.Array
    positives: jax.Array  # the similarities to the anchor's V - 1 positives
    margin: jax.Array


def nt_margin(
    z_BVD: jax.Array,
    margin: float = 0.5,
    *,
    semi_hard: bool = False,
    axis_name: str | None = None,
    block_size: int | None = None,
) -> jax.Array:
    """Compute NT-margin, the triplet loss of SimCLR's comparison, on cosines of views.

        loss_i = mean over positives p and negatives n of max(0, s(i, n) - s(i, p) + margin)

    with s the inner product of unit vectors and negatives all views of other examples.

    Use it to compare losses of views as SimCLR does.

    Args:
      z_BVD: embeddings of V >= 2 views of B examples, any float dtype; normalized inside.
      margin: above 0, in units of cosine similarity.
      semi_hard: average only over negatives with s(i, p) - margin < s(i, n) < s(i, p).
      axis_name: mapped axis over which the batch is sharded.
      block_size: None for the dense form, or the side of the tiles of the linear-memory form. Tiles
        have reverse mode only: for `jvp` or a Hessian use None, or `jacrev` of `grad`.

    Returns:
      float32 [B, V], one loss per anchor; 0 where there are no negatives.

    Raises:
      ValueError: wrong rank or dtype, fewer than two views, margin <= 0, block_size < 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> print(losses.nt_margin(jnp.ones((2, 2, 8)))[0])
      [0.5 0.5]

    Reference: Chen et al., A Simple Framework for Contrastive Learning of Visual Representations,
    ICML 2020, table 2 and section 5.1 (arXiv 2002.05709).
    """
    z_BVD = as_array("z_BVD", z_BVD)
    check_views(z_BVD, 1.0, block_size)
    margin = check_positive("margin", margin)
    check_flag("semi_hard", semi_hard)
    B, V, D = z_BVD.shape
    z_BVD = unit(z_BVD)
    positives = positives_of(z_BVD)
    rows = _View(
        global_index(B * V, axis_name) // V,
        lax.stop_gradient(positives).reshape(B * V, V - 1),
        jnp.full(B * V, margin, jnp.float32),
    )
    z_ND = z_BVD.reshape(B * V, D)
    tile = _semi_hard if semi_hard else _violating
    terms = over_keys(tile, z_ND, z_ND, rows, rows, axis_name=axis_name, block_size=block_size)
    of_each, active, total = (
        jnp.stack(terms.values[i::3], axis=-1).reshape(B, V, V - 1) for i in range(3)
    )
    # The hinge is linear where it is active: sum of (s_n - s_p + margin) over the active negatives.
    return jnp.mean((total + active * (margin - positives)) / jnp.maximum(of_each, 1.0), axis=-1)


def _violating(s: jax.Array, params: tuple[()], rows: _View, cols: _View) -> Terms:
    other = rows.example[:, None] != cols.example[None, :]
    values = []
    for positive in rows.positives.T:
        active = other & (s > (positive - rows.margin)[:, None])
        values += [other.astype(jnp.float32), active.astype(jnp.float32), jnp.where(active, s, 0.0)]
    return Terms(values=tuple(values))


def _semi_hard(s: jax.Array, params: tuple[()], rows: _View, cols: _View) -> Terms:
    other = rows.example[:, None] != cols.example[None, :]
    values = []
    for positive in rows.positives.T:
        kept = other & (s > (positive - rows.margin)[:, None]) & (s < positive[:, None])
        count = kept.astype(jnp.float32)
        values += [count, count, jnp.where(kept, s, 0.0)]
    return Terms(values=tuple(values))
