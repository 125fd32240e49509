"""Diagnose a representation: contrastive accuracy, alignment, uniformity, rank, collapse.

All are pure functions of embeddings, in float32, cheap enough for a training step unless they say
otherwise. Every one but `rankme` depends on directions only: rows are scaled to unit length first,
and a row of zeros stays zero.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import entr, logsumexp

from contrastive_jax._numerics import as_array, dot, unit
from contrastive_jax.types import Metrics

_NO_SPREAD = 1e-12  # total variance of unit vectors below which only rounding is left
_ROWS_AT_ONCE = 256


def contrastive_accuracy(z_BVD: jax.Array) -> jax.Array:
    """Compute the fraction of views whose nearest other view shows the same example.

    mean_i [ max_{j positive of i} s_ij > max_{j negative of i} s_ij ], s the cosine similarity.
    With more than two views any of the positives will do. A tie with a negative is a miss, so a
    collapsed encoder scores 0.

    Args:
      z_BVD: embeddings of V >= 2 views of B examples, any float dtype.

    Raises:
      ValueError: if `z_BVD` is not [B, V, D] with V >= 2.

    >>> z_BVD = jnp.array([[[1.0, 0.0], [0.9, 0.1]], [[0.0, 1.0], [0.1, 0.9]]])
    >>> float(contrastive_accuracy(z_BVD))
    1.0

    Chen et al. 2020 (SimCLR, arXiv 2002.05709), the "contrastive acc." of its Table 5 and code.
    """
    z_BVD = _views(z_BVD)
    rows_ND = _unit_rows(z_BVD)
    views, n = z_BVD.shape[1], len(rows_ND)
    return _accuracy(dot(rows_ND, rows_ND.T), views, _candidates(n, views, across=False))


def contrastive_entropy(z_BVD: jax.Array, temperature: jax.Array | float) -> jax.Array:
    """Compute the mean entropy, in nats, of the softmax over the candidates for a positive.

    mean_i -sum_{j != i} p_ij log p_ij, p_i the softmax over j != i of s_ij / temperature, s the
    cosine similarity: log(BV - 1) when all similarities are equal, 0 when every choice is certain.

    Args:
      z_BVD: embeddings of V >= 2 views of B examples, any float dtype.
      temperature: positive, a Python number or a scalar array.

    Raises:
      ValueError: if `z_BVD` is not [B, V, D] with V >= 2, or `temperature` is a number <= 0.

    >>> same = jnp.ones((4, 2, 3))
    >>> round(float(contrastive_entropy(same, 0.5)), 4), round(float(jnp.log(7)), 4)
    (1.9459, 1.9459)

    Chen et al. 2020 (SimCLR, arXiv 2002.05709), the "entropy" of its Table 5.
    """
    z_BVD = _views(z_BVD)
    temperature = _temperature(temperature)
    rows_ND = _unit_rows(z_BVD)
    candidates_NN = _candidates(len(rows_ND), z_BVD.shape[1], across=False)
    return _entropy(dot(rows_ND, rows_ND.T) / temperature, candidates_NN)


def alignment(z_BVD: jax.Array) -> jax.Array:
    """Compute the mean squared distance of two views of an example; 0 is perfect invariance.

    E ||f(x) - f(y)||^2 over the V(V - 1) ordered pairs of each example, on the unit sphere: from 0
    to 4, and 2 for unrelated views.

    Args:
      z_BVD: embeddings of V >= 2 views of B examples, any float dtype.

    Raises:
      ValueError: if `z_BVD` is not [B, V, D] with V >= 2.

    >>> float(alignment(jnp.array([[[1.0, 0.0], [0.0, 3.0]]])))
    2.0

    Wang & Isola 2020 (arXiv 2005.10242), the alignment loss of section 4.1 with alpha = 2.
    """
    z_BVD = _views(z_BVD)
    views = z_BVD.shape[1]
    z_BVD = unit(z_BVD)
    distance_BVV = jnp.sum((z_BVD[:, :, None] - z_BVD[:, None, :]) ** 2, axis=-1)
    return jnp.sum(distance_BVV) / (z_BVD.shape[0] * views * (views - 1))


def uniformity(z_ND: jax.Array, t: float = 2.0) -> jax.Array:
    """Compute how evenly rows are spread over the sphere: 0 when collapsed, lower when more so.

    log E exp(-t ||f(x) - f(y)||^2) over pairs of different rows, on the unit sphere. Rows are
    visited in blocks, so memory grows with N and not with its square.

    Args:
      z_ND: embeddings of N >= 2 different examples, any float dtype.
      t: the sharpness of the Gaussian potential, positive.

    Raises:
      ValueError: if `z_ND` is not [N, D] with N >= 2, or `t` is not positive.

    >>> float(uniformity(jnp.array([[1.0, 0.0], [-1.0, 0.0]])))
    -8.0

    Wang & Isola 2020 (arXiv 2005.10242), the uniformity loss of section 4.1.
    """
    z_ND = _rows(z_ND)
    if t <= 0:
        raise ValueError(f"uniformity needs t > 0, got {t}; the paper uses 2")
    z_ND = unit(z_ND)

    def log_potential(row: tuple[jax.Array, jax.Array]) -> jax.Array:
        i, z_D = row
        distance_N = jnp.sum(z_D**2) + jnp.sum(z_ND**2, axis=1) - 2 * dot(z_ND, z_D)
        others = jnp.arange(len(z_ND)) != i
        return logsumexp(-t * jnp.maximum(distance_N, 0.0), where=others)

    n = len(z_ND)
    potential_N = jax.lax.map(log_potential, (jnp.arange(n), z_ND), batch_size=_ROWS_AT_ONCE)
    return logsumexp(potential_N) - jnp.log(jnp.float32(n) * (n - 1))


def embedding_std(z_ND: jax.Array) -> jax.Array:
    """Compute the mean over dimensions of the standard deviation of unit vectors.

    (1/D) sum_d std_n(z_nd / ||z_n||): 1/sqrt(D) when spread evenly, 0 when collapsed to a point.

    Args:
      z_ND: embeddings, any float dtype.

    Raises:
      ValueError: if `z_ND` is not [N, D] with N >= 2.

    >>> float(embedding_std(jnp.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])))
    0.707106...

    Chen & He 2021 (SimSiam, arXiv 2011.10566), section 4.1.
    """
    z_ND = _rows(z_ND)
    return jnp.mean(jnp.std(unit(z_ND), axis=0))


def effective_rank(z_ND: jax.Array, order: int = 1) -> jax.Array:
    """Estimate in how many directions the unit vectors vary, from 1 to D; 0 if in none.

    With p the eigenvalues of their covariance C divided by their sum: order 1 is the exponential
    of the entropy, exp(-sum_k p_k log p_k); order 2 is the participation ratio
    1 / sum_k p_k^2 = tr(C)^2 / tr(C^2), which needs no eigenvalues and never exceeds order 1.

    Args:
      z_ND: embeddings, any float dtype.
      order: 1 or 2, the order of the Renyi entropy of the spectrum.

    Raises:
      ValueError: if `z_ND` is not [N, D] with N >= 2, or `order` is neither 1 nor 2.

    >>> cross = jnp.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> round(float(effective_rank(cross)), 5), float(effective_rank(cross, order=2))
    (2.0, 2.0)

    Roy & Vetterli 2007 (The effective rank, EUSIPCO), definition 1, of the covariance matrix.
    """
    z_ND = _rows(z_ND)
    if order not in (1, 2):
        raise ValueError(f"order is 1 (entropy) or 2 (participation ratio), got {order}")
    covariance_DD = _covariance(unit(z_ND))
    total = jnp.trace(covariance_DD)
    normalized_DD = covariance_DD / jnp.maximum(total, _NO_SPREAD)
    if order == 1:
        fraction_D = jnp.maximum(jnp.linalg.eigvalsh(normalized_DD), 0.0)
        rank = jnp.exp(jnp.sum(entr(fraction_D)))
    else:
        rank = 1.0 / jnp.maximum(jnp.sum(normalized_DD**2), _NO_SPREAD)
    return jnp.where(total > _NO_SPREAD, rank, 0.0)


def rankme(z_ND: jax.Array) -> jax.Array:
    """Compute RankMe, the smooth rank of the embeddings, neither centered nor normalized.

    exp(-sum_k p_k log p_k), p_k = sigma_k / ||sigma||_1 + 1e-7, sigma the singular values. One
    singular value decomposition: for evaluation, not for every step. The paper uses N = 25,600.

    Args:
      z_ND: embeddings, any float dtype.

    Raises:
      ValueError: if `z_ND` is not [N, D] with N >= 2.

    >>> round(float(rankme(jnp.eye(3))), 3)
    3.0

    Garrido et al. 2023 (RankMe, arXiv 2210.02885), equation 1.
    """
    z_ND = _rows(z_ND)
    sigma = jnp.linalg.svd(z_ND.astype(jnp.float32), compute_uv=False)
    tiny = jnp.finfo(jnp.float32).tiny
    return jnp.exp(jnp.sum(entr(sigma / jnp.maximum(jnp.sum(sigma), tiny) + 1e-7)))


def dimension_spectrum(z_ND: jax.Array) -> jax.Array:
    """Compute the fraction of the variance along each principal axis, largest first, [D].

    lambda_k / sum_j lambda_j, of the eigenvalues of the covariance of unit vectors. Fractions of
    zero are dimensions that have collapsed; all are 0 where nothing varies.

    Args:
      z_ND: embeddings, any float dtype.

    Raises:
      ValueError: if `z_ND` is not [N, D] with N >= 2.

    >>> flat = jnp.array([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    >>> dimension_spectrum(flat).round(4).tolist()
    [1.0, 0.0, 0.0]

    Jing et al. 2022 (Understanding dimensional collapse, arXiv 2110.09348), section 3.
    """
    z_ND = _rows(z_ND)
    covariance_DD = _covariance(unit(z_ND))
    total = jnp.trace(covariance_DD)
    eigenvalue_D = jnp.linalg.eigvalsh(covariance_DD / jnp.maximum(total, _NO_SPREAD))
    return jnp.where(total > _NO_SPREAD, jnp.maximum(eigenvalue_D, 0.0)[::-1], 0.0)


def class_separation(z_ND: jax.Array, label_N: jax.Array | np.ndarray) -> jax.Array:
    """Compute how much of the cosine distance between examples is between classes: 0 to 1.

    1 - d_within / d_total, d the mean of 1 - cos over pairs: d_within over pairs of one class, all
    classes weighing the same, d_total over pairs of any two classes. In unit vectors' class means
    m_c that is 1 - mean_c (1 - ||m_c||^2) / (1 - ||mean_c m_c||^2). 1 where every class is another
    point, 0 where all classes have one mean, or nothing varies.

    Args:
      z_ND: embeddings, any float dtype; no row of zeros.
      label_N: classes, integers >= 0, not traced; classes without an example do not count.

    Raises:
      ValueError: if `z_ND` is not [N, D] with N >= 2, or the labels do not fit it.

    >>> z_ND = jnp.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    >>> float(class_separation(z_ND, np.array([0, 0, 1])))
    1.0

    Kornblith et al. 2021 (Why do better loss functions lead to less transferable features?,
    arXiv 2010.16402), its class separation R^2 with the cosine distance.
    """
    z_ND = _rows(z_ND)
    label_N = np.asarray(label_N)
    integers = np.issubdtype(label_N.dtype, np.integer)
    if label_N.shape != z_ND.shape[:1] or not integers or label_N.min() < 0:
        raise ValueError(
            f"expected an integer class >= 0 for each row of {z_ND.shape}, "
            f"got {label_N.dtype} {label_N.shape}"
        )
    _, place_N, count_C = np.unique(label_N, return_inverse=True, return_counts=True)
    sum_CD = jax.ops.segment_sum(unit(z_ND), place_N, num_segments=len(count_C))
    mean_CD = sum_CD / count_C[:, None].astype(np.float32)
    within = 1 - jnp.mean(jnp.sum(mean_CD**2, axis=1))
    total = 1 - jnp.sum(jnp.mean(mean_CD, axis=0) ** 2)
    return jnp.where(total > _NO_SPREAD, 1 - within / jnp.maximum(total, _NO_SPREAD), 0.0)


def summary(
    z_BVD: jax.Array, temperature: jax.Array | float | None = None, *, across: bool = False
) -> Metrics:
    """Measure one training batch, from one [BV, BV] similarity matrix.

    `contrastive_accuracy`, `contrastive_entropy`, `alignment`, `uniformity` (t = 2, over pairs of
    different examples, as its definition asks for independent samples), `embedding_std` and
    `effective_rank` (order 2). The matrix is held in memory: give it a part of a very large batch.

    Args:
      z_BVD: embeddings of V >= 2 views of B examples, any float dtype.
      temperature: positive, a Python number or a scalar array; None leaves out
        `contrastive_entropy`, of losses that have none.
      across: accuracy and entropy are of the candidates of the other views alone, as of images
        among texts: embeddings of one modality are nearer to each other than to any of the other.

    Raises:
      ValueError: if `z_BVD` is not [B, V, D] with B, V >= 2, or `temperature` is a number <= 0.

    >>> measured = jax.jit(summary)(jax.random.normal(jax.random.key(0), (8, 2, 4)), 0.5)
    >>> sorted(measured)
    ['alignment', 'contrastive_accuracy', 'contrastive_entropy', 'effective_rank',
     'embedding_std', 'uniformity']
    """
    z_BVD = _views(z_BVD)
    if z_BVD.shape[0] < 2:
        raise ValueError(f"summary compares examples: need B >= 2, got shape {z_BVD.shape}")
    rows_ND = _unit_rows(z_BVD)
    similarity_NN, views = dot(rows_ND, rows_ND.T), z_BVD.shape[1]
    candidates_NN = _candidates(len(rows_ND), views, across)
    entropy = {}
    if temperature is not None:
        scaled_NN = similarity_NN / _temperature(temperature)
        entropy = {"contrastive_entropy": _entropy(scaled_NN, candidates_NN)}
    return {
        "contrastive_accuracy": _accuracy(similarity_NN, views, candidates_NN),
        **entropy,
        "alignment": alignment(z_BVD),
        "uniformity": _uniformity_between(similarity_NN, views),
        "embedding_std": embedding_std(rows_ND),
        "effective_rank": effective_rank(rows_ND, order=2),
    }


def of_features(
    z_ND: np.ndarray,
    label_N: np.ndarray | None = None,
    view_BVD: np.ndarray | None = None,
    *,
    spectrum: bool = True,
) -> dict[str, Any]:
    """Measure the features of a set: collapse, spectrum, separation of classes, invariance.

    Args:
      z_ND: features of N >= 2 examples; fewer give {}.
      label_N: their classes; None leaves `class_separation` out.
      view_BVD: features of V >= 2 views of some examples; None leaves `alignment` out.
      spectrum: also `dimension_spectrum`, a list as long as the features.

    Returns:
      Numbers by name.

    >>> sorted(of_features(np.eye(4, dtype=np.float32)))
    ['dimension_spectrum', 'effective_rank', 'embedding_std', 'rankme', 'uniformity']
    """
    if len(z_ND) < 2:
        return {}

    @jax.jit
    def measure(z_ND: jax.Array, view_BVD: jax.Array | None) -> dict[str, jax.Array]:
        measured = {
            "uniformity": uniformity(z_ND),
            "embedding_std": embedding_std(z_ND),
            "effective_rank": effective_rank(z_ND),
            "rankme": rankme(z_ND),
        }
        if spectrum:
            measured["dimension_spectrum"] = dimension_spectrum(z_ND)
        if label_N is not None:
            measured["class_separation"] = class_separation(z_ND, label_N)
        if view_BVD is not None:
            measured["alignment"] = alignment(view_BVD)
        return measured

    return jax.tree.map(lambda x: x.tolist(), jax.device_get(measure(z_ND, view_BVD)))


def _candidates(n: int, views: int, across: bool) -> jax.Array:
    """Which rows each row is compared with: all others, or those of other views alone."""
    if not across:
        return ~jnp.eye(n, dtype=bool)
    view_N = jnp.arange(n) % views
    return view_N[:, None] != view_N[None, :]


def _accuracy(similarity_NN: jax.Array, views: int, candidates_NN: jax.Array) -> jax.Array:
    same_NN = _same_example(len(similarity_NN), views)
    nearest_positive_N, nearest_negative_N = (
        jnp.max(similarity_NN, axis=1, where=which_NN & candidates_NN, initial=-jnp.inf)
        for which_NN in (same_NN, ~same_NN)
    )
    return jnp.mean(nearest_positive_N > nearest_negative_N, dtype=jnp.float32)


def _entropy(logits_NN: jax.Array, candidates_NN: jax.Array) -> jax.Array:
    surprise_NN = logsumexp(logits_NN, axis=1, keepdims=True, where=candidates_NN) - logits_NN
    probability_NN = jnp.exp(jnp.where(candidates_NN, -surprise_NN, -jnp.inf))
    return jnp.mean(jnp.sum(probability_NN * surprise_NN, axis=1))


def _uniformity_between(similarity_NN: jax.Array, views: int, t: float = 2.0) -> jax.Array:
    norm_N = jnp.diagonal(similarity_NN)
    distance_NN = norm_N[:, None] + norm_N[None, :] - 2 * similarity_NN
    different_NN = ~_same_example(len(similarity_NN), views)
    pairs = jnp.float32(len(similarity_NN)) * (len(similarity_NN) - views)
    return logsumexp(-t * jnp.maximum(distance_NN, 0.0), where=different_NN) - jnp.log(pairs)


def _same_example(n: int, views: int) -> jax.Array:
    example_N = jnp.arange(n) // views
    return example_N[:, None] == example_N[None, :]


def _covariance(rows_ND: jax.Array) -> jax.Array:
    centered_ND = rows_ND - jnp.mean(rows_ND, axis=0, keepdims=True)
    return dot(centered_ND.T, centered_ND) / len(rows_ND)


def _unit_rows(z_BVD: jax.Array) -> jax.Array:
    return unit(z_BVD).reshape(-1, z_BVD.shape[-1])


def _views(z_BVD: jax.Array) -> jax.Array:
    z_BVD = as_array("z_BVD", z_BVD)
    if z_BVD.ndim != 3 or z_BVD.shape[1] < 2:
        raise ValueError(f"expected embeddings [B, V, D] with V >= 2 views, got {z_BVD.shape}")
    return z_BVD


def _rows(z_ND: jax.Array) -> jax.Array:
    z_ND = as_array("z_ND", z_ND)
    if z_ND.ndim != 2 or z_ND.shape[0] < 2:
        raise ValueError(f"expected embeddings [N, D] with N >= 2 rows, got {z_ND.shape}")
    return z_ND


def _temperature(temperature: jax.Array | float) -> jax.Array:
    number = isinstance(temperature, int | float) and not isinstance(temperature, bool)
    known = not isinstance(temperature, np.generic | jax.Array)
    if known and not (number and temperature > 0):
        raise ValueError(f"temperature must be positive, got {temperature!r}; SimCLR uses 0.1 to 1")
    return jnp.asarray(temperature, jnp.float32)
