"""The protocols that need features only, as functions from two labelled sets to results."""

import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from contrastive_jax.evaluation import (
    clustering,
    diagnostics,
    neighbors,
    probes,
    retrieval,
)
from contrastive_jax.evaluation import knn as knn_module
from contrastive_jax.evaluation.knn import Labelled, Scored

PER_CLASS = (1, 5, 10, 100)
FRACTIONS = (0.01, 0.1)


class Sets(NamedTuple):
    """What every protocol is given."""

    bank: Labelled  # features and labels of train
    probed: Labelled  # the part of it that full probes are fitted on, shuffled
    test: Labelled
    n_classes: int
    steps: int  # of L-BFGS, at most
    draws: int  # of the few-label probes
    seed: int


def knn(sets: Sets, names: Mapping[str, Any]) -> list[Scored]:
    """The whole grid under both metrics, and the member of it that a held-out part chooses."""
    every = {"protocols": knn_module.KNN_GRID, "metrics": neighbors.METRICS}
    scored = knn_module.knn_scores(sets.bank, sets.test, **names, **every)
    return [*scored, knn_module.knn_chosen(sets.bank, sets.test, **names, seed=sets.seed)]


def linear(sets: Sets, names: Mapping[str, Any]) -> list[Scored]:
    """Logistic regression, its strength one of 45."""
    common = {"n_classes": sets.n_classes, "l2_grid": probes.FINE_L2_GRID, "seed": sets.seed}
    result = probes.linear_probe(*sets.probed, *sets.test, max_steps=sets.steps, **common)
    return [Scored(probes.linear_row(result, **names), result.predictions)]


def ridge(sets: Sets, names: Mapping[str, Any]) -> list[Scored]:
    """Ridge regression, its strength one of 45."""
    common = {"n_classes": sets.n_classes, "l2_grid": probes.FINE_L2_GRID, "seed": sets.seed}
    result = probes.ridge_probe(*sets.probed, *sets.test, **common)
    return [Scored(probes.linear_row(result, **names), result.predictions)]


def few(sets: Sets, names: Mapping[str, Any]) -> list[Scored]:
    """1, 5, 10 and 100 labels a class, and 1 % and 10 % of them; what is too many is left out."""
    rarest = int(np.bincount(sets.bank[1], minlength=sets.n_classes).min())
    too_many = [count for count in PER_CLASS if count > rarest]
    if too_many:
        print(f"left out: {too_many} labels a class, the rarest has {rarest}", file=sys.stderr)
    asked: list[dict[str, Any]] = [{"per_class": n} for n in PER_CLASS if n <= rarest]
    asked += [{"fraction": fraction} for fraction in FRACTIONS]
    common = {"n_classes": sets.n_classes, "max_steps": sets.steps, "seed": sets.seed}
    results = [
        probes.few_label_probe(*sets.bank, *sets.test, draws=sets.draws, **labels, **common)
        for labels in asked
    ]
    return [Scored(probes.few_label_row(result, **names), None) for result in results]


def retrieve(sets: Sets, names: Mapping[str, Any]) -> list[Scored]:
    """Among the test examples, each looked up in all the others."""
    rows = retrieval.retrieval_rows(retrieval.retrieve(sets.test), **names, seed=sets.seed)
    return [Scored(row, None) for row in rows]


def cluster(sets: Sets, names: Mapping[str, Any]) -> list[Scored]:
    """k-means on the test examples, with as many clusters as there are classes."""
    found = clustering.cluster(*sets.test, n_clusters=sets.n_classes, seed=sets.seed)
    return [Scored(row, None) for row in clustering.cluster_rows(found, **names)]


PROTOCOLS: Mapping[str, Callable[[Sets, Mapping[str, Any]], list[Scored]]] = {
    "knn": knn,
    "linear": linear,
    "ridge": ridge,
    "few": few,
    "retrieval": retrieve,
    "clusters": cluster,
}


def gauges(features_ND: np.ndarray, label_N: np.ndarray, views_BVD: np.ndarray) -> dict[str, Any]:
    """Health of features: invariance, collapse, spectrum, separation of the classes."""

    @jax.jit
    def measure(z_ND: jax.Array, views_BVD: jax.Array) -> dict[str, jax.Array]:
        return {
            "alignment": diagnostics.alignment(views_BVD),
            "uniformity": diagnostics.uniformity(z_ND),
            "embedding_std": diagnostics.embedding_std(z_ND),
            "effective_rank": diagnostics.effective_rank(z_ND),
            "rankme": diagnostics.rankme(z_ND),
            "class_separation": diagnostics.class_separation(z_ND, label_N),
            "dimension_spectrum": diagnostics.dimension_spectrum(z_ND),
        }

    measured = jax.device_get(measure(features_ND, views_BVD))
    return jax.tree.map(lambda x: x.tolist(), measured)
