"""Losses to learned weights of the classes: ArcFace, CosFace, ProxyNCA, SoftTriple, ProxyAnchor.

The weights are parameters of the caller, trained with the encoder and equal on every device. A row
whose label is no class, such as -1 of an unlabeled one, has no loss.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from contrastive_jax._numerics import log_sum_exp, safe_sqrt, softplus, unit
from contrastive_jax.losses._engine.checks import (
    arrays,
    check_below,
    check_embedding,
    check_labels,
    check_option,
    check_positive,
    check_shapes,
)


def arc_face(
    x_BD: jax.Array,
    labels_B: jax.Array,
    weights_KD: jax.Array,
    margin: float = 0.5,
    scale: jax.Array | float = 64.0,
) -> jax.Array:
    """Compute ArcFace: softmax over classes with a margin added to the angle of the true one.

        loss_i = -log( e^{scale cos(t_iy + margin)} / (e^{scale cos(t_iy + margin)}
                 + sum_{j != y} e^{scale cos t_ij}) ),   cos t_ij = x_i . w_j on unit vectors

    Where t + margin is beyond pi, and its cosine would rise again, the authors' code takes
    cos t - margin sin(margin) instead; so does this.

    Use it with many known classes, such as identities of faces, to search among unseen ones
    later.

    Args:
      x_BD: embeddings, any float dtype; normalized inside.
      labels_B: integers from 0, the classes.
      weights_KD: a learned row for each class; normalized inside.
      margin: in radians, above 0 and below pi.
      scale: above 0; may be traced.

    Returns:
      float32 [B], one loss per row.

    Raises:
      ValueError: wrong rank or dtype, labels beyond the classes, margin or scale out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> x, labels = jnp.eye(2), jnp.array([0, 1])
      >>> loss = losses.arc_face(x, labels, x, margin=0.5, scale=2.0)
      >>> print(f"{loss[0]:.3f}")  # log(1 + exp(-2 cos 0.5))
      0.159

    Reference: Deng et al., ArcFace, CVPR 2019, equation 3 (arXiv 1801.07698).
    """
    margin = check_below("margin", check_positive("margin", margin), math.pi)
    scale = check_positive("scale", scale)
    cosine_BK, true_BK = _cosines(x_BD, labels_B, weights_KD)
    cosine = jnp.sum(jnp.where(true_BK, cosine_BK, 0.0), axis=1)
    shifted = cosine * jnp.cos(margin) - safe_sqrt(1.0 - cosine * cosine) * jnp.sin(margin)
    beyond = cosine <= -jnp.cos(margin)
    shifted = jnp.where(beyond, cosine - margin * jnp.sin(margin), shifted)
    return _cross_entropy(scale * cosine_BK, scale * shifted, true_BK)


def cos_face(
    x_BD: jax.Array,
    labels_B: jax.Array,
    weights_KD: jax.Array,
    margin: float = 0.35,
    scale: jax.Array | float = 64.0,
) -> jax.Array:
    """Compute CosFace: softmax over classes with a margin taken from the cosine of the true one.

        loss_i = -log( e^{scale (c_iy - margin)} / (e^{scale (c_iy - margin)}
                 + sum_{j != y} e^{scale c_ij}) ),   c_ij = x_i . w_j on unit vectors

    Use it as `arc_face`; a margin in cosine is simpler to choose.

    Args:
      x_BD: embeddings, any float dtype; normalized inside.
      labels_B: integers from 0, the classes.
      weights_KD: a learned row for each class; normalized inside.
      margin: at least 0; with 0 it is the normalized softmax.
      scale: above 0; may be traced.

    Returns:
      float32 [B], one loss per row.

    Raises:
      ValueError: wrong rank or dtype, labels beyond the classes, margin < 0, scale <= 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> x, labels = jnp.eye(2), jnp.array([0, 1])
      >>> loss = losses.cos_face(x, labels, x, margin=0.5, scale=2.0)
      >>> print(f"{loss[0]:.3f}")  # log(1 + e^-1)
      0.313

    Reference: Wang et al., CosFace, CVPR 2018, equation 4 (arXiv 1801.09414).
    """
    margin = check_positive("margin", margin, or_zero=True)
    scale = check_positive("scale", scale)
    cosine_BK, true_BK = _cosines(x_BD, labels_B, weights_KD)
    cosine = jnp.sum(jnp.where(true_BK, cosine_BK, 0.0), axis=1)
    return _cross_entropy(scale * cosine_BK, scale * (cosine - margin), true_BK)


def proxy_nca(
    x_BD: jax.Array,
    labels_B: jax.Array,
    weights_KD: jax.Array,
    temperature: jax.Array | float = 1.0,
    *,
    denominator: str = "others",
) -> jax.Array:
    """Compute ProxyNCA: the proxy of the row's class should be nearer than those of the others.

        loss_i = -log( exp(-d(x_i, w_y) / temperature) / sum_j exp(-d(x_i, w_j) / temperature) )

    with d the squared distance of unit vectors. j runs over the other classes, and the loss may be
    negative, or over all, as in ProxyNCA++.

    Use it in metric learning with known classes, as the simplest loss with proxies.

    Args:
      x_BD: embeddings, any float dtype; normalized inside.
      labels_B: integers from 0, the classes.
      weights_KD: a learned proxy for each class; normalized inside.
      temperature: scalar above 0; may be traced. ProxyNCA++ takes 1/9.
      denominator: "others" (the paper) or "all" (ProxyNCA++).

    Returns:
      float32 [B], one loss per row.

    Raises:
      ValueError: wrong rank or dtype, labels beyond the classes, temperature <= 0, unknown
        denominator.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> x, labels = jnp.eye(2), jnp.array([0, 1])
      >>> print(losses.proxy_nca(x, labels, x))
      [-2. -2.]

    References: Movshovitz-Attias et al., No Fuss Distance Metric Learning using Proxies, ICCV 2017,
    equation 4 (arXiv 1703.07464); Teh et al., ProxyNCA++, ECCV 2020, section 3
    (arXiv 2004.01113).
    """
    temperature = check_positive("temperature", temperature)
    check_option("denominator", denominator, ("others", "all"))
    cosine_BK, true_BK = _cosines(x_BD, labels_B, weights_KD)
    logit_BK = 2.0 * cosine_BK / temperature  # d = 2 - 2 cos, and the constant cancels
    true = jnp.sum(jnp.where(true_BK, logit_BK, 0.0), axis=1)
    if denominator == "all":
        return _cross_entropy(logit_BK, true, true_BK)
    others = log_sum_exp(jnp.where(true_BK, -jnp.inf, logit_BK))
    kept = true_BK.any(axis=1) & (others > -jnp.inf)
    return jnp.where(kept, jnp.where(kept, others, 0.0) - true, 0.0)


def soft_triple(
    x_BD: jax.Array,
    labels_B: jax.Array,
    weights_KPD: jax.Array,
    margin: float = 0.01,
    scale: jax.Array | float = 20.0,
    *,
    gamma: float = 0.1,
    tau: float = 0.2,
) -> jax.Array:
    """Compute SoftTriple: softmax over classes that have several centers each.

        loss_i = -log( e^{scale (S_iy - margin)} / (e^{scale (S_iy - margin)}
                 + sum_{j != y} e^{scale S_ij}) ) + tau R
        S_ij = sum_p softmax_p(x_i . w_jp / gamma) x_i . w_jp   on unit vectors
        R = sum over classes and pairs p < q of |w_jp - w_jq| / (K P (P - 1))

    R draws superfluous centers of a class together.

    Use it where a class has several modes, such as products seen from several sides.

    Args:
      x_BD: embeddings, any float dtype; normalized inside.
      labels_B: integers from 0, the classes.
      weights_KPD: P learned centers for each class; normalized inside.
      margin: delta, at least 0.
      scale: lambda, above 0; may be traced.
      gamma: above 0; the softness of the choice of a center.
      tau: at least 0; the weight of R, which every row with a class has once.

    Returns:
      float32 [B], one loss per row.

    Raises:
      ValueError: wrong rank or dtype, labels beyond the classes, options out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> x, labels = jnp.eye(2), jnp.array([0, 1])
      >>> loss = losses.soft_triple(x, labels, x[:, None], margin=0.0, scale=1.0)
      >>> print(f"{loss[0]:.3f}")  # log(1 + e^-1)
      0.313

    Reference: Qian et al., SoftTriple Loss, ICCV 2019, equations 7 to 10 (arXiv 1909.05235).
    """
    margin = check_positive("margin", margin, or_zero=True)
    scale, gamma = check_positive("scale", scale), check_positive("gamma", gamma)
    tau = check_positive("tau", tau, or_zero=True)
    x_BD, weights_KPD, labels_B = _checked(x_BD, labels_B, weights_KPD, "KPD")
    centers_KPD = unit(weights_KPD)
    cosine_BKP = jnp.einsum("bd,kpd->bkp", unit(x_BD), centers_KPD)
    s_BK = jnp.sum(jax.nn.softmax(cosine_BKP / gamma, axis=-1) * cosine_BKP, axis=-1)
    true_BK = _one_hot(labels_B, len(centers_KPD))
    true = jnp.sum(jnp.where(true_BK, s_BK, 0.0), axis=1)
    loss = _cross_entropy(scale * s_BK, scale * (true - margin), true_BK)
    return loss + jnp.where(true_BK.any(axis=1), tau * _spread_of_centers(centers_KPD), 0.0)


def proxy_anchor(
    x_BD: jax.Array,
    labels_B: jax.Array,
    weights_KD: jax.Array,
    margin: float = 0.1,
    scale: jax.Array | float = 32.0,
) -> jax.Array:
    """Compute ProxyAnchor: each class's proxy is the anchor of all rows of the batch.

        loss = mean over p with positives of log(1 + sum_{x in p} e^{-scale (s(x, p) - margin)})
               + mean over all p of log(1 + sum_{x not in p} e^{scale (s(x, p) + margin)})

    with proxies p and cosine similarities s. The loss is of the batch as a whole: one number.

    Use it in metric learning with known classes: proxies in place of mining, quick to converge.

    Args:
      x_BD: embeddings, any float dtype; normalized inside.
      labels_B: integers from 0, the classes; a row of no class is left out.
      weights_KD: a learned proxy for each class; normalized inside.
      margin: delta, at least 0.
      scale: alpha, above 0; may be traced.

    Returns:
      float32 [].

    Raises:
      ValueError: wrong rank or dtype, labels beyond the classes, margin < 0, scale <= 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> x, labels = jnp.eye(2), jnp.array([0, 1])
      >>> loss = losses.proxy_anchor(x, labels, x, margin=0.0, scale=1.0)
      >>> print(f"{loss:.3f}")  # softplus(-1) + softplus(0)
      1.006

    Reference: Kim et al., Proxy Anchor Loss for Deep Metric Learning, CVPR 2020, equation 4
    (arXiv 2003.13911).
    """
    margin, scale = check_positive("margin", margin, or_zero=True), check_positive("scale", scale)
    x_BD, weights_KD, labels_B = _checked(x_BD, labels_B, weights_KD, "KD")
    s_KB = unit(weights_KD) @ unit(x_BD).T
    true_KB = _one_hot(labels_B, len(weights_KD)).T
    other_KB = ~true_KB & true_KB.any(axis=0, keepdims=True)
    pull_K = softplus(log_sum_exp(jnp.where(true_KB, -scale * (s_KB - margin), -jnp.inf)))
    push_K = softplus(log_sum_exp(jnp.where(other_KB, scale * (s_KB + margin), -jnp.inf)))
    n_classes = jnp.maximum(jnp.sum(true_KB.any(axis=1), dtype=jnp.int32), 1)
    return jnp.sum(pull_K) / n_classes + jnp.mean(push_K)


def _checked(x_BD: Any, labels_B: Any, weights: Any, dims: str) -> Any:
    x_BD, labels_B, weights = arrays(x_BD=x_BD, labels_B=labels_B, **{f"weights_{dims}": weights})
    check_embedding("x_BD", x_BD, "BD")
    check_embedding(f"weights_{dims}", weights, dims)
    check_shapes(f"weights_{dims}", weights, "x_BD", (*weights.shape[:-1], x_BD.shape[1]))
    if 0 in weights.shape:
        raise ValueError(f"weights_{dims} has shape {weights.shape}: pass at least one row.")
    check_labels("labels_B", labels_B, "x_BD", len(x_BD))
    if not isinstance(labels_B, Tracer) and labels_B.max() >= len(weights):
        raise ValueError(
            f"labels_B holds {labels_B.max()}, but weights_{dims} has {len(weights)} classes: "
            "pass a row of weights for each class."
        )
    return x_BD, weights, labels_B


def _cosines(x_BD: Any, labels_B: Any, weights_KD: Any) -> tuple[jax.Array, jax.Array]:
    """Cosines [B, K] of rows to classes, and which is the true class."""
    x_BD, weights_KD, labels_B = _checked(x_BD, labels_B, weights_KD, "KD")
    return unit(x_BD) @ unit(weights_KD).T, _one_hot(labels_B, len(weights_KD))


def _one_hot(labels_B: jax.Array, n_classes: int) -> jax.Array:
    return labels_B[:, None] == jnp.arange(n_classes, dtype=jnp.int32)[None, :]


def _cross_entropy(logit_BK: jax.Array, true_B: jax.Array, true_BK: jax.Array) -> jax.Array:
    """-log of the softmax probability of the true class, whose logit is given; 0 without one."""
    others = log_sum_exp(jnp.where(true_BK, -jnp.inf, logit_BK))
    return jnp.where(true_BK.any(axis=1), softplus(others - true_B), 0.0)


def _spread_of_centers(centers_KPD: jax.Array) -> jax.Array:
    K, P, _ = centers_KPD.shape
    if P == 1:
        return jnp.zeros((), jnp.float32)
    square_KPP = 2.0 - 2.0 * jnp.einsum("kpd,kqd->kpq", centers_KPD, centers_KPD)
    pairs = jnp.triu(jnp.ones((P, P), bool), 1)
    return jnp.sum(jnp.where(pairs, safe_sqrt(square_KPP), 0.0)) / (K * P * (P - 1))
