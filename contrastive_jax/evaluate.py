"""From a trained encoder to numbers that can be quoted: features and kNN.

Features and neighbours are computed once and kept on the host; every protocol is then a few
lines of NumPy on them. A result is a dict that holds its whole protocol beside its accuracy.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from contrastive_jax.types import EmbedFn, ModelState, Params

Row = dict[str, Any]  # one result, ready for JSON

_QUERY_ROWS = 512  # queries that meet one block of the bank at a time
_Z95 = 1.959963984540054  # standard normal quantile of 0.975


class KnnProtocol(NamedTuple):
    """How neighbours vote: the nearest `k`, equally, or by exp(similarity / temperature)."""

    k: int
    temperature: float | None = None


# Quoted, in this order, by Kobak's contrastive2021, by DINO, and by MoCo's and lightly's CIFAR-10.
KNN_PROTOCOLS = (KnnProtocol(10), KnnProtocol(20, 0.07), KnnProtocol(200, 0.1))


def extract(
    embed: EmbedFn,
    params: Params,
    model_state: ModelState,
    image: np.ndarray,
    *,
    batch_size: int,
    shard: Callable[[Mapping[str, np.ndarray]], Mapping[str, jax.Array]] | None = None,
    out_sharding: Any = None,
    progress: Callable[[int, int], None] | None = None,
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
      progress: called with (images done, images in all) after each batch.

    Returns:
      What `embed` returns, {"features": [N, F], "embedding": [N, D]}.

    Raises:
      ValueError: if there are no images or `batch_size` is not positive.

    >>> def embed(params, model_state, batch):
    ...     return {"features": batch["image"].reshape(len(batch["image"]), -1) * params}
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
        batch = place({"image": _pad_rows(image[start : start + batch_size], batch_size)})
        running = compiled(params, model_state, batch)
        if pending is not None:  # fetch one batch while the next is computed
            parts.append(jax.device_get(pending))
        pending = running
        if progress is not None:
            progress(min(start + batch_size, len(image)), len(image))
    parts.append(jax.device_get(pending))
    join = partial(np.concatenate, dtype=np.float32)
    return {name: join([part[name] for part in parts])[: len(image)] for name in parts[0]}


def knn_neighbours(
    bank_MD: np.ndarray,
    query_ND: np.ndarray,
    *,
    k: int,
    metric: str = "cosine",
    leave_one_out: bool = False,
    block_size: int = 8192,
) -> tuple[np.ndarray, np.ndarray]:
    """The `k` most similar rows of a bank for each query, nearest first.

    Exact, by brute force in tiles: no more than 512 x block_size similarities exist at a time.
    Of equal similarities the lower bank index comes first.

    Args:
      bank_MD: rows to search, float32 or any dtype that converts to it, such as uint8 pixels.
      query_ND: rows to look up.
      k: neighbours per query; clipped to the rows that there are.
      metric: "cosine", or "euclidean", whose similarity is minus the distance.
      leave_one_out: the queries are the bank itself, and no row is its own neighbour.
      block_size: bank rows in a tile.

    Returns:
      Similarities [N, k] float32 and bank indices [N, k] int32.

    Raises:
      ValueError: if shapes do not match, a value is not finite, or an option is out of range.

    >>> bank = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]])
    >>> similarity, index = knn_neighbours(bank, np.array([[3.0, 0.0]]), k=2)
    >>> index.tolist(), similarity.tolist()
    ([[0, 2]], [[1.0, 1.0]])
    """
    _check_search(bank_MD, query_ND, k, metric, leave_one_out, block_size)
    k = min(k, len(bank_MD) - leave_one_out)
    block_size = min(block_size, len(bank_MD))
    padded_MD = _pad_rows(bank_MD, -(-len(bank_MD) // block_size) * block_size)
    bank_TSD = jax.device_put(padded_MD.reshape(-1, block_size, bank_MD.shape[1]))
    rows = min(_QUERY_ROWS, len(query_ND))
    found = []
    for start in range(0, len(query_ND), rows):
        query_QD = _pad_rows(query_ND[start : start + rows], rows)
        own_Q = np.arange(rows) + start if leave_one_out else np.full(rows, -1)
        sent = jax.device_put((query_QD, own_Q.astype(np.int32), np.int32(len(bank_MD))))
        found.append(_nearest(bank_TSD, *sent, k=k, metric=metric))
    similarity, index = zip(*jax.device_get(found), strict=True)
    return np.concatenate(similarity)[: len(query_ND)], np.concatenate(index)[: len(query_ND)]


@partial(jax.jit, static_argnames=("k", "metric"))
def _nearest(
    bank_TSD: jax.Array,
    query_QD: jax.Array,
    own_Q: jax.Array,
    size: jax.Array,
    *,
    k: int,
    metric: str,
) -> tuple[jax.Array, jax.Array]:
    """A running top-k over the tiles T of the bank; row `own_Q` of the bank is passed over."""
    block_size = bank_TSD.shape[1]

    def visit(best: tuple[jax.Array, jax.Array], tile: tuple[jax.Array, jax.Array]):
        bank_SD, start = tile
        row_S = start + jnp.arange(block_size)
        hidden_QS = (row_S >= size)[None, :] | (row_S[None, :] == own_Q[:, None])
        score_QS = jnp.where(hidden_QS, -jnp.inf, _similarity(query_QD, bank_SD, metric))
        # top_k prefers the earlier of equals, and what is kept comes from lower bank rows.
        score_QK, place_QK = jax.lax.top_k(jnp.concatenate([best[0], score_QS], axis=1), k)
        kept_QK = jnp.take_along_axis(best[1], jnp.minimum(place_QK, k - 1), axis=1)
        return (score_QK, jnp.where(place_QK < k, kept_QK, start + place_QK - k)), None

    nothing = (jnp.full((len(query_QD), k), -jnp.inf), jnp.zeros((len(query_QD), k), jnp.int32))
    starts_T = jnp.arange(len(bank_TSD)) * block_size
    return jax.lax.scan(visit, nothing, (bank_TSD, starts_T))[0]


def _similarity(query_QD: jax.Array, bank_SD: jax.Array, metric: str) -> jax.Array:
    query_QD, bank_SD = query_QD.astype(jnp.float32), bank_SD.astype(jnp.float32)
    norm_Q, norm_S = jnp.linalg.norm(query_QD, axis=1), jnp.linalg.norm(bank_SD, axis=1)
    if metric == "cosine":
        query_QD = query_QD / jnp.where(norm_Q > 0, norm_Q, 1.0)[:, None]
        bank_SD = bank_SD / jnp.where(norm_S > 0, norm_S, 1.0)[:, None]
    # Accelerators round float32 factors by default, which would reorder close neighbours.
    dot_QS = jnp.matmul(query_QD, bank_SD.T, precision=jax.lax.Precision.HIGHEST)
    if metric == "cosine":
        return dot_QS
    square_QS = norm_Q[:, None] ** 2 + norm_S[None, :] ** 2 - 2 * dot_QS
    return -jnp.sqrt(jnp.maximum(square_QS, 0.0))


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


def knn_rows(
    bank: tuple[np.ndarray, np.ndarray],
    query: tuple[np.ndarray, np.ndarray],
    *,
    representation: str,
    layer: str,
    protocols: tuple[KnnProtocol, ...] = KNN_PROTOCOLS,
    metric: str = "cosine",
    bank_name: str = "train",
    split: str = "test",
) -> list[Row]:
    """kNN accuracy under every protocol, from one search.

    Args:
      bank: (features [M, F], labels [M]) of the examples that vote.
      query: (features [N, F], labels [N]) of the examples to classify.
      representation: what made the features, such as "encoder" or "raw pixels".
      layer: which of its outputs they are, such as "features" or "embedding".
      protocols: how the neighbours vote.
      metric: "cosine" or "euclidean".
      bank_name: the split that votes, for the record.
      split: the split that is classified, for the record.

    Returns:
      One result for each protocol; see `accuracy_row`.

    Raises:
      ValueError: as `knn_neighbours`, or if labels are missing or negative.

    >>> bank = np.eye(4, dtype=np.float32), np.array([0, 0, 1, 1])
    >>> row = knn_rows(bank, bank, representation="one-hot", layer="features")[1]
    >>> row["accuracy"], row["protocol"]["k"], row["protocol"]["k_requested"]
    (1.0, 4, 20)
    """
    check_labels("bank", *bank)
    check_labels("query", *query)
    widest = max(protocol.k for protocol in protocols)
    similarity_NK, index_NK = knn_neighbours(bank[0], query[0], k=widest, metric=metric)
    label_NK = bank[1][index_NK]
    rows = []
    for protocol in protocols:
        hit_N = knn_predict(similarity_NK, label_NK, protocol) == query[1]
        record = {
            "name": "knn",
            "k": min(protocol.k, len(bank[0])),
            "k_requested": protocol.k,
            "temperature": protocol.temperature,
            "metric": metric,
            "weights": "equal" if protocol.temperature is None else "exp(similarity / temperature)",
            "normalised": metric == "cosine",
            "bank": bank_name,
            "bank_size": len(bank[0]),
        }
        rows.append(accuracy_row(hit_N, record, representation, layer, split))
    return rows


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


def check_finite(name: str, features_NF: np.ndarray) -> None:
    """Raises ValueError unless the features are a matrix of finite numbers."""
    if features_NF.ndim != 2:
        raise ValueError(f"{name}: expected features [N, F], got {features_NF.shape}; flatten them")
    bad = np.flatnonzero(~np.isfinite(features_NF).all(axis=1))
    if len(bad):
        raise ValueError(f"{name}: {len(bad)} rows are not finite, the first is row {bad[0]}")


def _check_search(
    bank_MD: np.ndarray,
    query_ND: np.ndarray,
    k: int,
    metric: str,
    leave_one_out: bool,
    block_size: int,
) -> None:
    shapes = bank_MD.shape, query_ND.shape
    if bank_MD.ndim != 2 or query_ND.ndim != 2 or bank_MD.shape[1] != query_ND.shape[1]:
        raise ValueError(f"bank [M, D] and queries [N, D] must share D, got {shapes}")
    if metric not in ("cosine", "euclidean"):
        raise ValueError(f"metric is 'cosine' or 'euclidean', got {metric!r}")
    if len(bank_MD) <= leave_one_out or len(query_ND) == 0 or k < 1 or block_size < 1:
        raise ValueError(
            f"need rows to search, k >= 1 and block_size >= 1, got {shapes}, {k}, {block_size}"
        )
    if leave_one_out and bank_MD.shape != query_ND.shape:
        raise ValueError(f"leave_one_out needs the bank itself as the queries, got {shapes}")
    check_finite("bank", bank_MD)
    check_finite("query", query_ND)


def _pad_rows(array: np.ndarray, rows: int) -> np.ndarray:
    return np.pad(array, [(0, rows - len(array))] + [(0, 0)] * (array.ndim - 1))
