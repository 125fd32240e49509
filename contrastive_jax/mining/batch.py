"""Mine positives and negatives within a batch from its distances: O(N^2) memory, static shapes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from contrastive_jax._numerics import as_array


class Mined(NamedTuple):
    """Rows that were chosen. Where `valid` is false nothing was found, and the index is 0.

    Distances that are not finite are never chosen.
    """

    index: jax.Array  # int32
    valid: jax.Array  # bool


def hardest_negative(distance_NN: jax.Array, labels_N: jax.Array) -> Mined:
    """Find for each anchor the nearest row of another label.

        index_i = argmin_{n: label_n != label_i} d(i, n)

    Args:
      distance_NN: float distances between all rows.
      labels_N: integers, within int32 under `jax.jit`.

    Returns:
      Mined [N].

    Raises:
      ValueError: shapes or dtypes that do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import mining
      >>> x = jnp.array([0.0, 1.0, 3.0, 4.0])
      >>> mined = mining.hardest_negative(abs(x[:, None] - x[None]), jnp.array([0, 0, 1, 1]))
      >>> print(mined.index)
      [2 2 1 1]

    Reference: Hermans et al., In Defense of the Triplet Loss, 2017, section 2 (arXiv 1703.07737).
    """
    distance_NN, _, negative = _pairs(distance_NN, labels_N)
    return _nearest(distance_NN, negative)


def hardest_positive(distance_NN: jax.Array, labels_N: jax.Array) -> Mined:
    """Find for each anchor the farthest other row of its label.

        index_i = argmax_{p != i: label_p = label_i} d(i, p)

    Args:
      distance_NN: float distances between all rows.
      labels_N: integers, within int32 under `jax.jit`.

    Returns:
      Mined [N].

    Raises:
      ValueError: shapes or dtypes that do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import mining
      >>> x = jnp.array([0.0, 1.0, 3.0, 4.0])
      >>> mined = mining.hardest_positive(abs(x[:, None] - x[None]), jnp.array([0, 0, 0, 1]))
      >>> print(mined.index, mined.valid)
      [2 2 0 0] [ True  True  True False]

    Reference: Hermans et al., In Defense of the Triplet Loss, 2017, section 2 (arXiv 1703.07737).
    """
    distance_NN, positive, _ = _pairs(distance_NN, labels_N)
    return _nearest(-distance_NN, positive)


def easy_positive(distance_NN: jax.Array, labels_N: jax.Array) -> Mined:
    """Find for each anchor the nearest other row of its label.

        index_i = argmin_{p != i: label_p = label_i} d(i, p)

    Args:
      distance_NN: float distances between all rows.
      labels_N: integers, within int32 under `jax.jit`.

    Returns:
      Mined [N].

    Raises:
      ValueError: shapes or dtypes that do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import mining
      >>> x = jnp.array([0.0, 1.0, 3.0, 4.0])
      >>> mined = mining.easy_positive(abs(x[:, None] - x[None]), jnp.array([0, 0, 0, 1]))
      >>> print(mined.index, mined.valid)
      [1 0 1 0] [ True  True  True False]

    Reference: Xuan et al., Improved Embeddings with Easy Positive Triplet Mining, WACV 2020,
    section 3 (arXiv 1904.04370).
    """
    distance_NN, positive, _ = _pairs(distance_NN, labels_N)
    return _nearest(distance_NN, positive)


def semi_hard_negative(distance_NN: jax.Array, labels_N: jax.Array) -> Mined:
    """Find for each pair of one label the nearest negative that is farther away than the positive.

        index_ip = argmin_{n: label_n != label_i, d(i, n) > d(i, p)} d(i, n)

    Args:
      distance_NN: float distances between all rows.
      labels_N: integers, within int32 under `jax.jit`.

    Returns:
      Mined [N, N], valid at positive pairs (i, p) that have such a negative.

    Raises:
      ValueError: shapes or dtypes that do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import mining
      >>> x = jnp.array([0.0, 2.0, 1.0, 3.0])
      >>> mined = mining.semi_hard_negative(abs(x[:, None] - x[None]), jnp.array([0, 0, 1, 2]))
      >>> print(mined.index[0, 1], mined.valid[0, 1], mined.valid[1, 0])
      3 True False

    Reference: Schroff et al., FaceNet, CVPR 2015, equation 4 (arXiv 1503.03832).
    """
    distance_NN, positive, negative = _pairs(distance_NN, labels_N)
    away = jnp.where(negative, distance_NN, jnp.inf)
    order = jnp.argsort(away, axis=1)
    ranked = jnp.take_along_axis(away, order, axis=1)
    place = jax.vmap(lambda row, d: jnp.searchsorted(row, d, side="right"))(ranked, distance_NN)
    place = jnp.minimum(place, len(distance_NN) - 1)
    found = jnp.take_along_axis(ranked, place, axis=1)
    valid = positive & (found > distance_NN) & jnp.isfinite(found)
    return _mined(jnp.take_along_axis(order, place, axis=1), valid)


def distance_weighted_negative(
    key: jax.Array,
    distance_NN: jax.Array,
    labels_N: jax.Array,
    dim: int,
    *,
    cutoff: float = 0.5,
    farthest: float = 1.4,
) -> Mined:
    """Sample for each anchor a negative such that all distances are equally likely.

        P(n) ~ 1 / q(max(cutoff, d(i, n))),   q(d) = d^(D-2) (1 - d^2 / 4)^((D-3)/2)

    with q the density of distances between random points of the sphere.

    Args:
      key: typed PRNG key.
      distance_NN: Euclidean distances between all rows, of unit vectors.
      labels_N: integers, within int32 under `jax.jit`.
      dim: D, the dimension of the sphere's space, at least 3.
      cutoff: smaller distances count as this one, against noisy gradients.
      farthest: negatives beyond it are left out: their loss is zero anyway.

    Returns:
      Mined [N].

    Raises:
      ValueError: shapes or dtypes that do not fit, dim below 3.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from contrastive_jax import mining
      >>> x = jnp.eye(4)
      >>> d = jnp.linalg.norm(x[:, None] - x[None], axis=-1)
      >>> labels = jnp.array([0, 0, 1, 1])
      >>> mined = mining.distance_weighted_negative(jax.random.key(0), d, labels, 4, farthest=1.5)
      >>> print(labels[mined.index])
      [1 1 0 0]

    Reference: Wu et al., Sampling Matters in Deep Embedding Learning, ICCV 2017, section 4
    (arXiv 1706.07567).
    """
    distance_NN, _, negative = _pairs(distance_NN, labels_N)
    if dim < 3:
        raise ValueError(f"dim is {dim}, expected at least 3: the density needs a sphere.")
    d = jnp.clip(distance_NN.astype(jnp.float32), cutoff, 1.999)
    log_density = (dim - 2) * jnp.log(d) + (dim - 3) / 2 * jnp.log(1.0 - d * d / 4.0)
    allowed = negative & (distance_NN < farthest)
    sampled = jax.random.categorical(key, jnp.where(allowed, -log_density, -jnp.inf), axis=1)
    return _mined(sampled, allowed.any(axis=1))


def _pairs(distance_NN: jax.Array, labels_N: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The distances, and which finite ones are between rows of one label, and of two."""
    distance_NN, labels_N = as_array("distance_NN", distance_NN), as_array("labels_N", labels_N)
    if labels_N.ndim != 1 or not jnp.issubdtype(labels_N.dtype, jnp.integer):
        raise ValueError(
            f"labels_N is {labels_N.dtype} {labels_N.shape}, expected integers [N]: cast it."
        )
    N = len(labels_N)
    if distance_NN.shape != (N, N) or N == 0:
        raise ValueError(
            f"distance_NN has shape {distance_NN.shape}, but labels_N asks for {(N, N)}: "
            "pass all distances of the labeled batch."
        )
    if not jnp.issubdtype(distance_NN.dtype, jnp.floating):
        raise ValueError(f"distance_NN has dtype {distance_NN.dtype}, expected floats: cast it.")
    same = labels_N[:, None] == labels_N[None, :]
    finite = jnp.isfinite(distance_NN)
    return distance_NN, finite & same & ~jnp.eye(N, dtype=bool), finite & ~same


def _mined(index: jax.Array, valid: jax.Array) -> Mined:
    return Mined(jnp.where(valid, index, 0).astype(jnp.int32), valid)


def _nearest(distance_NN: jax.Array, allowed_NN: jax.Array) -> Mined:
    index = jnp.argmin(jnp.where(allowed_NN, distance_NN, jnp.inf), axis=1)
    return _mined(index, allowed_NN.any(axis=1))
