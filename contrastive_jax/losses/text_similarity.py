"""Losses for pairs of texts with a similarity score: cosine regression, CoSENT, AnglE."""

import jax
import jax.numpy as jnp

from contrastive_jax._numerics import log_sum_exp, softplus, unit
from contrastive_jax.losses._engine.checks import (
    arrays,
    check_embedding,
    check_positive,
    check_shapes,
)


def cosine_regression(x_BD: jax.Array, y_BD: jax.Array, score_B: jax.Array) -> jax.Array:
    """Compute the squared error of the cosine similarity as a prediction of the score.

        loss_i = (x_i . y_i - score_i)^2   on unit vectors

    Use it where the scores are similarities from -1 to 1 that the cosine itself should have.

    Args:
      x_BD, y_BD: the pairs, any float dtype; normalized inside.
      score_B: from -1 to 1.

    Returns:
      float32 [B].

    Raises:
      ValueError: wrong rank or dtype, batches that differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> print(losses.cosine_regression(jnp.eye(2), jnp.eye(2), jnp.array([1.0, 0.5])))
      [0.   0.25]

    Reference: Reimers and Gurevych, Sentence-BERT, EMNLP 2019, section 3, regression objective
    (arXiv 1908.10084).
    """
    x_BD, y_BD, score_B = _checked(x_BD, y_BD, score_B)
    return (_cosine(x_BD, y_BD) - score_B.astype(jnp.float32)) ** 2


def cosent(
    x_BD: jax.Array, y_BD: jax.Array, score_B: jax.Array, temperature: jax.Array | float = 0.05
) -> jax.Array:
    """Compute CoSENT: pairs with a higher score should have a higher cosine similarity.

        loss = log( 1 + sum_{score_i > score_j} exp( (cos_j - cos_i) / temperature ) )

    The loss ranks the batch as a whole, so it is one number.

    Use it for pairs with graded scores (STS): only the order of the scores counts.

    Args:
      x_BD, y_BD: the pairs, any float dtype; normalized inside. With y [B,N,D], a row of x is
        paired with N rows, such as a positive and graded negatives.
      score_B: any numbers, [B,N] with such a y; only their order counts, among all pairs.
      temperature: scalar above 0; may be traced.

    Returns:
      float32 []; 0 when all scores are equal.

    Raises:
      ValueError: wrong rank or dtype, batches that differ, temperature <= 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> loss = losses.cosent(jnp.eye(2), jnp.eye(2), jnp.array([1.0, 0.0]))  # a tie: log 2
      >>> print(f"{loss:.3f}")
      0.693

    Reference: Su, CoSENT, 2022 (kexue.fm/archives/8847).
    """
    x_BD, y_BD, score_B = _pairs(x_BD, y_BD, score_B)
    temperature = check_positive("temperature", temperature)
    return _ranked(_cosine(x_BD, y_BD), score_B, temperature)


def angle(
    x_BD: jax.Array, y_BD: jax.Array, score_B: jax.Array, temperature: jax.Array | float = 0.05
) -> jax.Array:
    """Compute AnglE: CoSENT on the angle difference in complex space, which has no flat ends.

        loss = log( 1 + sum_{score_i > score_j} exp( (a_j - a_i) / temperature ) )
        a = |sum_d Re(x_d conj(y_d)) + Im(x_d conj(y_d))|   on unit vectors

    where the first half of the features is the real part and the second half the imaginary one.
    The loss ranks the batch as a whole, so it is one number.

    Use it for graded pairs of texts where the cosine of CoSENT is flat, near 1 and -1.

    Args:
      x_BD, y_BD: the pairs, any float dtype; D is even; normalized inside. With y [B,N,D], a row
        of x is paired with N rows, such as a positive and graded negatives.
      score_B: any numbers, [B,N] with such a y; only their order counts, among all pairs.
      temperature: scalar above 0; may be traced.

    Returns:
      float32 []; 0 when all scores are equal.

    Raises:
      ValueError: wrong rank or dtype, batches that differ, odd D, temperature <= 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> loss = losses.angle(jnp.eye(2), jnp.eye(2), jnp.array([1.0, 1.0]))
      >>> print(loss)
      0.0

    Reference: Li and Li, AnglE-optimized Text Embeddings, ACL 2024, section 3.4
    (arXiv 2309.12871).
    """
    x_BD, y_BD, score_B = _pairs(x_BD, y_BD, score_B)
    temperature = check_positive("temperature", temperature)
    if x_BD.shape[1] % 2:
        raise ValueError(f"D is {x_BD.shape[1]}, expected an even number: pad the embedding.")
    return _ranked(_angle(x_BD, y_BD), score_B, temperature)


def _checked(
    x_BD: jax.Array, y_BD: jax.Array, score_B: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    x_BD, y_BD, score_B = arrays(x_BD=x_BD, y_BD=y_BD, score_B=score_B)
    check_embedding("x_BD", x_BD, "BD")
    check_embedding("y_BD", y_BD, "BD")
    check_shapes("y_BD", y_BD, "x_BD", x_BD.shape)
    check_shapes("score_B", score_B, "x_BD", x_BD.shape[:1])
    return x_BD, y_BD, score_B


def _pairs(
    x_BD: jax.Array, y_BD: jax.Array, score_B: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Pairs and their scores; a row and its N others are N pairs."""
    x_BD, y_BD, score_B = arrays(x_BD=x_BD, y_BD=y_BD, score_B=score_B)
    if y_BD.ndim != 3:
        return _checked(x_BD, y_BD, score_B)
    check_embedding("x_BD", x_BD, "BD")
    check_embedding("y_BND", y_BD, "BND")
    (B, D), N = x_BD.shape, y_BD.shape[1]
    check_shapes("y_BND", y_BD, "x_BD", (B, N, D))
    check_shapes("score_BN", score_B, "y_BND", (B, N))
    return jnp.repeat(x_BD, N, axis=0), y_BD.reshape(B * N, D), score_B.reshape(B * N)


def _cosine(x_BD: jax.Array, y_BD: jax.Array) -> jax.Array:
    return jnp.sum(unit(x_BD) * unit(y_BD), axis=-1)


def _angle(x_BD: jax.Array, y_BD: jax.Array) -> jax.Array:
    a, b = jnp.split(unit(x_BD), 2, axis=-1)
    c, d = jnp.split(unit(y_BD), 2, axis=-1)
    return jnp.abs(jnp.sum(a * c + b * d + b * c - a * d, axis=-1))


def _ranked(
    similarity_B: jax.Array, score_B: jax.Array, temperature: jax.Array | float
) -> jax.Array:
    """log(1 + the sum over pairs in the wrong order, softly)."""
    higher = score_B[:, None] > score_B[None, :]
    gap = (similarity_B[None, :] - similarity_B[:, None]) / temperature
    return softplus(log_sum_exp(jnp.where(higher, gap, -jnp.inf).reshape(-1)))
