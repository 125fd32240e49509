"""Cluster features by k-means and compare the clusters with the classes: NMI and ARI."""

import operator
from typing import Any, NamedTuple

import numpy as np

from contrastive_jax.evaluation.neighbors import check_finite
from contrastive_jax.evaluation.results import Row, as_labeled


class Clusters(NamedTuple):
    """Agreement of k-means clusters with the classes, and how they were computed."""

    nmi: float  # normalized mutual information, arithmetic mean; 1 is perfect
    ari: float  # adjusted Rand index; 0 is chance, 1 is perfect
    n_clusters: int
    n_init: int
    seed: int
    size: int
    normalized: bool


def cluster(
    x_NF: np.ndarray,
    y_N: np.ndarray,
    *,
    n_clusters: int,
    normalize: bool = True,
    n_init: int = 10,
    seed: int = 0,
) -> Clusters:
    """Cluster features by k-means, and compare the clusters with the classes by NMI and ARI.

    scikit-learn's KMeans (k-means++, the best of `n_init` starts by inertia) and its
    normalized_mutual_info_score and adjusted_rand_score.

    Args:
      x_NF: features.
      y_N: classes, integers >= 0; the clustering does not use them.
      n_clusters: usually the number of classes.
      normalize: scale each row to unit length first; a row of zeros stays zero.
      n_init: starts.
      seed: of the starts.

    Raises:
      ValueError: for values that are not finite, labels missing, or more clusters than rows,
        numbers of clusters or starts that are no integers.

    >>> x = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
    >>> found = cluster(x, np.arange(12) // 4, n_clusters=3)
    >>> round(found.nmi, 6), round(found.ari, 6)
    (1.0, 1.0)
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    x_NF, y_N = as_labeled("features", (x_NF, y_N))
    check_finite("features", x_NF)
    try:
        n_clusters, n_init = operator.index(n_clusters), operator.index(n_init)
    except TypeError:
        raise ValueError(
            f"n_clusters is {n_clusters!r} and n_init {n_init!r}; give integers"
        ) from None
    if not 1 <= n_clusters <= len(x_NF):
        raise ValueError(f"n_clusters is {n_clusters}; give 1 to the {len(x_NF)} rows")
    if normalize:
        norm_N1 = np.linalg.norm(x_NF, axis=1, keepdims=True)
        x_NF = x_NF / np.where(norm_N1 > 0, norm_N1, 1.0)
    starts: dict[str, Any] = {"n_init": n_init, "random_state": seed}
    found_N = KMeans(n_clusters, **starts).fit_predict(x_NF)
    nmi = float(normalized_mutual_info_score(y_N, found_N))
    ari = float(adjusted_rand_score(y_N, found_N))
    return Clusters(nmi, ari, n_clusters, n_init, seed, len(y_N), normalize)


def cluster_rows(
    found: Clusters, *, representation: str, layer: str, split: str = "test"
) -> list[Row]:
    """Record NMI and ARI as two results, without intervals."""
    shared = {
        "name": "clusters",
        "algorithm": "k-means++, best of n_init by inertia",
        "n_clusters": found.n_clusters,
        "n_init": found.n_init,
        "seed": found.seed,
        "normalized": found.normalized,
    }
    names = {"representation": representation, "layer": layer}
    return [
        {
            **names,
            "protocol": {**shared, "measure": measure},
            "split": split,
            "n": found.size,
            "measure": measure,
            "value": value,
        }
        for measure, value in (("NMI", found.nmi), ("ARI", found.ari))
    ]
