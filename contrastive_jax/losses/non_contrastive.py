"""Non-contrastive losses and regularizers: VICReg, Barlow Twins, BYOL and SimSiam, alignment,
uniformity, spread-out. Batch-level losses return a scalar."""

import jax
import jax.numpy as jnp
from jax import lax

from contrastive_jax._numerics import as_array, bounded, log_sum_exp, unit
from contrastive_jax.losses._engine.checks import (
    arrays,
    check_embedding,
    check_positive,
    check_shapes,
)
from contrastive_jax.losses._engine.mapped_axis import gather


def alignment(x_BD: jax.Array, y_BD: jax.Array, alpha: float = 2.0) -> jax.Array:
    """Measure the distance of two views of an example on the sphere, to a power.

        loss_i = |x_i - y_i|^alpha   on unit vectors

    Use it to measure how near positives are, or to train beside `uniformity`: alone it
    collapses.

    Args:
      x_BD, y_BD: two views, any float dtype; normalized inside.
      alpha: above 0.

    Returns:
      float32 [B].

    Raises:
      ValueError: wrong rank or dtype, batches that differ, alpha <= 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> print(losses.alignment(jnp.eye(2), jnp.eye(2)[::-1]))
      [2. 2.]

    Reference: Wang and Isola, Understanding Contrastive Representation Learning through Alignment
    and Uniformity on the Hypersphere, ICML 2020, section 4.1 (arXiv 2005.10242).
    """
    x_BD, y_BD = _checked_two(x_BD, y_BD)
    alpha = check_positive("alpha", alpha)
    gap = unit(x_BD) - unit(y_BD)
    square = jnp.sum(gap * gap, axis=-1)
    distinct = square > 0
    return jnp.where(distinct, jnp.where(distinct, square, 1.0) ** (alpha / 2), 0.0)


def uniformity(x_BD: jax.Array, t: float = 2.0, *, axis_name: str | None = None) -> jax.Array:
    """Compute uniformity on the sphere: the log of the mean Gaussian potential of pairs.

        loss = log mean_{i != j} exp( -t |x_i - x_j|^2 )   on unit vectors

    Use it to measure how evenly embeddings cover the sphere, or to train beside `alignment`.

    Args:
      x_BD: any float dtype, normalized inside; at least two rows.
      t: above 0.
      axis_name: mapped axis over which the batch is sharded; every device gets the loss of all.

    Returns:
      float32 [], at most 0.

    Raises:
      ValueError: wrong rank or dtype, t <= 0, fewer than two rows.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> print(f"{losses.uniformity(jnp.eye(3)):.3f}")  # every |x - y|^2 is 2
      -4.000

    Reference: Wang and Isola, ICML 2020, section 4.1 (arXiv 2005.10242).
    """
    x_BD = as_array("x_BD", x_BD)
    check_embedding("x_BD", x_BD, "BD")
    t = check_positive("t", t)
    x = gather(unit(x_BD), axis_name)
    _check_rows("x_BD", x, 2)
    potential = -t * (2.0 - 2.0 * x @ x.T)
    other = ~jnp.eye(len(x), dtype=bool)
    pairs = jnp.float32(len(x) * (len(x) - 1))
    total = log_sum_exp(jnp.where(other, potential, -jnp.inf).reshape(-1)) - jnp.log(pairs)
    return _same_everywhere(total, axis_name)


def barlow_twins(
    x_BD: jax.Array,
    y_BD: jax.Array,
    off_diagonal: float = 5e-3,
    *,
    epsilon: float = 1e-5,
    axis_name: str | None = None,
) -> jax.Array:
    """Compute Barlow Twins: the views' cross-correlation over the batch should be the identity.

        loss = sum_a (1 - C_aa)^2 + off_diagonal sum_{a != b} C_ab^2

    with C_ab = Cov(x_a, y_b) / sqrt((Var x_a + epsilon) (Var y_b + epsilon)).

    Use it for two views without negatives, with wide embeddings and batches of some hundreds.

    Args:
      x_BD, y_BD: two views, any float dtype, taken as they come; at least two rows.
      off_diagonal: weight of redundancy, lambda in the paper.
      epsilon: above 0; keeps the gradient of features that hardly vary small. 1e-5 is that of the
        batch norm in the authors' code; the paper has none.
      axis_name: mapped axis over which the batch is sharded; every device gets the loss of all.

    Returns:
      float32 [].

    Raises:
      ValueError: wrong rank or dtype, batches that differ, fewer than two rows, epsilon <= 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> x = jnp.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
      >>> print(f"{losses.barlow_twins(x, x):.3f}")
      0.000

    Reference: Zbontar et al., Barlow Twins, ICML 2021, equations 1 and 2 (arXiv 2103.03230).
    """
    x_BD, y_BD = _checked_two(x_BD, y_BD)
    off_diagonal = check_positive("off_diagonal", off_diagonal, or_zero=True)
    epsilon = check_positive("epsilon", epsilon)
    # The gradient of a normalized feature has the third power of its deviation.
    x, y = gather((bounded(x_BD, 1e8), bounded(y_BD, 1e8)), axis_name)
    _check_rows("x_BD", x, 2)
    c = _normalized_over_batch(x, epsilon).T @ _normalized_over_batch(y, epsilon) / len(x)
    diagonal = jnp.eye(c.shape[0], dtype=bool)
    loss = jnp.sum(jnp.where(diagonal, (1.0 - c) ** 2, off_diagonal * c**2))
    return _same_everywhere(loss, axis_name)


def vicreg(
    x_BD: jax.Array,
    y_BD: jax.Array,
    weights: tuple[float, float, float] = (25.0, 25.0, 1.0),
    *,
    epsilon: float = 1e-4,
    axis_name: str | None = None,
) -> jax.Array:
    """Compute VICReg: views agree, every feature varies, and features do not repeat each other.

        loss = w_0 mean_i |x_i - y_i|^2 / D + w_1 (v(x) + v(y)) / 2 + w_2 (c(x) + c(y))
        v(x) = mean_a max(0, 1 - sqrt(Var x_a + epsilon)),   c(x) = sum_{a != b} Cov(x)_ab^2 / D

    The halves of v and the mean over D of the first term are those of the authors' code.

    Use it for two views without negatives, where the two branches may differ.

    Args:
      x_BD, y_BD: two views, any float dtype, taken as they come; at least two rows.
      weights: of invariance, variance and covariance.
      epsilon: above 0; keeps the root differentiable.
      axis_name: mapped axis over which the batch is sharded; every device gets the loss of all.

    Returns:
      float32 [].

    Raises:
      ValueError: wrong rank or dtype, batches that differ, fewer than two rows, epsilon <= 0, not
        three weights of at least 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> x = 2 * jnp.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
      >>> print(f"{losses.vicreg(x, x):.3f}")
      0.000

    Reference: Bardes et al., VICReg, ICLR 2022, equations 1 to 6 (arXiv 2105.04906).
    """
    x_BD, y_BD = _checked_two(x_BD, y_BD)
    epsilon = check_positive("epsilon", epsilon)
    if len(weights) != 3:
        raise ValueError(f"{len(weights)} weights, expected 3: invariance, variance, covariance.")
    weights = tuple(check_positive("weights", weight, or_zero=True) for weight in weights)
    # Squares of covariances are fourth powers of the embedding.
    x, y = gather((bounded(x_BD, 1e8), bounded(y_BD, 1e8)), axis_name)
    _check_rows("x_BD", x, 2)
    v_x, c_x = _variance_and_covariance(x, epsilon)
    v_y, c_y = _variance_and_covariance(y, epsilon)
    agree = jnp.mean((x - y) ** 2)
    loss = weights[0] * agree + weights[1] * (v_x + v_y) / 2 + weights[2] * (c_x + c_y)
    return _same_everywhere(loss, axis_name)


def negative_cosine(prediction_BD: jax.Array, target_BD: jax.Array) -> jax.Array:
    """Compute the loss of SimSiam, and of BYOL up to 2 + 2 x: no gradient reaches the target.

        loss_i = -p_i . stop_gradient(t_i)   on unit vectors

    Use it with a predictor and a stopped or averaged target: alone it collapses.

    Args:
      prediction_BD, target_BD: any float dtype, normalized inside.

    Returns:
      float32 [B], from -1 to 1.

    Raises:
      ValueError: wrong rank or dtype, batches that differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> print(losses.negative_cosine(jnp.eye(2), jnp.eye(2)))
      [-1. -1.]

    References: Chen and He, SimSiam, CVPR 2021, equation 1 (arXiv 2011.10566); Grill et al., BYOL,
    NeurIPS 2020, equation 2 (arXiv 2006.07733).
    """
    prediction_BD, target_BD = arrays(prediction_BD=prediction_BD, target_BD=target_BD)
    _checked_two(prediction_BD, target_BD)
    return -jnp.sum(unit(prediction_BD) * lax.stop_gradient(unit(target_BD)), axis=-1)


def spread_out(x_BD: jax.Array, y_BD: jax.Array, *, axis_name: str | None = None) -> jax.Array:
    """Compute global orthogonal regularization: non-matching pairs as if sampled on the sphere.

        loss = M_1^2 + max(0, M_2 - 1/D),   M_k = mean_{i != j} (x_i . y_j)^k   on unit vectors

    Use it beside a triplet or pair loss, as a regularizer.

    Args:
      x_BD, y_BD: row i of one belongs to row i of the other; any float dtype; at least two rows.
      axis_name: mapped axis over which the batch is sharded; every device gets the loss of all.

    Returns:
      float32 [].

    Raises:
      ValueError: wrong rank or dtype, batches that differ, fewer than two rows.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> print(losses.spread_out(jnp.eye(3), jnp.eye(3)))
      0.0

    Reference: Zhang et al., Learning Spread-out Local Feature Descriptors, ICCV 2017, section 3
    (arXiv 1708.06320).
    """
    x_BD, y_BD = _checked_two(x_BD, y_BD)
    x, y = gather((unit(x_BD), unit(y_BD)), axis_name)
    _check_rows("x_BD", x, 2)
    s = jnp.where(jnp.eye(len(x), dtype=bool), 0.0, x @ y.T)
    pairs = len(x) * (len(x) - 1)
    first, second = s.sum() / pairs, (s * s).sum() / pairs
    return _same_everywhere(first**2 + jnp.maximum(0.0, second - 1.0 / x.shape[1]), axis_name)


def _checked_two(x_BD: jax.Array, y_BD: jax.Array) -> tuple[jax.Array, jax.Array]:
    x_BD, y_BD = arrays(x_BD=x_BD, y_BD=y_BD)
    check_embedding("x_BD", x_BD, "BD")
    check_embedding("y_BD", y_BD, "BD")
    check_shapes("y_BD", y_BD, "x_BD", x_BD.shape)
    return x_BD, y_BD


def _check_rows(name: str, x: jax.Array, least: int) -> None:
    if len(x) < least:
        raise ValueError(f"{name} has {len(x)} row(s), expected at least {least}: batch more.")


def _same_everywhere(loss: jax.Array, axis_name: str | None) -> jax.Array:
    """The loss as a number that every device knows, with the gradient counted once."""
    return loss if axis_name is None else lax.pmean(loss, axis_name)


def _normalized_over_batch(x: jax.Array, epsilon: float) -> jax.Array:
    """As by batch norm: each feature with mean 0 and, but for epsilon, deviation 1."""
    x = x - x.mean(0, keepdims=True)
    return x * lax.rsqrt(jnp.mean(x * x, axis=0, keepdims=True) + epsilon)


def _variance_and_covariance(x: jax.Array, epsilon: float) -> tuple[jax.Array, jax.Array]:
    B, D = x.shape
    x = x - x.mean(0, keepdims=True)
    covariance = x.T @ x / (B - 1)
    spread = jnp.sqrt(jnp.diag(covariance) + epsilon)
    redundant = jnp.where(jnp.eye(D, dtype=bool), 0.0, covariance)
    return jnp.mean(jnp.maximum(0.0, 1.0 - spread)), jnp.sum(redundant**2) / D
