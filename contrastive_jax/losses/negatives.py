"""InfoNCE with other negatives: given for each query, from a queue, of both sides, guided."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from contrastive_jax._numerics import log_sum_exp, softplus, unit
from contrastive_jax.losses._engine.checks import (
    arrays,
    check_embedding,
    check_flag,
    check_number,
    check_shapes,
)
from contrastive_jax.losses._engine.reduce import over_both, over_keys, over_self
from contrastive_jax.losses._engine.similarity import (
    check_pairs,
    keys_of_other_ids,
    other_keys,
    scaled,
)
from contrastive_jax.losses._engine.tile import Terms, similarities


def per_query_info_nce(
    query_BD: jax.Array,
    key_BD: jax.Array,
    negatives_BKD: jax.Array,
    temperature: jax.Array | float = 0.07,
) -> jax.Array:
    """Compute InfoNCE against K given negatives of each query, without the rest of the batch.

        loss_i = -log( exp s(q_i, k_i) / (exp s(q_i, k_i) + sum_n exp s(q_i, n_in)) )

    with s(a, b) = a . b / temperature on unit vectors. For batches whose rows are too similar
    to be negatives of each other.

    Args:
      query_BD, key_BD, negatives_BKD: any float dtype, normalized inside.
      temperature: scalar above 0; may be traced.

    Returns:
      float32 [B], one loss per query; 0 with K = 0.

    Raises:
      ValueError: wrong rank or dtype, shapes that differ, temperature <= 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> q = jnp.ones((2, 4))
      >>> print(losses.per_query_info_nce(q, q, jnp.ones((2, 3, 4))).round(4))  # log(1 + K)
      [1.3863 1.3863]

    Reference: van den Oord et al., 2018, equation 4 (arXiv 1807.03748), with given negatives.
    """
    query_BD, key_BD, negatives_BKD = arrays(
        query_BD=query_BD, key_BD=key_BD, negatives_BKD=negatives_BKD
    )
    check_pairs(query_BD, key_BD, temperature, None, None, None)
    check_embedding("negatives_BKD", negatives_BKD, "BKD")
    B, D = query_BD.shape
    K = negatives_BKD.shape[1]
    check_shapes("negatives_BKD", negatives_BKD, "query", (B, K, D))
    query_BD = scaled(query_BD, temperature, sides=1)
    matching = jnp.sum(query_BD * unit(key_BD), axis=-1)
    if K == 0:
        return jnp.zeros_like(matching)
    negatives_BK = jnp.einsum("bd,bkd->bk", query_BD, unit(negatives_BKD))
    return softplus(log_sum_exp(negatives_BK) - matching)


def queue_info_nce(
    query_BD: jax.Array,
    key_BD: jax.Array,
    queue_KD: jax.Array,
    temperature: jax.Array | float = 0.07,
    *,
    block_size: int | None = None,
) -> jax.Array:
    """Compute the InfoNCE of MoCo: each query's key against a queue of older keys.

        loss_i = -log( exp s(q_i, k_i) / (exp s(q_i, k_i) + sum_{n in queue} exp s(q_i, n)) )

    with s(a, b) = a . b / temperature on unit vectors. No gradient flows to key or queue. A zero
    row of the queue counts as a negative of similarity 0: fill the queue before it is used.

    Args:
      query_BD, key_BD, queue_KD: any float dtype, normalized inside.
      temperature: scalar above 0; may be traced.
      block_size: None for the dense form, or the side of the tiles of the linear-memory form. Tiles
        have reverse mode only: for `jvp` or a Hessian use None, or `jacrev` of `grad`.

    Returns:
      float32 [B], one loss per query.

    Raises:
      ValueError: wrong rank or dtype, shapes that differ, temperature <= 0, block_size < 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> q = jnp.ones((2, 4))
      >>> print(losses.queue_info_nce(q, q, jnp.ones((7, 4))).round(4))  # log(1 + K)
      [2.0794 2.0794]

    Reference: He et al., Momentum Contrast for Unsupervised Visual Representation Learning,
    CVPR 2020, equation 1 (arXiv 1911.05722).
    """
    query_BD, key_BD, queue_KD = arrays(query_BD=query_BD, key_BD=key_BD, queue_KD=queue_KD)
    check_pairs(query_BD, key_BD, temperature, None, None, block_size)
    check_embedding("queue_KD", queue_KD, "KD")
    check_shapes("queue_KD", queue_KD, "query", (len(queue_KD), query_BD.shape[1]))
    query_BD = scaled(query_BD, temperature, sides=1)
    key_BD, queue_KD = lax.stop_gradient((unit(key_BD), unit(queue_KD)))
    negatives = over_keys(_all, query_BD, queue_KD, (), (), block_size=block_size).exponents[0]
    return softplus(negatives - jnp.sum(query_BD * key_BD, axis=-1))


def joint_info_nce(
    query_BD: jax.Array,
    key_BD: jax.Array,
    temperature: jax.Array | float = 0.07,
    *,
    ids_B: jax.Array | None = None,
    axis_name: str | None = None,
    block_size: int | None = None,
) -> jax.Array:
    """Compute InfoNCE whose denominator holds the negatives of both sides, as in GTE.

        loss_i = -log( exp s(q_i, k_i) / Z_i )
        Z_i = sum_j exp s(q_i, k_j) + sum_{j != i} ( exp s(q_j, k_i) + exp s(q_i, q_j)
              + exp s(k_j, k_i) ),   s(a, b) = a . b / temperature on unit vectors.

    The positive is counted once.

    Args:
      query_BD, key_BD: row i of one belongs to row i of the other; any float dtype, normalized.
      temperature: scalar above 0; may be traced.
      ids_B: integers; pairs j != i with the id of i depict the same thing and are left out.
      axis_name: mapped axis over which the batch is sharded; negatives come from all devices.
      block_size: None for the dense form, or the side of the tiles of the linear-memory form. Tiles
        have reverse mode only: for `jvp` or a Hessian use None, or `jacrev` of `grad`.

    Returns:
      float32 [B], one loss per pair; 0 where there is nothing to contrast with.

    Raises:
      ValueError: wrong rank or dtype, batches that differ, temperature <= 0, block_size < 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> x = jnp.ones((4, 8))  # log(1 + 4 (B - 1))
      >>> print(f"{losses.joint_info_nce(x, x)[0]:.3f}")
      2.565

    Reference: Li et al., Towards General Text Embeddings with Multi-stage Contrastive Learning,
    2023, the improved contrastive loss (arXiv 2308.03281).
    """
    query_BD, key_BD = arrays(query_BD=query_BD, key_BD=key_BD)
    ids = check_pairs(query_BD, key_BD, temperature, ids_B, axis_name, block_size)
    query_BD = scaled(query_BD, temperature, sides=2)
    key_BD = scaled(key_BD, temperature, sides=2)
    tile = other_keys if ids_B is None else keys_of_other_ids
    form = {"axis_name": axis_name, "block_size": block_size}
    of_query, of_key = over_both(tile, query_BD, key_BD, ids, ids, **form)
    among_queries = over_self(tile, query_BD, ids, **form)
    among_keys = over_self(tile, key_BD, ids, **form)
    each = [terms.exponents[0] for terms in (of_query, of_key, among_queries, among_keys)]
    matching = jnp.sum(query_BD * key_BD, axis=-1)
    return softplus(log_sum_exp(jnp.stack(each, axis=-1)) - matching)


class _Guided(NamedTuple):
    """A row's place, its guide embedding, and the largest guide similarity of a negative."""

    index: jax.Array
    guide: jax.Array
    limit: jax.Array


def guided_info_nce(
    query_BD: jax.Array,
    key_BD: jax.Array,
    guide_query_BF: jax.Array,
    guide_key_BF: jax.Array,
    temperature: jax.Array | float = 0.07,
    *,
    margin: float = 0.0,
    relative: bool = False,
    axis_name: str | None = None,
    block_size: int | None = None,
) -> jax.Array:
    """Compute InfoNCE without the keys that a guide model takes for false negatives (GISTEmbed).

        loss_i = -log( exp s(i, i) / (exp s(i, i) + sum_{j in kept(i)} exp s(i, j)) )
        kept(i) = {j != i: g(i, j) <= g(i, i) - m_i},   m_i = margin or |g(i, i)| margin

    with s(i, j) = query_i . key_j / temperature and g the guide's cosine similarities.

    Args:
      query_BD, key_BD: row i of one belongs to row i of the other; any float dtype, normalized.
      guide_query_BF, guide_key_BF: the guide's embeddings of the same rows; no gradient.
      temperature: scalar above 0; may be traced.
      margin: how much less similar than the positive a negative must be.
      relative: whether the margin is a fraction of the positive's similarity.
      axis_name: mapped axis over which the batch is sharded; keys come from all devices.
      block_size: None for the dense form, or the side of the tiles of the linear-memory form. Tiles
        have reverse mode only: for `jvp` or a Hessian use None, or `jacrev` of `grad`.

    Returns:
      float32 [B], one loss per query; 0 where there is nothing to contrast with.

    Raises:
      ValueError: wrong rank or dtype, batches that differ, temperature <= 0, block_size < 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> x, guide = jnp.ones((3, 4)), jnp.eye(3)[jnp.array([0, 0, 1])]  # rows 0, 1 are the same
      >>> print(losses.guided_info_nce(x, x, guide, guide, margin=0.1).round(4))
      [0.6931 0.6931 1.0986]

    Reference: Solatorio, GISTEmbed: Guided In-sample Selection of Training Negatives, 2024,
    section 3 (arXiv 2402.16829), from queries to keys.
    """
    query_BD, key_BD = arrays(query_BD=query_BD, key_BD=key_BD)
    guide_query_BF, guide_key_BF = arrays(guide_query_BF=guide_query_BF, guide_key_BF=guide_key_BF)
    ids = check_pairs(query_BD, key_BD, temperature, None, axis_name, block_size)
    margin = check_number("margin", margin)
    check_flag("relative", relative)
    check_embedding("guide_query_BF", guide_query_BF, "BF")
    check_embedding("guide_key_BF", guide_key_BF, "BF")
    check_shapes(
        "guide_query_BF", guide_query_BF, "query", (len(query_BD), *guide_query_BF.shape[1:])
    )
    check_shapes("guide_key_BF", guide_key_BF, "guide_query_BF", guide_query_BF.shape)
    guide_query_BF, guide_key_BF = lax.stop_gradient((unit(guide_query_BF), unit(guide_key_BF)))
    matching = jnp.sum(guide_query_BF * guide_key_BF, axis=-1)
    limit = matching - (jnp.abs(matching) * margin if relative else margin)
    query_BD, key_BD = scaled(query_BD, temperature, sides=1), unit(key_BD)
    negatives = over_keys(
        _not_too_similar,
        query_BD,
        key_BD,
        _Guided(ids.index, guide_query_BF, limit),
        _Guided(ids.index, guide_key_BF, limit),
        axis_name=axis_name,
        block_size=block_size,
    ).exponents[0]
    return softplus(negatives - jnp.sum(query_BD * key_BD, axis=-1))


def _all(s: jax.Array, params: tuple[()], rows: tuple[()], cols: tuple[()]) -> Terms:
    return Terms((s,))


def _not_too_similar(s: jax.Array, params: tuple[()], rows: _Guided, cols: _Guided) -> Terms:
    too_similar = similarities(rows.guide, cols.guide) > rows.limit[:, None]
    other = rows.index[:, None] != cols.index[None, :]
    return Terms((jnp.where(other & ~too_similar, s, -jnp.inf),))
