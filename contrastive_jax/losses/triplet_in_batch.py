"""Triplet losses that choose triplets in a labeled batch: all, hard, semi-hard. N x N memory."""

import jax
import jax.numpy as jnp
from jax import lax

from contrastive_jax._numerics import softplus
from contrastive_jax.losses._engine.checks import check_positive
from contrastive_jax.losses._engine.labeled import LabeledPairs, distances

_ANCHORS_AT_ONCE = 256


def batch_all_triplet(
    x_ND: jax.Array,
    labels_N: jax.Array,
    margin: jax.Array | float | None = 1.0,
    *,
    distance: str = "euclidean",
    axis_name: str | None = None,
) -> jax.Array:
    """Compute the triplet loss averaged over all triplets of each anchor.

        loss_i = mean_{p, n} max(0, d(i, p) - d(i, n) + margin),  or log(1 + exp(d(i, p) - d(i, n)))

    Use it where labels are noisy: no single triplet decides.

    Args:
      x_ND: embeddings of any float dtype, taken as they come.
      labels_N: integers.
      margin: scalar above 0, or None for the soft margin (the second form).
      distance: "euclidean", "squared" or "cosine".
      axis_name: mapped axis over which the batch is sharded.

    Returns:
      float32 [N], one loss per anchor; 0 for an anchor without a triplet.

    Raises:
      ValueError: wrong rank or dtype, labels that do not fit, margin <= 0, unknown distance.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> x = jnp.array([[0.0], [1.0], [3.0]])
      >>> print(losses.batch_all_triplet(x, jnp.array([0, 0, 1]), margin=3.0))
      [1. 2. 0.]

    Reference: Hermans et al., In Defense of the Triplet Loss for Person Re-Identification, 2017,
    equation 6 (arXiv 1703.07737), as a mean.
    """
    margin = _checked_margin(margin)
    pairs = distances(x_ND, labels_N, distance, axis_name)

    @jax.checkpoint
    def anchor(pairs: LabeledPairs) -> jax.Array:
        gap_PM = pairs.value_NM[:, None] - pairs.value_NM[None, :]
        triplet_PM = pairs.positive_NM[:, None] & pairs.negative_NM[None, :]
        total = jnp.sum(jnp.where(triplet_PM, _hinge(gap_PM, margin), 0.0))
        return total / jnp.maximum(jnp.sum(triplet_PM), 1)

    return lax.map(anchor, pairs)  # one anchor at a time: N x N memory, not N x N x N


def batch_hard_triplet(
    x_ND: jax.Array,
    labels_N: jax.Array,
    margin: jax.Array | float | None = 1.0,
    *,
    distance: str = "euclidean",
    axis_name: str | None = None,
) -> jax.Array:
    """Compute the triplet loss of each anchor's farthest positive and nearest negative.

        loss_i = max(0, max_p d(i, p) - min_n d(i, n) + margin),  or its soft form as in batch-all

    Use it for re-identification, in batches of some classes with some rows of each.

    Args:
      x_ND: embeddings of any float dtype, taken as they come.
      labels_N: integers.
      margin: scalar above 0, or None for the soft margin log(1 + e^x).
      distance: "euclidean", "squared" or "cosine".
      axis_name: mapped axis over which the batch is sharded.

    Returns:
      float32 [N], one loss per anchor; 0 for an anchor without a triplet.

    Raises:
      ValueError: wrong rank or dtype, labels that do not fit, margin <= 0, unknown distance.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> x = jnp.array([[0.0], [1.0], [3.0]])
      >>> print(losses.batch_hard_triplet(x, jnp.array([0, 0, 1]), margin=3.0))
      [1. 2. 0.]

    Reference: Hermans et al., 2017, equation 5 (arXiv 1703.07737).
    """
    margin = _checked_margin(margin)
    pairs = distances(x_ND, labels_N, distance, axis_name)
    far = jnp.max(jnp.where(pairs.positive_NM, pairs.value_NM, -jnp.inf), axis=1)
    near = jnp.min(jnp.where(pairs.negative_NM, pairs.value_NM, jnp.inf), axis=1)
    some = jnp.isfinite(far) & jnp.isfinite(near)
    gap = jnp.where(some, far, 0.0) - jnp.where(some, near, 0.0)
    return jnp.where(some, _hinge(gap, margin), 0.0)


def batch_semi_hard_triplet(
    x_ND: jax.Array,
    labels_N: jax.Array,
    margin: jax.Array | float | None = 1.0,
    *,
    distance: str = "squared",
    axis_name: str | None = None,
) -> jax.Array:
    """Compute the triplet loss of each positive pair with its nearest farther negative.

        loss_i = mean_p max(0, d(i, p) - min{d(i, n): d(i, n) > d(i, p)} + margin)

    or its soft form as in batch-all; where no negative is farther, the farthest of all is taken.

    Use it where the hardest negatives collapse an encoder that is not trained yet.

    Args:
      x_ND: embeddings of any float dtype, taken as they come (FaceNet normalizes).
      labels_N: integers.
      margin: scalar above 0, or None for the soft margin log(1 + e^x).
      distance: "euclidean", "squared" (FaceNet's) or "cosine".
      axis_name: mapped axis over which the batch is sharded.

    Returns:
      float32 [N], one loss per anchor; 0 for an anchor without a triplet.

    Raises:
      ValueError: wrong rank or dtype, labels that do not fit, margin <= 0, unknown distance.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> x = jnp.array([[0.0], [2.0], [1.0], [3.0]])
      >>> print(losses.batch_semi_hard_triplet(x, jnp.array([0, 0, 1, 2]), 9.0))
      [ 4. 12.  0.  0.]

    Reference: Schroff et al., FaceNet, CVPR 2015, section 3.2, equation 4 (arXiv 1503.03832).
    """
    margin = _checked_margin(margin)
    pairs = distances(x_ND, labels_N, distance, axis_name)

    @jax.checkpoint
    def anchor(pairs: LabeledPairs) -> jax.Array:
        d, positive, negative = pairs
        chosen_P = _nearest_farther(lax.stop_gradient(d), positive, negative)
        kept = positive & negative.any()
        loss = _hinge(jnp.where(kept, d - d[chosen_P], 0.0), margin)
        return jnp.sum(jnp.where(kept, loss, 0.0)) / jnp.maximum(jnp.sum(kept), 1)

    return lax.map(anchor, pairs, batch_size=_ANCHORS_AT_ONCE)


def _nearest_farther(d: jax.Array, positive: jax.Array, negative: jax.Array) -> jax.Array:
    """For each positive of one anchor the negative next to it in distance, else the farthest.

    One pass over the negatives for each positive that there is: a loop of that length, since a
    matrix of all by all would be made again for every anchor.
    """
    farthest = jnp.argmax(jnp.where(negative, d, -jnp.inf))

    def visit(left_and_chosen: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        left, chosen = left_and_chosen
        p = jnp.argmax(left)
        farther = negative & (d > d[p])
        near = jnp.argmin(jnp.where(farther, d, jnp.inf))
        return left.at[p].set(False), chosen.at[p].set(jnp.where(farther.any(), near, farthest))

    start = positive, jnp.broadcast_to(farthest, d.shape)
    return lax.while_loop(lambda left_and_chosen: left_and_chosen[0].any(), visit, start)[1]


def _checked_margin(margin: jax.Array | float | None) -> jax.Array | float | None:
    return None if margin is None else check_positive("margin", margin)


def _hinge(gap: jax.Array, margin: jax.Array | float | None) -> jax.Array:
    return softplus(gap) if margin is None else jnp.maximum(0.0, gap + margin)
