"""InfoNCE with other negatives: given for each query, from a queue, of both sides, guided."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from contrastive_jax._numerics import as_array, log_sum_exp, softplus, unit
from contrastive_jax.losses._engine.checks import (
    arrays,
    check_embedding,
    check_flag,
    check_number,
    check_shapes,
)
from contrastive_jax.losses._engine.directions import DIRECTIONS, log_sum_of_negatives
from contrastive_jax.losses._engine.explicit import (
    Given,
    Keys,
    are_negatives,
    check_given,
    keys_of_batch,
    keys_with,
    rows_with,
)
from contrastive_jax.losses._engine.reduce import over_keys
from contrastive_jax.losses._engine.similarity import Ids, against_negatives, check_pairs, scaled
from contrastive_jax.losses._engine.tile import Terms, similarities


def per_query_info_nce(
    query_BD: jax.Array,
    key_BD: jax.Array,
    negatives_BKD: jax.Array,
    temperature: jax.Array | float = 0.07,
    *,
    negatives_mask_BK: jax.Array | None = None,
    negatives_ids_BK: jax.Array | None = None,
    ids_B: jax.Array | None = None,
) -> jax.Array:
    """Compute InfoNCE against K given negatives of each query, without the rest of the batch.

        loss_i = -log( exp s(q_i, k_i) / (exp s(q_i, k_i) + sum_n exp s(q_i, n_in)) )

    with s(a, b) = a . b / temperature on unit vectors. For batches whose rows are too similar
    to be negatives of each other.

    Use it where negatives were mined for each query, and other rows may be positives.

    Args:
      query_BD, key_BD, negatives_BKD: any float dtype, normalized inside.
      temperature: scalar above 0; may be traced.
      negatives_mask_BK: bool, False for padding, which counts as if it were not there.
      negatives_ids_BK, ids_B: integers; a negative with the id of its query's key is left out.

    Returns:
      float32 [B], one loss per query; 0 without negatives.

    Raises:
      ValueError: wrong rank or dtype, shapes that differ, ids of negatives without `ids_B`,
        temperature <= 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> q = jnp.ones((2, 4))
      >>> print(losses.per_query_info_nce(q, q, jnp.ones((2, 3, 4))).round(4))  # log(1 + K)
      [1.3863 1.3863]

    Reference: van den Oord et al., 2018, equation 4 (arXiv 1807.03748), with given negatives.
    """
    query_BD, key_BD = arrays(query_BD=query_BD, key_BD=key_BD)
    ids = check_pairs(query_BD, key_BD, temperature, ids_B, None, None)
    given = check_given(query_BD, negatives_BKD, negatives_mask_BK, negatives_ids_BK, ids_B)
    if given is None:
        raise ValueError("negatives_BKD is None, expected [B,K,D]: use info_nce without negatives.")
    query_BD = scaled(query_BD, temperature, sides=1)
    matching = jnp.sum(query_BD * unit(key_BD), axis=-1)
    kept_BK = given.real_BK
    if given.ids_BK is not None:
        kept_BK &= given.ids_BK != ids.id[:, None]
    if kept_BK.shape[1] == 0:
        return jnp.zeros_like(matching)
    negatives_BK = jnp.einsum("bd,bkd->bk", query_BD, unit(given.rows_BKD))
    return softplus(log_sum_exp(jnp.where(kept_BK, negatives_BK, -jnp.inf)) - matching)


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

    Use it where the batch is small: negatives are the keys of earlier batches (MoCo).

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
    positive_once: bool = False,
    ids_B: jax.Array | None = None,
    axis_name: str | None = None,
    block_size: int | None = None,
) -> jax.Array:
    """Compute the improved contrastive loss of GTE: one denominator for all four directions.

        loss_i = -log( exp s(q_i, k_i) / Z_i ),   s(a, b) = a . b / temperature on unit vectors
        Z_i = sum_j ( exp s(q_i, k_j) + exp s(q_j, k_i) )
              + sum_{j != i} ( exp s(q_i, q_j) + exp s(k_j, k_i) )

    The positive is in both sums of the first line, so a perfect pair has a loss of log 2. It is
    `info_nce` with all directions.

    Use it for pairs of texts of one kind, such as titles, to have more negatives of a batch.

    Args:
      query_BD, key_BD: row i of one belongs to row i of the other; any float dtype, normalized.
      temperature: scalar above 0; may be traced.
      positive_once: True counts the positive once in the denominator, unlike the paper: a perfect
        pair then has no loss.
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
      >>> x = jnp.ones((4, 8))  # log(2 B + 2 (B - 1))
      >>> print(f"{losses.joint_info_nce(x, x)[0]:.3f}")
      2.639

    Reference: Li et al., Towards General Text Embeddings with Multi-stage Contrastive Learning,
    2023, equations 5 and 6 (arXiv 2308.03281).
    """
    check_flag("positive_once", positive_once)
    query_BD, key_BD = arrays(query_BD=query_BD, key_BD=key_BD)
    ids = check_pairs(query_BD, key_BD, temperature, ids_B, axis_name, block_size)
    query_BD, key_BD = (scaled(x, temperature, sides=2) for x in (query_BD, key_BD))
    negatives = log_sum_of_negatives(
        DIRECTIONS, query_BD, key_BD, ids, None, axis_name=axis_name, block_size=block_size
    )
    matching = jnp.sum(query_BD * key_BD, axis=-1)
    return against_negatives(negatives, matching, twice=not positive_once)


def guided_info_nce(
    query_BD: jax.Array,
    key_BD: jax.Array,
    guide_query_BF: jax.Array,
    guide_key_BF: jax.Array,
    temperature: jax.Array | float = 0.07,
    *,
    negatives_BKD: jax.Array | None = None,
    guide_negatives_BKF: jax.Array | None = None,
    negatives_mask_BK: jax.Array | None = None,
    negatives_ids_BK: jax.Array | None = None,
    ids_B: jax.Array | None = None,
    margin: float = 0.0,
    relative: bool = False,
    contrast_queries: bool = True,
    contrast_keys: bool = True,
    axis_name: str | None = None,
    block_size: int | None = None,
) -> jax.Array:
    """Compute InfoNCE without what a guide model takes for false negatives (GISTEmbed).

        loss_i = -log( exp s(q_i, k_i) / (exp s(q_i, k_i) + sum over kept (a, b) of exp s(a, b)) )
        kept = those of (q_i, k_j), (q_i, q_j), (k_i, k_j) for j != i, and of (q_i, n) for all
        explicit negatives n, with g(a, b) <= g(q_i, k_i) - m_i

    with s(a, b) = a . b / temperature on unit vectors, g the guide's cosine similarities, and m_i
    the margin or |g(q_i, k_i)| margin.

    Use it for scraped pairs of texts, where a trained guide tells false negatives.

    Args:
      query_BD, key_BD: row i of one belongs to row i of the other; any float dtype, normalized.
      guide_query_BF, guide_key_BF: the guide's embeddings of the same rows; no gradient.
      temperature: scalar above 0; may be traced.
      negatives_BKD, guide_negatives_BKF: K further negatives of each query, by model and by guide.
      negatives_mask_BK: bool, False for padding, which counts as if it were not there.
      negatives_ids_BK: integers; a negative with a query's id is left out for that query.
      ids_B: integers; rows j != i with the id of i depict the same thing and are left out.
      margin: how much less similar than the positive a negative must be.
      relative: whether the margin is a fraction of the positive's similarity.
      contrast_queries, contrast_keys: whether queries, and keys, are negatives of one another.
      axis_name: mapped axis over which the batch is sharded; keys come from all devices.
      block_size: None for the dense form, or the side of the tiles of the linear-memory form. Tiles
        have reverse mode only: for `jvp` or a Hessian use None, or `jacrev` of `grad`.

    Returns:
      float32 [B], one loss per query; 0 where there is nothing to contrast with.

    Raises:
      ValueError: wrong rank or dtype, batches that differ, negatives without those of the guide,
        ids of negatives without `ids_B`, temperature <= 0, block_size < 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> x, guide = jnp.ones((3, 4)), jnp.eye(3)[jnp.array([0, 0, 1])]  # rows 0, 1 are the same
      >>> print(losses.guided_info_nce(x, x, guide, guide, margin=0.1).round(4))  # log 4, log 7
      [1.3863 1.3863 1.9459]

    Reference: Solatorio, GISTEmbed: Guided In-sample Selection of Training Negatives, 2024,
    section 3 (arXiv 2402.16829).
    """
    query_BD, key_BD = arrays(query_BD=query_BD, key_BD=key_BD)
    ids = check_pairs(query_BD, key_BD, temperature, ids_B, axis_name, block_size)
    given = check_given(query_BD, negatives_BKD, negatives_mask_BK, negatives_ids_BK, ids_B)
    margin = check_number("margin", margin)
    flags = {"relative": relative, "contrast_queries": contrast_queries}
    for name, flag in (flags | {"contrast_keys": contrast_keys}).items():
        check_flag(name, flag)
    guide_query, guide_key, guide_negatives = _guides(
        len(query_BD), guide_query_BF, guide_key_BF, guide_negatives_BKF, given
    )
    matching = jnp.sum(guide_query * guide_key, axis=-1)
    limit = matching - (jnp.abs(matching) * margin if relative else margin)
    query = scaled(query_BD, temperature, sides=1), _Row(ids, guide_query, limit)
    key = scaled(key_BD, temperature, sides=1), _Row(ids, guide_key, limit)
    queries = unit(query_BD), _Column(keys_of_batch(ids), guide_query)
    keys = unit(key_BD), _Column(keys_of_batch(ids), guide_key)
    every = keys
    if given is not None and guide_negatives is not None:
        all_guides = rows_with(guide_key, guide_negatives)
        every = rows_with(keys[0], unit(given.rows_BKD)), _Column(keys_with(ids, given), all_guides)
    pairs = [(query, every)]
    pairs += [(query, queries)] if contrast_queries else []
    pairs += [(key, keys)] if contrast_keys else []
    form = {"axis_name": axis_name, "block_size": block_size}
    negatives = [
        over_keys(_not_too_similar, q, k, rows, cols, **form).exponents[0]
        for (q, rows), (k, cols) in pairs
    ]
    positive = jnp.sum(query[0] * keys[0], axis=-1)
    return against_negatives(log_sum_exp(jnp.stack(negatives, axis=-1)), positive)


class _Row(NamedTuple):
    """A row's ids, its guide embedding, and the largest guide similarity of a negative."""

    ids: Ids
    guide: jax.Array
    limit: jax.Array


class _Column(NamedTuple):
    keys: Keys
    guide: jax.Array


def _guides(
    batch: int,
    guide_query_BF: Any,
    guide_key_BF: Any,
    guide_negatives_BKF: Any,
    given: Given | None,
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """The unit embeddings of the guide, without a gradient."""
    query, key = arrays(guide_query_BF=guide_query_BF, guide_key_BF=guide_key_BF)
    check_embedding("guide_query_BF", query, "BF")
    check_embedding("guide_key_BF", key, "BF")
    check_shapes("guide_query_BF", query, "query", (batch, *query.shape[1:]))
    check_shapes("guide_key_BF", key, "guide_query_BF", query.shape)
    if (guide_negatives_BKF is None) != (given is None):
        raise ValueError("negatives_BKD and guide_negatives_BKF belong together: pass both.")
    negatives = None
    if given is not None:
        negatives = as_array("guide_negatives_BKF", guide_negatives_BKF)
        check_embedding("guide_negatives_BKF", negatives, "BKF")
        shape = (*given.real_BK.shape, query.shape[1])
        check_shapes("guide_negatives_BKF", negatives, "negatives_BKD", shape)
        negatives = unit(negatives)
    return lax.stop_gradient((unit(query), unit(key), negatives))


def _all(s: jax.Array, params: tuple[()], rows: tuple[()], cols: tuple[()]) -> Terms:
    return Terms((s,))


def _not_too_similar(s: jax.Array, params: tuple[()], rows: _Row, cols: _Column) -> Terms:
    too_similar = similarities(rows.guide, cols.guide) > rows.limit[:, None]
    kept = are_negatives(rows.ids, cols.keys) & ~too_similar
    return Terms((jnp.where(kept, s, -jnp.inf),))
