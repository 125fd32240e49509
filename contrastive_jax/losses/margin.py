"""Losses on distances with a margin: contrastive pairs and triplets. Embeddings are taken as is."""

import jax
import jax.numpy as jnp

from contrastive_jax.losses._common import (
    check_embedding,
    check_option,
    check_positive,
    check_shapes,
    euclidean,
    unit,
)


def margin_contrastive(
    x_BD: jax.Array, y_BD: jax.Array, dissimilar_B: jax.Array, margin: jax.Array | float = 1.0
) -> jax.Array:
    """The contrastive loss of Hadsell, Chopra and LeCun: pulls pairs together or a margin apart.

        loss_i = (1 - Y_i) D_i^2 / 2 + Y_i max(0, margin - D_i)^2 / 2,   D_i = |x_i - y_i|

    Args:
      x_BD, y_BD: embeddings of any float dtype, taken as they come (not normalised).
      dissimilar_B: Y, boolean or 0/1 of any dtype: 1 for a dissimilar pair, as in the paper.
      margin: scalar above 0, in the units of the embedding.

    Returns:
      float32 [B], one loss per pair.

    Raises:
      ValueError: wrong rank or dtype, batches that differ, margin <= 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> x, y = jnp.zeros((2, 2)), jnp.array([[0.5, 0.0], [0.5, 0.0]])
      >>> print(losses.margin_contrastive(x, y, jnp.array([0, 1])))
      [0.125 0.125]

    Reference: Hadsell et al., Dimensionality Reduction by Learning an Invariant Mapping,
    CVPR 2006, equation 4.
    """
    check_embedding("x_BD", x_BD, "BD")
    check_embedding("y_BD", y_BD, "BD")
    check_shapes("y_BD", y_BD, "x_BD", x_BD.shape)
    check_shapes("dissimilar_B", dissimilar_B, "x_BD", x_BD.shape[:1])
    check_positive("margin", margin)
    distance = euclidean(x_BD, y_BD)
    dissimilar = jnp.asarray(dissimilar_B, jnp.float32)
    apart = jnp.maximum(0.0, margin - distance)
    return 0.5 * ((1.0 - dissimilar) * distance**2 + dissimilar * apart**2)


def triplet(
    anchor_BD: jax.Array,
    positive_BD: jax.Array,
    negative_BD: jax.Array,
    margin: jax.Array | float = 1.0,
    *,
    distance: str = "euclidean",
) -> jax.Array:
    """The triplet loss: the negative must be farther away than the positive, by a margin.

        loss_i = max(0, d(anchor_i, positive_i) - d(anchor_i, negative_i) + margin)

    Args:
      anchor_BD, positive_BD, negative_BD: embeddings of any float dtype, taken as they come.
      margin: scalar above 0, in the units of the distance.
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

    References: Schroff et al., FaceNet, CVPR 2015, equation 3 (arXiv:1503.03832); Hermans et al.,
    In Defense of the Triplet Loss, 2017, section 2 (arXiv:1703.07737) for the plain distance.
    """
    check_embedding("anchor_BD", anchor_BD, "BD")
    check_embedding("positive_BD", positive_BD, "BD")
    check_embedding("negative_BD", negative_BD, "BD")
    check_shapes("positive_BD", positive_BD, "anchor_BD", anchor_BD.shape)
    check_shapes("negative_BD", negative_BD, "anchor_BD", anchor_BD.shape)
    check_positive("margin", margin)
    check_option("distance", distance, ("euclidean", "squared", "cosine"))
    near = _distance(anchor_BD, positive_BD, distance)
    far = _distance(anchor_BD, negative_BD, distance)
    return jnp.maximum(0.0, near - far + margin)


def _distance(x: jax.Array, y: jax.Array, kind: str) -> jax.Array:
    if kind == "euclidean":
        return euclidean(x, y)
    if kind == "cosine":
        return 1.0 - jnp.sum(unit(x) * unit(y), axis=-1)
    gap = x.astype(jnp.float32) - y.astype(jnp.float32)
    return jnp.sum(gap * gap, axis=-1)
