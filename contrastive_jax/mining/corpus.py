"""Mine hard negatives from a corpus by exact blocked search, in O(queries x block) memory."""

import functools
import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from contrastive_jax import parallel
from contrastive_jax._numerics import EXACT, as_array, dot
from contrastive_jax.parallel import Best


class Negatives(NamedTuple):
    """Hard negatives for each query, the best first. Where `valid` is false there was none."""

    index: jax.Array  # int32 [Q, K], rows of the corpus
    score: jax.Array  # float32 [Q, K], inner products with the query
    valid: jax.Array  # bool [Q, K]
    positive_score: jax.Array  # float32 [Q], that of the best positive; nan without positives


def mine_corpus(
    query_QD: jax.Array,
    corpus_MD: jax.Array,
    positives_QP: jax.Array,
    n_negatives: int,
    *,
    ranks: tuple[int, int] | None = None,
    margin: float | None = None,
    relative_margin: float | None = None,
    max_score: float | None = None,
    min_score: float | None = None,
    excluded_QE: jax.Array | None = None,
    key: jax.Array | None = None,
    block_size: int = 4096,
    mesh: parallel.Mesh | None = None,
) -> Negatives:
    """Mine hard negatives from a corpus by exact blocked search.

    All rows but the positives and the excluded are ranked by score s(q, c) = q . c. Of the ranks
    [first, last) those are kept that satisfy the margins to the worst of the query's positives p:

        s(q, c) <= min_p s(q, p) - margin,   s(q, c) <= min_p s(q, p) - |min_p s(q, p)| relative

    and of these the best `n_negatives` are taken, or a random choice of them when a key is given.

    Args:
      query_QD, corpus_MD: float embeddings, normalized by the caller when cosines are wanted.
      positives_QP: int32, each query's true rows in the corpus, padded with -1. A traced one beyond
        the corpus has the score NaN, and no negative satisfies a margin to it.
      n_negatives: K.
      ranks: (first, last) from 0; (0, 4 K) when None.
      margin, relative_margin: None, or how far below the positives a negative must score.
      max_score, min_score: None, or the scores between which a negative must be, both included.
      excluded_QE: int32, more rows that are no negatives of a query, padded with -1.
      key: typed PRNG key for a random choice; the same key gives the same choice.
      block_size: rows of the corpus that are scored at a time.
      mesh: of `parallel.make_mesh`, over whose devices the corpus is split: each searches its rows,
        of which all have as many. Rows of NaN, which pad it, are no negatives.

    Returns:
      Negatives [Q, K].

    Raises:
      ValueError: shapes or dtypes that do not fit, an empty corpus, rows beyond it, ranks that hold
        fewer than K, block_size < 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import mining
      >>> corpus = jnp.array([[1.0, 0.0], [0.9, 0.1], [0.5, 0.5], [0.0, 1.0]])
      >>> found = mining.mine_corpus(corpus[:1], corpus, jnp.array([[0]]), 2, margin=0.2)
      >>> print(found.index)
      [[2 3]]

    References: Karpukhin et al., Dense Passage Retrieval, EMNLP 2020, section 3.2
    (arXiv 2004.04906); Moreira et al., NV-Retriever, 2024, for the margins to the positive
    (arXiv 2407.15831).
    """
    query_QD, corpus_MD = as_array("query_QD", query_QD), as_array("corpus_MD", corpus_MD)
    for name, size in {"n_negatives": n_negatives, "block_size": block_size}.items():
        _check_size(name, size)
    first, last = (0, 4 * n_negatives) if ranks is None else ranks
    _check_corpus(query_QD, corpus_MD, n_negatives, (first, last), block_size)
    positives_QP = banned = _rows("positives_QP", positives_QP, query_QD, corpus_MD)
    if excluded_QE is not None:
        excluded_QE = _rows("excluded_QE", excluded_QE, query_QD, corpus_MD)
        banned = jnp.concatenate([positives_QP, excluded_QE], axis=1)
    scores = _scores_at(query_QD, corpus_MD, positives_QP)
    worst = jnp.min(jnp.where(positives_QP >= 0, scores, jnp.inf), axis=1)
    best = jnp.max(jnp.where(positives_QP >= 0, scores, -jnp.inf), axis=1)
    search = functools.partial(_top, k=last, block_size=block_size)
    if mesh is None:
        score, index = search(corpus_MD, 0, query_QD, banned)
    else:
        score, index = parallel.shard_search(search, mesh)(corpus_MD, query_QD, banned)
    limit = worst if margin is None else worst - margin
    if relative_margin is not None:
        limit = jnp.minimum(limit, worst - jnp.abs(worst) * relative_margin)
    limit = jnp.inf if margin is None and relative_margin is None else limit[:, None]
    if max_score is not None:
        limit = jnp.minimum(limit, max_score)
    least = -jnp.inf if min_score is None else min_score
    rank = jnp.arange(last)[None, :]
    valid = (score > -jnp.inf) & (rank >= first) & (score <= limit) & (score >= least)
    chosen = _choose(key, valid, n_negatives)
    score, index, valid = (jnp.take_along_axis(x, chosen, axis=1) for x in (score, index, valid))
    nothing = ~jnp.isfinite(best)
    return Negatives(jnp.where(valid, index, 0), score, valid, jnp.where(nothing, jnp.nan, best))


def report(negatives: Negatives, *, near_duplicate: float = 0.95) -> dict[str, float]:
    """Summarize mined negatives, to be read before training on them.

        found              fraction of the places that were filled
        queries_without    fraction of the queries without a negative
        mean_margin        mean of (positive's score - negative's score)
        above_positive     fraction of the negatives that score above the best positive: the likely
                           false negatives
        near_duplicates    fraction that score above `near_duplicate` of the best positive's score

    Args:
      negatives: from `mine_corpus`.
      near_duplicate: from 0 to 1.

    Returns:
      A dict of floats; nan where there is nothing to average.

    Raises:
      ValueError: near_duplicate outside 0 to 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import mining
      >>> found = mining.mine_corpus(jnp.eye(3), jnp.eye(3), jnp.arange(3)[:, None], 2)
      >>> mining.report(found)["mean_margin"]
      1.0

    Reference: Moreira et al., NV-Retriever, 2024, section 3 (arXiv 2407.15831).
    """
    if not 0 <= near_duplicate <= 1:
        raise ValueError(f"near_duplicate is {near_duplicate}, expected a fraction from 0 to 1.")
    valid, score = np.asarray(negatives.valid), np.asarray(negatives.score)
    positive = np.broadcast_to(np.asarray(negatives.positive_score)[:, None], score.shape)
    known = valid & np.isfinite(positive)
    score, positive = score[known], positive[known]

    def mean(x: Any) -> float:
        return float(np.mean(x)) if np.size(x) else float("nan")

    return {
        "found": mean(valid),
        "queries_without": mean(~valid.any(axis=1)),
        "mean_margin": mean(positive - score),
        "above_positive": mean(score > positive),
        "near_duplicates": mean(score > near_duplicate * positive),
    }


def _check_corpus(
    query_QD: jax.Array,
    corpus_MD: jax.Array,
    n_negatives: int,
    ranks: tuple[int, int],
    block_size: int,
) -> None:
    if query_QD.ndim != 2 or corpus_MD.ndim != 2 or query_QD.shape[1] != corpus_MD.shape[1]:
        raise ValueError(
            f"Queries {query_QD.shape} and corpus {corpus_MD.shape}: expected [Q,D] and [M,D]."
        )
    if len(corpus_MD) == 0:
        raise ValueError("The corpus is empty: pass at least one row.")
    if not 0 <= ranks[0] <= ranks[1] - n_negatives or n_negatives < 1 or block_size < 1:
        raise ValueError(
            f"{n_negatives} negatives of ranks {ranks} in blocks of {block_size}: "
            "widen the ranks; all must be at least 1."
        )


def _check_size(name: str, size: int) -> None:
    try:
        operator.index(size)
    except TypeError:
        raise ValueError(
            f"{name} is {size}, expected a known integer: "
            f"name it in jax.jit(..., static_argnames={name!r})."
        ) from None


def _rows(name: str, rows_QP: jax.Array, query_QD: jax.Array, corpus_MD: jax.Array) -> jax.Array:
    """Rows of the corpus for each query, as int32."""
    queries, rows_QP = len(query_QD), as_array(name, rows_QP)
    integers = jnp.issubdtype(rows_QP.dtype, jnp.integer)
    if rows_QP.ndim != 2 or len(rows_QP) != queries or not integers:
        raise ValueError(
            f"{name} has shape {rows_QP.shape}, expected ({queries}, P) of integers, "
            f"not {rows_QP.dtype}: one row a query, padded with -1."
        )
    if not isinstance(rows_QP, Tracer) and rows_QP.size and rows_QP.max() >= len(corpus_MD):
        raise ValueError(
            f"{name} holds row {rows_QP.max()} of a corpus of {len(corpus_MD)}: "
            "count rows from 0, and pad with -1."
        )
    return rows_QP.astype(jnp.int32)


def _scores_at(query_QD: jax.Array, corpus_MD: jax.Array, rows_QP: jax.Array) -> jax.Array:
    return jnp.einsum(
        "qd,qpd->qp",
        query_QD,
        corpus_MD.at[jnp.maximum(rows_QP, 0)].get(mode="fill", fill_value=jnp.nan),
        precision=EXACT,
        preferred_element_type=jnp.float32,
    )


def _top(
    part_MD: jax.Array,
    first: jax.Array | int,
    query_QD: jax.Array,
    banned_QE: jax.Array,
    *,
    k: int,
    block_size: int,
) -> Best:
    """Find the k best of the rows from `first` on but the banned; -inf where there are none."""
    M, Q = len(part_MD), len(query_QD)
    size = min(block_size, M)
    starts = jnp.arange(0, M, size, dtype=jnp.int32)

    def step(best: Any, start: jax.Array) -> tuple[Any, None]:
        # The last block is moved back to fit; rows that an earlier one had are left out.
        shifted = jnp.minimum(start, M - size)
        block = lax.dynamic_slice_in_dim(part_MD, shifted, size)
        row = shifted + jnp.arange(size, dtype=jnp.int32)
        score = dot(query_QD, block.T, jnp.float32)
        # Sums of infinities are no numbers, and no candidates.
        score = jnp.where((row < start)[None, :] | jnp.isnan(score), -jnp.inf, score)
        place = jnp.where(banned_QE >= 0, banned_QE - first - shifted, size)
        place = jnp.where((place < 0) | (place > size), size, place)
        score = jnp.pad(score, ((0, 0), (0, 1)), constant_values=-jnp.inf)
        score = score.at[jnp.arange(Q)[:, None], place].set(-jnp.inf)[:, :size]
        every = jnp.concatenate([best[0], score], axis=1)
        rows = jnp.concatenate([best[1], jnp.broadcast_to(first + row, (Q, size))], axis=1)
        score, chosen = lax.top_k(every, k)
        return Best(score, jnp.take_along_axis(rows, chosen, axis=1)), None

    nothing = Best(jnp.full((Q, k), -jnp.inf, jnp.float32), jnp.zeros((Q, k), jnp.int32))
    return lax.scan(step, nothing, starts)[0]


def _choose(key: jax.Array | None, valid: jax.Array, n: int) -> jax.Array:
    """Columns of n places a row, the valid first and in order: the best, or a random choice."""
    columns = jnp.broadcast_to(jnp.arange(valid.shape[1]), valid.shape)
    preference = columns if key is None else jax.random.permutation(key, columns, 1, True)
    chosen = jnp.argsort(jnp.where(valid, preference, valid.shape[1]), axis=1)[:, :n]
    late = jnp.where(jnp.take_along_axis(valid, chosen, axis=1), 0, valid.shape[1])
    return jnp.sort(chosen + late, axis=1) % valid.shape[1]
