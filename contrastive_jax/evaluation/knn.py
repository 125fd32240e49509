"""Classify by the votes of the nearest training examples (kNN).

The neighbors are found once; every protocol is then a few lines of NumPy on them.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from contrastive_jax.evaluation import neighbors
from contrastive_jax.evaluation.results import (
    LabeledFeatures,
    Row,
    Scored,
    accuracy_row,
    as_labeled,
    stratified_split,
)


class KnnProtocol(NamedTuple):
    """How neighbors vote: the nearest `k`, equally, or by exp(similarity / temperature)."""

    k: int
    temperature: float | None = None


# Quoted, in this order, by Kobak's contrastive2021, by DINO, and by MoCo's and lightly's CIFAR-10.
KNN_PROTOCOLS = (KnnProtocol(10), KnnProtocol(20, 0.07), KnnProtocol(200, 0.1))
KNN_GRID = tuple(
    KnnProtocol(k, temperature)
    for k in (1, 5, 10, 20, 50, 100, 200)
    for temperature in (None, 0.07, 0.1, 0.5)
)


def knn_predict(
    similarity_NK: np.ndarray, label_NK: np.ndarray, protocol: KnnProtocol
) -> np.ndarray:
    """Find the class with the most votes among each query's neighbors; ties to the lowest.

    argmax_c sum_{j <= k} w_j [label_j = c], w = 1 or exp(similarity_j / temperature).

    Args:
      similarity_NK: from `knn_neighbors`, nearest first, K of them; K < k means all vote.
      label_NK: the class of each neighbor, integers from 0; memory grows with the largest.
      protocol: how they vote.

    Returns:
      Classes [N], int64.

    >>> labels = np.array([[2, 1, 1]])
    >>> similarity = np.array([[1.0, 0.1, 0.1]])
    >>> knn_predict(similarity, labels, KnnProtocol(3)), knn_predict(
    ...     similarity, labels, KnnProtocol(3, temperature=0.1))
    (array([1]), array([2]))

    Wu et al. 2018 (arXiv 1805.01978), section 3.4.
    """
    score_NK, label_NK = similarity_NK[:, : protocol.k], label_NK[:, : protocol.k]
    if protocol.temperature is None:
        weight_NK = np.ones(score_NK.shape)
    else:
        relative_NK = (score_NK - score_NK[:, :1]).astype(np.float64)  # to the nearest: no overflow
        weight_NK = np.exp(relative_NK / protocol.temperature)
    n, n_classes = len(label_NK), int(label_NK.max()) + 1
    slot_NK = np.arange(n)[:, None] * n_classes + label_NK
    votes = np.bincount(slot_NK.ravel(), weight_NK.ravel(), minlength=n * n_classes)
    return votes.reshape(n, n_classes).argmax(axis=1)


def knn_rows(bank: LabeledFeatures, query: LabeledFeatures, **settings: Any) -> list[Row]:
    """Score as `knn_scores`, which documents the arguments, and keep the rows only.

    >>> bank = np.eye(4, dtype=np.float32), np.array([0, 0, 1, 1])
    >>> row = knn_rows(bank, bank, representation="one-hot", layer="features")[1]
    >>> row["value"], row["protocol"]["k"], row["protocol"]["k_requested"]
    (1.0, 4, 20)
    """
    return [scored.row for scored in knn_scores(bank, query, **settings)]


def knn_scores(
    bank: LabeledFeatures,
    query: LabeledFeatures,
    *,
    representation: str,
    layer: str,
    protocols: Sequence[KnnProtocol] = KNN_PROTOCOLS,
    metrics: Sequence[str] = ("cosine",),
    bank_name: str = "train",
    split: str = "test",
) -> list[Scored]:
    """Score kNN under every protocol and metric, from one search for the largest k.

    Ties: of equally near examples the lower bank index is nearer, of equal votes the lower class
    wins. Duplicates in the bank all vote.

    Args:
      bank: (features [M, F], labels [M]) of the examples that vote.
      query: (features [N, F], labels [N]) of the examples to classify.
      representation: what made the features, such as "encoder" or "raw pixels".
      layer: which of its outputs they are, such as "features" or "embedding".
      protocols: how the neighbors vote.
      metrics: any of "cosine" and "euclidean"; the similarity of the latter is minus the distance.
      bank_name: the split that votes, for the record.
      split: the split that is classified, for the record.

    Returns:
      One result for each metric and protocol, in this order; see `accuracy_row`.

    Raises:
      ValueError: as `knn_neighbors`, or if labels are missing or negative.

    >>> bank = np.eye(4, dtype=np.float32), np.array([0, 0, 1, 1])
    >>> scored = knn_scores(bank, bank, representation="one-hot", layer="features")[1]
    >>> scored.predictions
    array([0, 0, 1, 1])
    """
    bank, query = as_labeled("bank", bank), as_labeled("query", query)
    results = []
    for metric, protocol, predictions in _knn_predictions(bank, query, protocols, metrics):
        record = {
            "name": "knn",
            "k": min(protocol.k, len(bank[0])),
            "k_requested": protocol.k,
            "temperature": protocol.temperature,
            "metric": metric,
            "weights": "equal" if protocol.temperature is None else "exp(similarity / temperature)",
            "normalized": metric == "cosine",
            "ties": "lower bank index, then lower class",
            "bank": bank_name,
            "bank_size": len(bank[0]),
        }
        row = accuracy_row(predictions == query[1], record, representation, layer, split)
        results.append(Scored(row, predictions))
    return results


def _knn_predictions(
    bank: LabeledFeatures,
    query: LabeledFeatures,
    protocols: Sequence[KnnProtocol],
    metrics: Sequence[str],
) -> Iterator[tuple[str, KnnProtocol, np.ndarray]]:
    widest = max(protocol.k for protocol in protocols)
    found = neighbors.join(neighbors.blocks(bank[0], query[0], widest, metrics))
    class_C, place_M = np.unique(bank[1], return_inverse=True)  # labels may be of any size
    for metric in metrics:
        similarity_NK, index_NK = found[metric]
        place_NK = place_M[index_NK]
        for protocol in protocols:
            chosen_N = knn_predict(similarity_NK, place_NK, protocol)
            yield metric, protocol, class_C[chosen_N].astype(np.int64)


def knn_chosen(
    bank: LabeledFeatures,
    query: LabeledFeatures,
    *,
    representation: str,
    layer: str,
    protocols: Sequence[KnnProtocol] = KNN_GRID,
    metrics: Sequence[str] = neighbors.METRICS,
    validation_fraction: float = 0.1,
    seed: int = 0,
    split: str = "test",
) -> Scored:
    """Score kNN with the protocol and metric that do best on a part of the bank that does not vote.

    The first of equals in the grid is kept; the whole bank then votes. The queries do not
    influence the choice.

    Args:
      bank, query, representation, layer, protocols, metrics, split: as `knn_scores`.
      validation_fraction: of each class of the bank that is held out, in (0, 1).
      seed: of the split.

    Raises:
      ValueError: as `knn_scores`, or if nothing can be held out.

    >>> rng = np.random.default_rng(0)
    >>> bank = rng.normal(size=(60, 2)).astype(np.float32), np.arange(60) % 2
    >>> knn_chosen(bank, bank, representation="noise", layer="x").row["protocol"]["selection"]
    'held-out 10 % of train, stratified, seed 0, the first of equals'
    """
    bank = as_labeled("bank", bank)
    vote_N, held_N = stratified_split(bank[1], validation_fraction, seed)
    held = bank[0][held_N], bank[1][held_N]
    tried = [
        (float(np.mean(predictions == held[1])), metric, protocol)
        for metric, protocol, predictions in _knn_predictions(
            (bank[0][vote_N], bank[1][vote_N]), held, protocols, metrics
        )
    ]
    best, metric, protocol = max(tried, key=lambda one: one[0])
    names = {"representation": representation, "layer": layer, "split": split}
    scored = knn_scores(bank, query, protocols=(protocol,), metrics=(metric,), **names)[0]
    part = f"held-out {100 * validation_fraction:g} % of train"
    scored.row["protocol"] |= {
        "selection": f"{part}, stratified, seed {seed}, the first of equals",
        "validation_accuracy": best,
        "grid": [[metric, *protocol] for _, metric, protocol in tried],
    }
    return scored
