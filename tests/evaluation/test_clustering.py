"""Clusters agree with classes as counting pairs and entropies by hand says they do."""

import itertools
import json
import math

import numpy as np
import pytest
from sklearn.cluster import KMeans

from contrastive_jax.evaluation import clustering


def adjusted_rand(a, b):
    """From the four kinds of pairs of examples."""
    pairs = list(itertools.combinations(range(len(a)), 2))
    same = [(a[i] == a[j], b[i] == b[j]) for i, j in pairs]
    both, in_a, in_b = (
        sum(x and y for x, y in same),
        sum(x for x, _ in same),
        sum(y for _, y in same),
    )
    chance = in_a * in_b / len(pairs)
    return (both - chance) / ((in_a + in_b) / 2 - chance)


def normalized_information(a, b):
    def entropy(*parts):
        _, counts = np.unique(np.stack(parts), axis=1, return_counts=True)
        return -sum(c / len(a) * math.log(c / len(a)) for c in counts)

    return 2 * (entropy(a) + entropy(b) - entropy(a, b)) / (entropy(a) + entropy(b))


@pytest.mark.parametrize("normalize", [True, False])
def test_scores_equal_counts_by_hand(normalize):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, size=60)
    x = (rng.normal(size=(3, 5))[y] + 0.8 * rng.normal(size=(60, 5))).astype(np.float32)
    rows = x / np.linalg.norm(x, axis=1, keepdims=True) if normalize else x
    assigned = KMeans(3, n_init=10, random_state=0).fit_predict(rows)
    found = clustering.cluster(x, y, n_clusters=3, normalize=normalize)
    np.testing.assert_allclose(found.ari, adjusted_rand(y, assigned), rtol=1e-9)
    np.testing.assert_allclose(found.nmi, normalized_information(y, assigned), rtol=1e-9)
    assert 0.05 < found.ari < 1
    rows = clustering.cluster_rows(found, representation="blobs", layer="x")
    assert json.loads(json.dumps(rows)) == rows
    assert [row["protocol"]["measure"] for row in rows] == ["NMI", "ARI"]


def test_more_clusters_than_rows_are_refused():
    with pytest.raises(ValueError, match="n_clusters is 4"):
        clustering.cluster(np.eye(3), np.arange(3), n_clusters=4)
