"""Metric-learning losses over all pairs of a labeled batch: lifted structure, multi-similarity,
circle, ranked list. N x N memory."""

import jax
import jax.numpy as jnp
from jax import lax

from contrastive_jax._numerics import log_sum_exp, softplus
from contrastive_jax.losses._engine.checks import check_between, check_number, check_positive
from contrastive_jax.losses._engine.labeled import cosines, distances


def lifted_structure(
    x_ND: jax.Array, labels_N: jax.Array, margin: float = 1.0, *, axis_name: str | None = None
) -> jax.Array:
    """Compute the lifted structured loss: each positive pair against the negatives of both ends.

        loss_i = mean over positives j of max(0, J_ij)^2 / 2
        J_ij = log( sum_{k in N(i)} exp(margin - d_ik) + sum_{l in N(j)} exp(margin - d_jl) ) + d_ij

    with Euclidean distances d and N(i) the rows of other labels.

    Use it in metric learning where all negatives of a batch should pull, not only the nearest.

    Args:
      x_ND: embeddings of any float dtype, taken as they come.
      labels_N: integers.
      margin: above 0, in the units of the distance.
      axis_name: mapped axis over which the batch is sharded.

    Returns:
      float32 [N], one loss per anchor; 0 for an anchor without positives or negatives.

    Raises:
      ValueError: wrong rank or dtype, labels that do not fit, margin <= 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> x = jnp.zeros((3, 2))  # J = log(2) + margin
      >>> print(f"{losses.lifted_structure(x, jnp.array([0, 0, 1]))[0]:.3f}")
      1.433

    Reference: Oh Song et al., Deep Metric Learning via Lifted Structured Feature Embedding,
    CVPR 2016, equation 4 (arXiv 1511.06452).
    """
    margin = check_positive("margin", margin)
    d, positive, negative = distances(x_ND, labels_N, "euclidean", axis_name)
    away = jnp.where(negative, margin - d, -jnp.inf)
    here = log_sum_exp(away)
    there = here if axis_name is None else lax.all_gather(here, axis_name, tiled=True)
    kept = positive & (here > -jnp.inf)[:, None]
    both = jnp.logaddexp(jnp.where(kept, here[:, None], 0.0), jnp.where(kept, there[None, :], 0.0))
    return _mean_where(kept, jnp.maximum(0.0, both + d) ** 2 / 2)


def multi_similarity(
    x_ND: jax.Array,
    labels_N: jax.Array,
    alpha: float = 2.0,
    beta: float = 50.0,
    threshold: float = 0.5,
    *,
    epsilon: float | None = 0.1,
    axis_name: str | None = None,
) -> jax.Array:
    """Compute the multi-similarity loss, with its choice of informative pairs.

        loss_i = 1/alpha log(1 + sum_{p} exp(-alpha (S_ip - threshold)))
                 + 1/beta log(1 + sum_{n} exp(beta (S_in - threshold)))

    on cosine similarities S. Of the negatives those with S_in > min_p S_ip - epsilon are kept, of
    the positives those with S_ip < max_n S_in + epsilon.

    Use it in metric learning with labels and without proxies, as a first choice.

    Args:
      x_ND: embeddings of any float dtype, normalized inside.
      labels_N: integers.
      alpha, beta: above 0.
      threshold: lambda in the paper.
      epsilon: slack of the choice of pairs; None keeps all pairs.
      axis_name: mapped axis over which the batch is sharded.

    Returns:
      float32 [N], one loss per anchor.

    Raises:
      ValueError: wrong rank or dtype, labels that do not fit, alpha or beta <= 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> x, labels = jnp.ones((3, 2)), jnp.array([0, 0, 1])
      >>> loss = losses.multi_similarity(x, labels, alpha=1.0, beta=1.0, threshold=1.0)
      >>> print(f"{loss[0]:.3f}")  # 2 log 2
      1.386

    Reference: Wang et al., Multi-Similarity Loss with General Pair Weighting for Deep Metric
    Learning, CVPR 2019, section 4 (arXiv 1904.06627).
    """
    alpha, beta = check_positive("alpha", alpha), check_positive("beta", beta)
    threshold = check_number("threshold", threshold)
    epsilon = None if epsilon is None else check_number("epsilon", epsilon)
    s, positive, negative = cosines(x_ND, labels_N, axis_name)
    if epsilon is not None:
        least = jnp.min(jnp.where(positive, s, jnp.inf), axis=1, keepdims=True)
        most = jnp.max(jnp.where(negative, s, -jnp.inf), axis=1, keepdims=True)
        negative, positive = negative & (s > least - epsilon), positive & (s < most + epsilon)
    pull = softplus(_log_sum_where(positive, -alpha * (s - threshold))) / alpha
    return pull + softplus(_log_sum_where(negative, beta * (s - threshold))) / beta


def circle(
    x_ND: jax.Array,
    labels_N: jax.Array,
    margin: float = 0.25,
    scale: float = 256.0,
    *,
    axis_name: str | None = None,
) -> jax.Array:
    """Compute the circle loss, which weights each similarity by its distance to its optimum.

        loss_i = log( 1 + sum_n exp(scale a_n (s_n - margin))
                          * sum_p exp(-scale a_p (s_p - 1 + margin)) )
        a_n = max(0, s_n + margin),   a_p = max(0, 1 + margin - s_p),   without a gradient

    on cosine similarities to the anchor.

    Use it in metric learning where few pairs far from their optimum should lead.

    Args:
      x_ND: embeddings of any float dtype, normalized inside.
      labels_N: integers.
      margin: m, from 0 to 1.
      scale: gamma, above 0.
      axis_name: mapped axis over which the batch is sharded.

    Returns:
      float32 [N], one loss per anchor; 0 for an anchor without positives or negatives.

    Raises:
      ValueError: wrong rank or dtype, labels that do not fit, scale <= 0, a margin outside 0 to
        1.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> x = jnp.ones((3, 2))  # a_n = 1.25, a_p = 0.25
      >>> print(f"{losses.circle(x, jnp.array([0, 0, 1]), scale=16.0)[0]:.3f}")
      14.000

    Reference: Sun et al., Circle Loss, CVPR 2020, section 3.2 (arXiv 2002.10857).
    """
    margin = check_between("margin", margin, 0, 1)
    scale = check_positive("scale", scale)
    s, positive, negative = cosines(x_ND, labels_N, axis_name)
    weight_n = lax.stop_gradient(jnp.maximum(0.0, s + margin))
    weight_p = lax.stop_gradient(jnp.maximum(0.0, 1.0 + margin - s))
    push = _log_sum_where(negative, scale * weight_n * (s - margin))
    pull = _log_sum_where(positive, -scale * weight_p * (s - (1.0 - margin)))
    return softplus(push + pull)


def ranked_list(
    x_ND: jax.Array,
    labels_N: jax.Array,
    boundary: float = 1.2,
    margin: float = 0.4,
    temperature: float = 10.0,
    *,
    axis_name: str | None = None,
) -> jax.Array:
    """Compute the ranked list loss: positives inside a ball, negatives beyond a wider one.

        loss_i = 1/2 mean over {p: d_ip > boundary - margin} of (d_ip - (boundary - margin))
                 + 1/2 sum over {n: d_in < boundary} of w_in (boundary - d_in)
        w_in = exp(temperature (boundary - d_in)) / sum of the same, without a gradient

    with Euclidean distances d of unit vectors.

    Use it where the rows of a class should keep some spread.

    Args:
      x_ND: embeddings of any float dtype, normalized inside.
      labels_N: integers.
      boundary: alpha, above 0.
      margin: m, above 0.
      temperature: T, at least 0: here a factor, as in the paper.
      axis_name: mapped axis over which the batch is sharded.

    Returns:
      float32 [N], one loss per anchor.

    Raises:
      ValueError: wrong rank or dtype, labels that do not fit, boundary or margin <= 0,
        temperature < 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> x = jnp.ones((3, 2))
      >>> print(losses.ranked_list(x, jnp.array([0, 0, 1])).round(1))  # 1.2 / 2
      [0.6 0.6 0.6]

    Reference: Wang et al., Ranked List Loss for Deep Metric Learning, CVPR 2019, section 3
    (arXiv 1903.03238).
    """
    boundary = check_positive("boundary", boundary)
    margin = check_positive("margin", margin)
    temperature = check_positive("temperature", temperature, or_zero=True)
    s, positive, negative = cosines(x_ND, labels_N, axis_name)
    d = _chord(s)
    outside = jnp.maximum(0.0, d - (boundary - margin))
    inside = jnp.maximum(0.0, boundary - d)
    close = negative & (inside > 0)
    weight = lax.stop_gradient(_softmax_where(close, temperature * inside))
    push = jnp.sum(weight * inside, axis=1)
    return 0.5 * (_mean_where(positive & (outside > 0), outside) + push)


def _chord(cosine: jax.Array) -> jax.Array:
    """The Euclidean distance of unit vectors, flat where they coincide."""
    square = 2.0 - 2.0 * cosine
    distinct = square > 1e-12
    return jnp.where(distinct, jnp.sqrt(jnp.where(distinct, square, 1.0)), 0.0)


def _log_sum_where(kept: jax.Array, x: jax.Array) -> jax.Array:
    return log_sum_exp(jnp.where(kept, x, -jnp.inf))


def _softmax_where(kept: jax.Array, x: jax.Array) -> jax.Array:
    """The softmax along each row over what is kept; a row of zeros where nothing is."""
    total = _log_sum_where(kept, x)[:, None]
    return jnp.where(kept, jnp.exp(x - jnp.where(total > -jnp.inf, total, 0.0)), 0.0)


def _mean_where(kept: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where(kept, x, 0.0), axis=1) / jnp.maximum(jnp.sum(kept, axis=1), 1)
