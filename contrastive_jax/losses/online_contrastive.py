"""The contrastive loss of the hard pairs of a batch."""

import jax
import jax.numpy as jnp
from jax import lax

from contrastive_jax.losses._engine.checks import (
    arrays,
    check_embedding,
    check_option,
    check_positive,
    check_shapes,
)
from contrastive_jax.losses._engine.mapped_axis import gather
from contrastive_jax.losses._engine.pairs import distance_between, zero_or_one


def online_contrastive(
    x_BD: jax.Array,
    y_BD: jax.Array,
    dissimilar_B: jax.Array,
    margin: jax.Array | float = 0.5,
    *,
    distance: str = "cosine",
    axis_name: str | None = None,
) -> jax.Array:
    """Compute the contrastive loss of hard pairs only: those that the other kind overtakes.

        loss_i = D_i^2 of a similar pair farther apart than the nearest dissimilar one
        loss_i = max(0, margin - D_i)^2 of a dissimilar pair nearer than the farthest similar one

    and 0 of the others. Against fewer than two pairs of the other kind, a pair is hard if it is
    worse than the mean of its own kind.

    Use it for labeled pairs such as duplicate questions, in batches with hard ones.

    Args:
      x_BD, y_BD: embeddings of any float dtype, taken as they come but for the cosine.
      dissimilar_B: boolean or 0/1 of any dtype: 1 for a dissimilar pair. Of anything else, which
        only a traced array may hold, the loss is NaN.
      margin: scalar above 0, in the units of the distance.
      distance: "cosine" (1 - cosine similarity) or "euclidean".
      axis_name: mapped axis over which the batch is sharded; pairs are hard among those of all
        devices.

    Returns:
      float32 [B], one loss per pair.

    Raises:
      ValueError: wrong rank or dtype, batches that differ, margin <= 0, unknown distance, class
        ids for `dissimilar_B`.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> x, y = jnp.zeros((4, 1)), jnp.array([[0.1], [0.3], [0.2], [0.4]])
      >>> flags = jnp.array([0, 0, 1, 1])
      >>> print(losses.online_contrastive(x, y, flags, distance="euclidean").round(2))
      [0.   0.09 0.09 0.  ]

    Reference: sentence-transformers, OnlineContrastiveLoss (their sum over the batch), after
    Hadsell et al., Dimensionality Reduction by Learning an Invariant Mapping, CVPR 2006.
    """
    x_BD, y_BD, dissimilar_B = arrays(x_BD=x_BD, y_BD=y_BD, dissimilar_B=dissimilar_B)
    check_embedding("x_BD", x_BD, "BD")
    check_embedding("y_BD", y_BD, "BD")
    check_shapes("y_BD", y_BD, "x_BD", x_BD.shape)
    check_shapes("dissimilar_B", dissimilar_B, "x_BD", x_BD.shape[:1])
    check_option("distance", distance, ("cosine", "euclidean"))
    margin = check_positive("margin", margin)
    distance_B = distance_between(x_BD, y_BD, distance)
    dissimilar = zero_or_one("dissimilar_B", dissimilar_B)
    far_similar, near_dissimilar = _limits(distance_B, dissimilar, axis_name)
    pull = jnp.where(distance_B > near_dissimilar, distance_B, 0.0) ** 2
    push = jnp.where(distance_B < far_similar, jnp.maximum(0.0, margin - distance_B), 0.0) ** 2
    return (1.0 - dissimilar) * pull + dissimilar * push


def _limits(
    distance_B: jax.Array, dissimilar_B: jax.Array, axis_name: str | None
) -> tuple[jax.Array, jax.Array]:
    """What a dissimilar pair must be nearer than, and a similar one farther than, to be hard."""
    distance, dissimilar = gather((lax.stop_gradient(distance_B), dissimilar_B), axis_name)
    away, close = dissimilar == 1, dissimilar == 0
    farthest = jnp.max(jnp.where(close, distance, -jnp.inf))
    nearest = jnp.min(jnp.where(away, distance, jnp.inf))
    return (
        jnp.where(jnp.sum(close) > 1, farthest, _mean_where(away, distance)),
        jnp.where(jnp.sum(away) > 1, nearest, _mean_where(close, distance)),
    )


def _mean_where(kept: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where(kept, x, 0.0)) / jnp.maximum(jnp.sum(kept, dtype=jnp.float32), 1.0)
