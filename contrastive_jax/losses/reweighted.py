"""Softmax losses with reweighted positives or negatives: decoupled, debiased, by hardness."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from contrastive_jax._numerics import as_array, log_sum_exp, softplus, unit
from contrastive_jax.losses._engine.checks import (
    arrays,
    check_below,
    check_option,
    check_positive,
)
from contrastive_jax.losses._engine.explicit import (
    Keys,
    are_negatives,
    check_given,
    keys_of_batch,
    keys_with,
    rows_with,
)
from contrastive_jax.losses._engine.reduce import over_keys
from contrastive_jax.losses._engine.similarity import (
    Ids,
    against_negatives,
    check_pairs,
    check_views,
    other_examples,
    other_views_of,
    positives_of,
    scaled,
)
from contrastive_jax.losses._engine.tile import Terms


def decoupled(
    z_BVD: jax.Array,
    temperature: jax.Array | float = 0.1,
    *,
    sigma: float | None = None,
    axis_name: str | None = None,
    block_size: int | None = None,
) -> jax.Array:
    """Compute the decoupled contrastive loss: NT-Xent without the positives in the denominator.

        loss_i = mean over positives p of -w(i, p) s(i, p)
                 + log sum_{a of other examples} exp s(i, a)
        w = 1 (DCL), or 2 - exp(z_i . z_p / sigma) / mean over all positives of the same (DCLW)

    with s(a, b) = z_a . z_b / temperature on unit vectors. May be negative. The gradient of DCLW
    passes through w, as in the authors' code; lightly stops it there.

    Use it in place of NT-Xent in small batches, where the positive in the denominator halves
    gradients.

    Args:
      z_BVD: embeddings of V >= 2 views of B examples, any float dtype; normalized inside.
      temperature: scalar above 0; may be traced.
      sigma: None for DCL; the width of the weights of DCLW, 0.5 in the paper.
      axis_name: mapped axis over which the batch is sharded.
      block_size: None for the dense form, or the side of the tiles of the linear-memory form. Tiles
        have reverse mode only: for `jvp` or a Hessian use None, or `jacrev` of `grad`.

    Returns:
      float32 [B, V], one loss per anchor; 0 where there are no negatives.

    Raises:
      ValueError: wrong rank or dtype, fewer than two views, temperature or sigma <= 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> print(f"{losses.decoupled(jnp.ones((4, 2, 8))).mean():.4f}")  # log(2B - 2)
      1.7918

    Reference: Yeh et al., Decoupled Contrastive Learning, ECCV 2022, section 3
    (arXiv 2110.06848).
    """
    z_BVD = as_array("z_BVD", z_BVD)
    check_views(z_BVD, temperature, block_size)
    z_BVD = scaled(z_BVD, temperature, sides=2)
    negatives = other_views_of(z_BVD, other_examples, (), axis_name, block_size).exponents[0]
    positives = positives_of(z_BVD)
    if sigma is not None:
        width = check_positive("sigma", sigma) / check_positive("temperature", temperature)
        positives *= _von_mises_fisher(positives / width, axis_name)
    some = negatives > -jnp.inf
    return jnp.where(some, jnp.where(some, negatives, 0.0) - positives.mean(axis=-1), 0.0)


def debiased_nt_xent(
    z_BVD: jax.Array,
    temperature: jax.Array | float = 0.5,
    *,
    tau_plus: float = 0.1,
    beta: jax.Array | float = 0.0,
    axis_name: str | None = None,
    block_size: int | None = None,
) -> jax.Array:
    """Compute NT-Xent corrected for false negatives, with hard negatives weighted up.

        loss_i = mean over positives p of -log( e^{s(i,p)} / (e^{s(i,p)} + N g_i) )
        g_i = max( (h_i - tau_plus mean_p e^{s(i,p)}) / (1 - tau_plus), e^{-1/temperature} )
        h_i = sum_n e^{(1 + beta) s(i,n)} / sum_n e^{beta s(i,n)} over the N negatives n

    with s(a, b) = z_a . z_b / temperature on unit vectors. beta = 0 is the debiased loss, beta > 0
    the hard-negative one; tau_plus = beta = 0 is NT-Xent for two views.

    Use it in place of NT-Xent where many negatives are of the anchor's class, or too easy.

    Args:
      z_BVD: embeddings of V >= 2 views of B examples, any float dtype; normalized inside.
      temperature: scalar above 0; may be traced.
      tau_plus: the chance that a negative is of the anchor's class, in [0, 1); may be traced.
      beta: how much harder negatives count, at least 0; may be traced.
      axis_name: mapped axis over which the batch is sharded.
      block_size: None for the dense form, or the side of the tiles of the linear-memory form. Tiles
        have reverse mode only: for `jvp` or a Hessian use None, or `jacrev` of `grad`.

    Returns:
      float32 [B, V], one loss per anchor; 0 where there are no negatives.

    Raises:
      ValueError: wrong rank or dtype, fewer than two views, temperature <= 0, tau_plus outside
        [0, 1).

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> z = jnp.ones((4, 2, 8))  # log(2B - 1), whatever the correction
      >>> print(f"{losses.debiased_nt_xent(z, beta=1.0).mean():.4f}")
      1.9459

    References: Chuang et al., Debiased Contrastive Learning, NeurIPS 2020, equations 7 and 8
    (arXiv 2007.00224); Robinson et al., Contrastive Learning with Hard Negative Samples, ICLR 2021,
    section 3 (arXiv 2010.04592).
    """
    z_BVD = as_array("z_BVD", z_BVD)
    check_views(z_BVD, temperature, block_size)
    tau_plus = check_below("tau_plus", check_positive("tau_plus", tau_plus, or_zero=True), 1)
    z_BVD = scaled(z_BVD, temperature, sides=2)
    beta = jnp.asarray(check_positive("beta", beta, or_zero=True), jnp.float32)
    harder, weight = other_views_of(z_BVD, _hard, beta, axis_name, block_size).exponents
    positives = positives_of(z_BVD)
    some = weight > -jnp.inf
    hard = jnp.where(some, harder, 0.0) - jnp.where(some, weight, 0.0)
    N = _number_of_negatives(z_BVD, axis_name)
    floor = -1.0 / jnp.asarray(temperature, jnp.float32)
    log_g = jnp.maximum(_log_debiased(hard, positives, tau_plus), floor)
    every = jnp.log(jnp.float32(max(N, 1))) + log_g[..., None] - positives
    return jnp.where(some, softplus(every).mean(axis=-1), 0.0)


def hardness_info_nce(
    query_BD: jax.Array,
    key_BD: jax.Array,
    temperature: jax.Array | float = 0.07,
    *,
    alpha: float = 5.0,
    weighted: str = "in_batch",
    negatives_BKD: jax.Array | None = None,
    negatives_mask_BK: jax.Array | None = None,
    negatives_ids_BK: jax.Array | None = None,
    ids_B: jax.Array | None = None,
    axis_name: str | None = None,
    block_size: int | None = None,
) -> jax.Array:
    """Compute InfoNCE with negatives weighted by hardness; no gradient through the weights.

        loss_i = -log( e^{s(i,i)} / (e^{s(i,i)} + sum_n w(i,n) e^{s(i,n)}) )
        w(i, n) = exp( alpha stop_gradient(query_i . n) ) of the weighted negatives n, 1 of others

    with s(i, n) = query_i . n / temperature on unit vectors; n runs over the other keys and, when
    given, the explicit negatives of all queries.

    Use it where most in-batch negatives are easy, as in search over images and texts.

    Args:
      query_BD, key_BD: row i of one belongs to row i of the other; any float dtype, normalized.
      temperature: scalar above 0; may be traced.
      alpha: strength of the weights, at least 0; 0 is InfoNCE, 9 the choice of LLaVE for
        "in_batch", 5 that of EmbeddingGemma for "explicit".
      weighted: "in_batch" (what came with other queries), "explicit" (the query's own explicit
        negatives) or "all".
      negatives_BKD: K further negatives that came with each query.
      negatives_mask_BK: bool, False for padding, which counts as if it were not there.
      negatives_ids_BK: integers; a negative with a query's id is left out for that query.
      ids_B: integers; keys j != i with the id of i depict the same thing and are left out.
      axis_name: mapped axis over which the batch is sharded; keys come from all devices.
      block_size: None for the dense form, or the side of the tiles of the linear-memory form. Tiles
        have reverse mode only: for `jvp` or a Hessian use None, or `jacrev` of `grad`.

    Returns:
      float32 [B], one loss per query; 0 where there is nothing to contrast with.

    Raises:
      ValueError: wrong rank or dtype, batches that differ, "explicit" without negatives,
        temperature <= 0, alpha < 0, block_size < 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> print(losses.hardness_info_nce(jnp.eye(3), jnp.eye(3), temperature=1.0).round(4))
      [0.5514 0.5514 0.5514]

    References: Lan et al., LLaVE: Large Language and Vision Embedding Models with Hardness-Weighted
    Contrastive Learning, 2025 (arXiv 2503.04812); EmbeddingGemma, 2025 (arXiv 2509.20354).
    """
    query_BD, key_BD = arrays(query_BD=query_BD, key_BD=key_BD)
    ids = check_pairs(query_BD, key_BD, temperature, ids_B, axis_name, block_size)
    given = check_given(query_BD, negatives_BKD, negatives_mask_BK, negatives_ids_BK, ids_B)
    alpha = check_positive("alpha", alpha, or_zero=True)
    check_option("weighted", weighted, ("in_batch", "explicit", "all"))
    if weighted == "explicit" and given is None:
        raise ValueError("weighted is 'explicit', but negatives_BKD is None: pass negatives.")
    query_BD, key_BD = scaled(query_BD, temperature, sides=1), unit(key_BD)
    keys, cols = key_BD, keys_of_batch(ids)
    if given is not None:
        keys, cols = rows_with(key_BD, unit(given.rows_BKD)), keys_with(ids, given)
    strength = lax.stop_gradient(alpha * jnp.asarray(temperature, jnp.float32))
    of_others, of_own = (
        jnp.where(weighted in (which, "all"), strength, 0.0) for which in ("in_batch", "explicit")
    )
    form = {"axis_name": axis_name, "block_size": block_size}
    terms = over_keys(_by_hardness, query_BD, keys, ids, cols, (of_others, of_own), **form)
    return against_negatives(terms.exponents[0], jnp.sum(query_BD * key_BD, axis=-1))


def _hard(s: jax.Array, beta: jax.Array, rows: jax.Array, cols: jax.Array) -> Terms:
    other = rows[:, None] != cols[None, :]
    return Terms(
        (jnp.where(other, (1.0 + beta) * s, -jnp.inf), jnp.where(other, beta * s, -jnp.inf))
    )


def _by_hardness(
    s: jax.Array, strengths: tuple[jax.Array, jax.Array], rows: Ids, cols: Keys
) -> Terms:
    own = rows.index[:, None] == cols.owner[None, :]
    of_others, of_own = strengths
    weighted = s + jnp.where(own, of_own, of_others) * lax.stop_gradient(s)
    return Terms((jnp.where(are_negatives(rows, cols), weighted, -jnp.inf),))


def _von_mises_fisher(similarity_BVW: jax.Array, axis_name: str | None) -> jax.Array:
    """2 - e^x / mean e^x, over the positives of all devices."""
    peak = lax.stop_gradient(similarity_BVW.max())
    peak = peak if axis_name is None else lax.pmax(peak, axis_name)
    weight = jnp.exp(similarity_BVW - peak)
    mean = weight.mean() if axis_name is None else lax.pmean(weight.mean(), axis_name)
    return 2.0 - weight / mean


def _log_debiased(
    hard_BV: jax.Array, positives_BVW: jax.Array, tau_plus: jax.Array | float
) -> jax.Array:
    """log of (e^hard - tau_plus mean e^positive) / (1 - tau_plus); -inf where that is <= 0."""
    tau_plus = jnp.asarray(tau_plus, jnp.float32)
    some = tau_plus > 0
    log_tau_plus = jnp.where(some, jnp.log(jnp.where(some, tau_plus, 1.0)), -jnp.inf)
    log_positives = log_sum_exp(positives_BVW) - jnp.log(jnp.float32(positives_BVW.shape[-1]))
    gap = log_positives + log_tau_plus - hard_BV
    left = gap < 0
    rest = jnp.log(-jnp.expm1(jnp.where(left, gap, -1.0))) - jnp.log1p(-tau_plus)
    return jnp.where(left, hard_BV + rest, -jnp.inf)


def _number_of_negatives(z_BVD: jax.Array, axis_name: Any) -> int:
    devices = 1 if axis_name is None else lax.axis_size(axis_name)
    return (len(z_BVD) * devices - 1) * z_BVD.shape[1]
