"""From a trained encoder to numbers that can be quoted: features and kNN.

Features and neighbours are computed once and kept on the host; every protocol is then a few
lines of NumPy on them. A result is a dict that holds its whole protocol beside its accuracy.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from contrastive_jax.evaluation import neighbors
from contrastive_jax.evaluation.neighbors import check_finite, knn_neighbours, pad_rows
from contrastive_jax.types import EmbedFn, ModelState, Params

__all__ = ["check_finite", "knn_neighbours"]  # they are part of what this module offers

Row = dict[str, Any]  # one result, ready for JSON
Labelled = tuple[np.ndarray, np.ndarray]  # features [N, F] and classes [N]

_Z95 = 1.959963984540054  # standard normal quantile of 0.975


class KnnProtocol(NamedTuple):
    """How neighbours vote: the nearest `k`, equally, or by exp(similarity / temperature)."""

    k: int
    temperature: float | None = None


# Quoted, in this order, by Kobak's contrastive2021, by DINO, and by MoCo's and lightly's CIFAR-10.
KNN_PROTOCOLS = (KnnProtocol(10), KnnProtocol(20, 0.07), KnnProtocol(200, 0.1))
KNN_GRID = tuple(
    KnnProtocol(k, temperature)
    for k in (1, 5, 10, 20, 50, 100, 200)
    for temperature in (None, 0.07, 0.1, 0.5)
)


class Scored(NamedTuple):
    """A result and what it was counted from."""

    row: Row
    predictions: np.ndarray | None  # [N], the class given to each example, where there is one


def extract(
    embed: EmbedFn,
    params: Params,
    model_state: ModelState,
    image: np.ndarray,
    *,
    batch_size: int,
    shard: Callable[[Mapping[str, np.ndarray]], Mapping[str, jax.Array]] | None = None,
    out_sharding: Any = None,
) -> dict[str, np.ndarray]:
    """The encoder's outputs for a whole set of images, in order, as float32 on the host.

    The last batch is padded and its padding dropped, so `embed` compiles once.

    Args:
      embed: `Objective.embed`, (params, model_state, {"image": [B, H, W, C]}) -> arrays [B, ...].
      params: as `embed` takes them.
      model_state: as `embed` takes it.
      image: [N, H, W, C] uint8.
      batch_size: B, images in one call, over all devices.
      shard: puts a host batch on the devices; default: on the default device.
      out_sharding: of what `embed` returns; the compiler's choice by default. Where several
        processes hold a batch it has to be replicated.

    Returns:
      What `embed` returns, {"features": [N, F], "embedding": [N, D]}.

    Raises:
      ValueError: if there are no images or `batch_size` is not positive.

    >>> def embed(params, model_state, batch):
    ...     return {"features": batch["image"].reshape(len(batch["image"]), -1) * params}
    >>> import jax.numpy as jnp
    >>> image = np.arange(20, dtype=np.uint8).reshape(5, 2, 2, 1)
    >>> extract(embed, jnp.float32(0.5), {}, image, batch_size=2)["features"][4]
    array([8. , 8.5, 9. , 9.5], dtype=float32)
    """
    if len(image) == 0 or batch_size < 1:
        raise ValueError(f"need images and batch_size >= 1, got {len(image)} and {batch_size}")
    compiled, place = jax.jit(embed, out_shardings=out_sharding), shard or jax.device_put
    parts: list[dict[str, np.ndarray]] = []
    pending = None
    for start in range(0, len(image), batch_size):
        batch = place({"image": pad_rows(image[start : start + batch_size], batch_size)})
        running = compiled(params, model_state, batch)
        if pending is not None:  # fetch one batch while the next is computed
            parts.append(jax.device_get(pending))
        pending = running
    parts.append(jax.device_get(pending))
    join = partial(np.concatenate, dtype=np.float32)
    return {name: join([part[name] for part in parts])[: len(image)] for name in parts[0]}


def knn_predict(
    similarity_NK: np.ndarray, label_NK: np.ndarray, protocol: KnnProtocol
) -> np.ndarray:
    """The class with the most votes among each query's nearest neighbours; ties to the lowest.

    argmax_c sum_{j <= k} w_j [label_j = c], w = 1 or exp(similarity_j / temperature).

    Args:
      similarity_NK: from `knn_neighbours`, nearest first, K of them; K < k means all vote.
      label_NK: the class of each neighbour, integer.
      protocol: how they vote.

    Returns:
      Classes [N], int64.

    >>> labels = np.array([[2, 1, 1]])
    >>> similarity = np.array([[1.0, 0.1, 0.1]])
    >>> knn_predict(similarity, labels, KnnProtocol(3)), knn_predict(
    ...     similarity, labels, KnnProtocol(3, temperature=0.1))
    (array([1]), array([2]))

    Wu et al. 2018 (arXiv:1805.01978), section 3.4.
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


def knn_rows(bank: Labelled, query: Labelled, **settings: Any) -> list[Row]:
    """The rows of `knn_scores`, which has the arguments.

    >>> bank = np.eye(4, dtype=np.float32), np.array([0, 0, 1, 1])
    >>> row = knn_rows(bank, bank, representation="one-hot", layer="features")[1]
    >>> row["accuracy"], row["protocol"]["k"], row["protocol"]["k_requested"]
    (1.0, 4, 20)
    """
    return [scored.row for scored in knn_scores(bank, query, **settings)]


def knn_scores(
    bank: Labelled,
    query: Labelled,
    *,
    representation: str,
    layer: str,
    protocols: Sequence[KnnProtocol] = KNN_PROTOCOLS,
    metrics: Sequence[str] = ("cosine",),
    bank_name: str = "train",
    split: str = "test",
) -> list[Scored]:
    """kNN accuracy under every protocol and metric, from one search for the largest k.

    Ties: of equally near examples the lower bank index is nearer, of equal votes the lower class
    wins. Duplicates in the bank all vote.

    Args:
      bank: (features [M, F], labels [M]) of the examples that vote.
      query: (features [N, F], labels [N]) of the examples to classify.
      representation: what made the features, such as "encoder" or "raw pixels".
      layer: which of its outputs they are, such as "features" or "embedding".
      protocols: how the neighbours vote.
      metrics: any of "cosine" and "euclidean"; the similarity of the latter is minus the distance.
      bank_name: the split that votes, for the record.
      split: the split that is classified, for the record.

    Returns:
      One result for each metric and protocol, in this order; see `accuracy_row`.

    Raises:
      ValueError: as `knn_neighbours`, or if labels are missing or negative.

    >>> bank = np.eye(4, dtype=np.float32), np.array([0, 0, 1, 1])
    >>> scored = knn_scores(bank, bank, representation="one-hot", layer="features")[1]
    >>> scored.predictions
    array([0, 0, 1, 1])
    """
    results = []
    for metric, protocol, predictions in _knn_predictions(bank, query, protocols, metrics):
        record = {
            "name": "knn",
            "k": min(protocol.k, len(bank[0])),
            "k_requested": protocol.k,
            "temperature": protocol.temperature,
            "metric": metric,
            "weights": "equal" if protocol.temperature is None else "exp(similarity / temperature)",
            "normalised": metric == "cosine",
            "ties": "lower bank index, then lower class",
            "bank": bank_name,
            "bank_size": len(bank[0]),
        }
        row = accuracy_row(predictions == query[1], record, representation, layer, split)
        results.append(Scored(row, predictions))
    return results


def _knn_predictions(
    bank: Labelled, query: Labelled, protocols: Sequence[KnnProtocol], metrics: Sequence[str]
) -> Iterator[tuple[str, KnnProtocol, np.ndarray]]:
    check_labels("bank", *bank)
    check_labels("query", *query)
    widest = max(protocol.k for protocol in protocols)
    found = neighbors.join(neighbors.blocks(bank[0], query[0], widest, metrics))
    for metric in metrics:
        similarity_NK, index_NK = found[metric]
        label_NK = bank[1][index_NK]
        for protocol in protocols:
            yield metric, protocol, knn_predict(similarity_NK, label_NK, protocol)


def knn_chosen(
    bank: Labelled,
    query: Labelled,
    *,
    representation: str,
    layer: str,
    protocols: Sequence[KnnProtocol] = KNN_GRID,
    metrics: Sequence[str] = neighbors.METRICS,
    validation_fraction: float = 0.1,
    seed: int = 0,
    split: str = "test",
) -> Scored:
    """kNN with the protocol and metric that do best on a part of the bank that does not vote.

    The first of equals in the grid is kept; the whole bank then votes. The queries have no part in
    the choice.

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
    check_labels("bank", *bank)
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


def stratified_split(y_N: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices to fit on and indices held out; a class keeps at least one example to fit on.

    >>> fit, held = stratified_split(np.array([0] * 10 + [1] * 10), 0.1, seed=0)
    >>> len(fit), len(held)
    (18, 2)
    """
    rng = np.random.default_rng(seed)
    held_N = np.zeros(len(y_N), bool)
    for label in np.unique(y_N):
        members = rng.permutation(np.flatnonzero(y_N == label))
        held_N[members[: min(round(fraction * len(members)), len(members) - 1)]] = True
    if not 0 < fraction < 1 or not held_N.any():
        raise ValueError(
            f"validation_fraction {fraction} holds out {held_N.sum()} of {len(y_N)} examples: "
            "it must lie in (0, 1) and leave some to choose by"
        )
    return np.flatnonzero(~held_N), np.flatnonzero(held_N)


def accuracy_row(
    hit_N: np.ndarray, protocol: Row, representation: str, layer: str, split: str
) -> Row:
    """One result: an accuracy, its 95 % Wilson score interval, and how it was obtained.

    >>> accuracy_row(np.array([True, True, False, True]), {"name": "knn"}, "pixels", "raw", "test")
    {'representation': 'pixels', 'layer': 'raw', 'protocol': {'name': 'knn'}, 'split': 'test',
     'n': 4, 'accuracy': 0.75, 'ci95': [0.30064..., 0.95441...], 'ci95_method': 'wilson'}
    """
    return {
        "representation": representation,
        "layer": layer,
        "protocol": protocol,
        "split": split,
        "n": len(hit_N),
        "accuracy": float(np.mean(hit_N)),
        "ci95": list(wilson_interval(int(np.sum(hit_N)), len(hit_N))),
        "ci95_method": "wilson",
    }


def wilson_interval(hits: int, n: int) -> tuple[float, float]:
    """The 95 % score interval of a proportion, sound near 0 and 1 and for small n.

    (p + z^2/2n ± z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n), p = hits / n, z = 1.96. It speaks of
    the choice of test examples, not of training seeds.

    >>> low, high = wilson_interval(0, 10)
    >>> low, round(high, 4)
    (0.0, 0.2775)

    Wilson 1927 (JASA 22), equation 6.
    """
    share, spread = hits / n, _Z95**2 / n
    centre = share + spread / 2
    half = _Z95 * float(np.sqrt(share * (1 - share) / n + spread / (4 * n)))
    return max(0.0, (centre - half) / (1 + spread)), min(1.0, (centre + half) / (1 + spread))


def check_labels(name: str, features_NF: np.ndarray, label_N: np.ndarray) -> None:
    """Raises ValueError unless there is one class number >= 0 for each row of the features."""
    if label_N.shape != features_NF.shape[:1] or not np.issubdtype(label_N.dtype, np.integer):
        raise ValueError(
            f"{name}: features {features_NF.shape} need one integer label a row, "
            f"got {label_N.dtype} {label_N.shape}"
        )
    if label_N.size == 0 or label_N.min() < 0:
        unlabelled = int(np.sum(label_N < 0))
        raise ValueError(f"{name}: {unlabelled} of {label_N.size} examples are unlabelled (< 0)")
