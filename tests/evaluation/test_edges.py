"""Evaluation of lists, of labels of any size, and with numbers that are no integers."""

import numpy as np
import pytest

from contrastive_jax.evaluation import (
    clustering,
    diagnostics,
    knn,
    neighbors,
    probes,
    retrieval,
)

RNG = np.random.default_rng(0)
LABEL = np.arange(12) % 2
X = (RNG.normal(size=(12, 3)) + 4 * LABEL[:, None]).astype(np.float32)
WIDE = np.where(LABEL == 1, 2**40, 7)  # beside 7 + 2**32, which int32 would not tell from 7
WIDE[0] = 7 + 2**32


def same(got, want):
    for name, value in want.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)


def test_labels_of_any_size_in_retrieval():
    small = np.where(WIDE == 2**40, 1, np.where(WIDE == 7, 0, 2))
    same(retrieval.retrieve((X, WIDE)).values, retrieval.retrieve((X, small)).values)
    same(
        retrieval.retrieve((X[:3], WIDE[:3]), (X, WIDE)).values,
        retrieval.retrieve((X[:3], small[:3]), (X, small)).values,
    )


def test_labels_of_any_size_in_knn():
    names = {"representation": "x", "layer": "x", "protocols": (knn.KnnProtocol(3),)}
    scored = knn.knn_scores((X, WIDE), (X, WIDE), **names)[0]
    assert scored.predictions[1:].tolist() == WIDE[1:].tolist()


def test_lists_are_taken():
    x, y = X.tolist(), LABEL.tolist()
    same(retrieval.retrieve((x, y)).values, retrieval.retrieve((X, LABEL)).values)
    np.testing.assert_array_equal(
        neighbors.knn_neighbors(x, x, k=2)[1], neighbors.knn_neighbors(X, X, k=2)[1]
    )
    assert clustering.cluster(x, y, n_clusters=2) == clustering.cluster(X, LABEL, n_clusters=2)
    names = {"representation": "x", "layer": "x"}
    assert knn.knn_rows((x, y), (x, y), **names) == knn.knn_rows((X, LABEL), (X, LABEL), **names)
    probe = probes.ridge_probe(x, y, x, y, n_classes=2, l2_grid=(0.1,), validation_fraction=0.2)
    assert probe.accuracy == 1
    assert diagnostics.embedding_std(x) == diagnostics.embedding_std(X)
    assert diagnostics.alignment([x]) == diagnostics.alignment(X[None])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: clustering.cluster(X, LABEL, n_clusters=3.0), "n_clusters is 3.0"),
        (lambda: retrieval.retrieve((X, ["a"] * 12)), "query is not an array of numbers"),
        (lambda: neighbors.knn_neighbors([[1.0], [1.0, 2.0]], X, k=1), "bank is not an array"),
    ],
)
def test_what_has_no_meaning_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


def test_a_number_of_clusters_may_be_any_integer():
    assert clustering.cluster(X, LABEL, n_clusters=np.int64(2)).n_clusters == 2
