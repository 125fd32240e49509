"""Losses from a teacher's scores of a query's candidates: MarginMSE, KL divergence."""

import jax
import jax.numpy as jnp
from jax import lax

from contrastive_jax._numerics import bounded, log_sum_exp, unit
from contrastive_jax.losses._engine.checks import (
    arrays,
    check_embedding,
    check_flag,
    check_positive,
    check_shapes,
)
from contrastive_jax.losses._engine.explicit import check_given


def margin_mse(
    query_BD: jax.Array,
    key_BD: jax.Array,
    negatives_BKD: jax.Array,
    scores_BC: jax.Array,
    *,
    normalize: bool = False,
    negatives_mask_BK: jax.Array | None = None,
) -> jax.Array:
    """Compute MarginMSE: the student's margins should be those of the teacher.

        loss_i = mean over negatives n of ( (s_i0 - s_in) - (t_i0 - t_in) )^2

    with the student's inner products s and the teacher's scores t; candidate 0 is the positive.

    Use it where a cross-encoder's scores have a scale of their own: only differences count.

    Args:
      query_BD, key_BD, negatives_BKD: a query, its positive and K negatives; any float dtype.
      scores_BC: the teacher's, of the positive and of each negative, C = 1 + K; no gradient.
      normalize: True takes cosine similarities.
      negatives_mask_BK: bool, False for padding, which counts as if it were not there.

    Returns:
      float32 [B], one loss per query; 0 without negatives.

    Raises:
      ValueError: wrong rank or dtype, shapes that differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> q = jnp.eye(2)
      >>> scores = jnp.array([[3.0, 1.0], [0.5, 0.5]])  # margins of 2 and 0, the student's are 1
      >>> print(losses.margin_mse(q, q, q[::-1, None], scores))
      [1. 1.]

    Reference: Hofstaetter et al., Improving Efficient Neural Ranking Models with Cross-Architecture
    Knowledge Distillation, 2020, equation 5 (arXiv 2010.02666).
    """
    s_BC, t_BC, real_BC = _scores(
        query_BD, key_BD, negatives_BKD, scores_BC, normalize, negatives_mask_BK
    )
    gap_BC = (s_BC[:, :1] - s_BC) - (t_BC[:, :1] - t_BC)
    kept_BK = real_BC[:, 1:]
    square_BK = jnp.where(kept_BK, gap_BC[:, 1:], 0.0) ** 2
    count_B = jnp.sum(kept_BK, axis=1, dtype=jnp.float32)
    return jnp.sum(square_BK, axis=1) / jnp.maximum(count_B, 1.0)


def kl_distillation(
    query_BD: jax.Array,
    key_BD: jax.Array,
    negatives_BKD: jax.Array,
    scores_BC: jax.Array,
    temperature: jax.Array | float = 1.0,
    *,
    teacher_temperature: jax.Array | float = 1.0,
    normalize: bool = False,
    negatives_mask_BK: jax.Array | None = None,
) -> jax.Array:
    """Compute the KL divergence of the student's softmax over candidates from the teacher's.

        loss_i = sum_c p_ic log(p_ic / q_ic)
        p_i = softmax(t_i / teacher_temperature),   q_i = softmax(s_i / temperature)

    with the student's inner products s and the teacher's scores t. It is not multiplied by the
    temperature squared, as Hinton et al. and sentence-transformers do to keep the gradient's size.

    Use it where a cross-encoder has scored the candidates of each query.

    Args:
      query_BD, key_BD, negatives_BKD: a query, its positive and K negatives; any float dtype.
      scores_BC: the teacher's, of the positive and of each negative, C = 1 + K; no gradient.
      temperature: of the student; scalar above 0; may be traced.
      teacher_temperature: scalar above 0; may be traced.
      normalize: True takes cosine similarities.
      negatives_mask_BK: bool, False for padding, which counts as if it were not there.

    Returns:
      float32 [B], one loss per query; 0 without negatives.

    Raises:
      ValueError: wrong rank or dtype, shapes that differ, a temperature <= 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> q = jnp.ones((1, 2))  # the student is undecided: log 2 - entropy of the teacher
      >>> loss = losses.kl_distillation(q, q, q[:, None], jnp.log(jnp.array([[0.75, 0.25]])))
      >>> print(loss.round(4))
      [0.1308]

    Reference: Hinton et al., Distilling the Knowledge in a Neural Network, 2015, section 2
    (arXiv 1503.02531); Lin et al., In-Batch Negatives for Knowledge Distillation with
    Tightly-Coupled Teachers for Dense Retrieval, RepL4NLP 2021 (arXiv 2010.11386).
    """
    temperature = check_positive("temperature", temperature)
    teacher_temperature = check_positive("teacher_temperature", teacher_temperature)
    s_BC, t_BC, real_BC = _scores(
        query_BD, key_BD, negatives_BKD, scores_BC, normalize, negatives_mask_BK
    )
    log_q = _log_softmax_where(real_BC, s_BC / temperature)
    log_p = lax.stop_gradient(_log_softmax_where(real_BC, t_BC / teacher_temperature))
    return jnp.sum(jnp.where(real_BC, jnp.exp(log_p) * (log_p - log_q), 0.0), axis=1)


def _scores(
    query_BD: jax.Array,
    key_BD: jax.Array,
    negatives_BKD: jax.Array,
    scores_BC: jax.Array,
    normalize: bool,
    negatives_mask_BK: jax.Array | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The student's and the teacher's scores [B, C], and which candidates are real."""
    query_BD, key_BD, scores_BC = arrays(query_BD=query_BD, key_BD=key_BD, scores_BC=scores_BC)
    check_embedding("query_BD", query_BD, "BD")
    check_embedding("key_BD", key_BD, "BD")
    check_shapes("key_BD", key_BD, "query_BD", query_BD.shape)
    check_flag("normalize", normalize)
    given = check_given(query_BD, negatives_BKD, negatives_mask_BK, None, None)
    if given is None:
        raise ValueError("negatives_BKD is None, expected [B,K,D]: pass the negatives.")
    B, K = given.real_BK.shape
    check_shapes("scores_BC", scores_BC, "the positive and the negatives", (B, 1 + K))
    candidates_BCD = jnp.concatenate([key_BD[:, None], given.rows_BKD], axis=1)
    rows = unit if normalize else lambda x: bounded(x, 1e8)  # the loss has fourth powers
    s_BC = jnp.einsum("bd,bcd->bc", rows(query_BD), rows(candidates_BCD))
    real_BC = jnp.pad(given.real_BK, ((0, 0), (1, 0)), constant_values=True)
    t_BC = lax.stop_gradient(scores_BC.astype(jnp.float32))
    return s_BC, jnp.where(real_BC, t_BC, 0.0), real_BC


def _log_softmax_where(real_BC: jax.Array, x_BC: jax.Array) -> jax.Array:
    """The log-softmax over what is real; finite elsewhere too."""
    return x_BC - log_sum_exp(jnp.where(real_BC, x_BC, -jnp.inf))[:, None]
