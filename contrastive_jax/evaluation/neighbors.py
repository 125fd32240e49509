"""Find exact nearest neighbors by brute force in tiles, for kNN and for retrieval.

The tiles of a bank are split over the devices, so that each device holds and searches a part.

The rule for ties and duplicates: of equal float32 similarities the lower bank index comes first,
whatever the tiles and the devices. Only the index distinguishes a row from its duplicates, so under
`leave_one_out` a duplicate is a neighbor like any other.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from contrastive_jax import parallel
from contrastive_jax._numerics import as_numpy, dot
from contrastive_jax.parallel import Best

METRICS = ("cosine", "euclidean")
_QUERY_ROWS = 512  # queries that meet one tile of the bank at a time

Found = tuple[np.ndarray, np.ndarray]  # similarities [N, k] float32 and bank indices [N, k] int32


def knn_neighbors(
    bank_MD: np.ndarray,
    query_ND: np.ndarray,
    *,
    k: int,
    metric: str = "cosine",
    leave_one_out: bool = False,
    block_size: int = 8192,
    devices: Sequence[Any] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the `k` most similar rows of a bank for each query, nearest first.

    Exact, by brute force in tiles: no more than 512 x block_size similarities exist on a device at
    a time. Of equal similarities the lower bank index comes first. The result is the same, bit for
    bit, on any number of devices.

    Args:
      bank_MD: rows to search, float32 or any dtype that converts to it, such as uint8 pixels.
      query_ND: rows to look up.
      k: neighbors per query; clipped to the rows that there are.
      metric: "cosine", or "euclidean", whose similarity is minus the distance.
      leave_one_out: the queries are the bank itself, and no row is a neighbor of itself.
      block_size: bank rows in a tile, the least that a device searches.
      devices: over which the bank is split; those of this process by default.

    Returns:
      Similarities [N, k] float32 and bank indices [N, k] int32.

    Raises:
      ValueError: if shapes do not match, a value is not finite, or an option is out of range.

    >>> bank = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]])
    >>> similarity, index = knn_neighbors(bank, np.array([[3.0, 0.0]]), k=2)
    >>> index.tolist(), similarity.tolist()
    ([[0, 2]], [[1.0, 1.0]])
    """
    metrics = (metric,)
    parts = blocks(bank_MD, query_ND, k, metrics, leave_one_out, block_size, devices)
    return join(parts)[metric]


def blocks(
    bank_MD: np.ndarray,
    query_ND: np.ndarray,
    k: int,
    metrics: Sequence[str] = METRICS,
    leave_one_out: bool = False,
    block_size: int = 8192,
    devices: Sequence[Any] | None = None,
) -> Iterator[dict[str, Found]]:
    """Search as `knn_neighbors` under several metrics in one pass, some queries at a time.

    For reductions block by block, where [N, k] would be too large to keep.

    Args:
      bank_MD, query_ND, k, leave_one_out, block_size, devices: as `knn_neighbors`.
      metrics: any of "cosine" and "euclidean".

    Returns:
      For each block of queries, in order, {metric: (similarities, bank indices)}.

    Raises:
      ValueError: as `knn_neighbors`, when the first block is requested.

    >>> bank = np.array([[1.0, 0.0], [0.0, 1.0], [9.0, 0.0]])
    >>> found = next(blocks(bank, np.array([[3.0, 0.0]]), k=1))
    >>> {metric: index.tolist() for metric, (_, index) in found.items()}
    {'cosine': [[0]], 'euclidean': [[0]]}
    """
    bank_MD, query_ND = as_numpy("bank", bank_MD), as_numpy("query", query_ND)
    _check_search(bank_MD, query_ND, k, metrics, leave_one_out, block_size)
    k = min(k, len(bank_MD) - leave_one_out)
    block_size = min(block_size, len(bank_MD))
    bank_MD, query_ND = _at_most_float32(bank_MD), _at_most_float32(query_ND)
    tiles = -(-len(bank_MD) // block_size)
    # Whole tiles, some of padding alone, so that similarities are computed as on one device.
    mesh = parallel.mesh_of_parts(tiles, devices)
    padded_MD = pad_rows(bank_MD, -(-tiles // mesh.size) * mesh.size * block_size)
    bank = parallel.put_batch({"bank": padded_MD}, mesh)["bank"]
    settings = {"k": k, "metrics": tuple(metrics), "block_size": block_size, "mesh": mesh}
    rows = min(_QUERY_ROWS, len(query_ND))
    pending = None
    for start in range(0, len(query_ND), rows):
        query_QD = pad_rows(query_ND[start : start + rows], rows)
        self_Q = np.arange(rows) + start if leave_one_out else np.full(rows, -1)
        queries = query_QD, self_Q.astype(np.int32), np.int32(len(bank_MD))
        running = _nearest(bank, *parallel.put_replicated(queries, mesh), **settings)
        if pending is not None:  # fetch one block while the next is computed
            yield jax.device_get(pending)
        pending = running
    left = len(query_ND) - (len(query_ND) - 1) // rows * rows
    last = jax.device_get(pending) or {}
    yield {metric: (score[:left], index[:left]) for metric, (score, index) in last.items()}


def join(parts: Iterator[dict[str, Found]]) -> dict[str, Found]:
    """Concatenate all blocks of queries."""
    kept = list(parts)
    return {
        metric: (
            np.concatenate([part[metric][0] for part in kept]),
            np.concatenate([part[metric][1] for part in kept]),
        )
        for metric in kept[0]
    }


@partial(jax.jit, static_argnames=("k", "metrics", "block_size", "mesh"))
def _nearest(
    bank_MD: jax.Array,
    query_QD: jax.Array,
    self_Q: jax.Array,
    size: jax.Array,
    *,
    k: int,
    metrics: tuple[str, ...],
    block_size: int,
    mesh: parallel.Mesh,
) -> dict[str, Best]:
    """Find the top-k of the first `size` rows of a bank that is split over the devices."""
    search = partial(_nearest_of_part, k=k, metrics=metrics, block_size=block_size)
    return parallel.shard_search(search, mesh)(bank_MD, query_QD, self_Q, size)


def _nearest_of_part(
    bank_MD: jax.Array,
    first: jax.Array,
    query_QD: jax.Array,
    self_Q: jax.Array,
    size: jax.Array,
    *,
    k: int,
    metrics: tuple[str, ...],
    block_size: int,
) -> dict[str, Best]:
    """Keep a running top-k over the tiles T of a part; row `self_Q` of the bank is skipped."""
    bank_TSD = bank_MD.reshape(-1, block_size, bank_MD.shape[1])

    def visit(best: dict[str, Best], tile: tuple[jax.Array, jax.Array]):
        bank_SD, start = tile
        row_S = start + jnp.arange(block_size, dtype=jnp.int32)
        hidden_QS = (row_S >= size)[None, :] | (row_S[None, :] == self_Q[:, None])
        new = {}
        for metric, (best_QK, index_QK) in best.items():
            score_QS = jnp.where(hidden_QS, -jnp.inf, _similarity(query_QD, bank_SD, metric))
            # top_k prefers the earlier of equals, and what is kept comes from lower bank rows.
            score_QK, place_QK = jax.lax.top_k(jnp.concatenate([best_QK, score_QS], axis=1), k)
            kept_QK = jnp.take_along_axis(index_QK, jnp.minimum(place_QK, k - 1), axis=1)
            new[metric] = Best(score_QK, jnp.where(place_QK < k, kept_QK, start + place_QK - k))
        return new, None

    shape = len(query_QD), k
    nothing = Best(jnp.full(shape, -jnp.inf, jnp.float32), jnp.zeros(shape, jnp.int32))
    starts_T = first + jnp.arange(len(bank_TSD), dtype=jnp.int32) * block_size
    return jax.lax.scan(visit, dict.fromkeys(metrics, nothing), (bank_TSD, starts_T))[0]


def _similarity(query_QD: jax.Array, bank_SD: jax.Array, metric: str) -> jax.Array:
    query_QD, bank_SD = query_QD.astype(jnp.float32), bank_SD.astype(jnp.float32)
    scale_Q, scale_S = _scale(query_QD), _scale(bank_SD)
    if metric == "euclidean":  # distances have one scale
        scale_Q = scale_S = jnp.maximum(jnp.max(scale_Q), jnp.max(scale_S))
    query_QD, bank_SD = query_QD / scale_Q, bank_SD / scale_S
    if metric == "cosine":
        norm_Q, norm_S = jnp.linalg.norm(query_QD, axis=1), jnp.linalg.norm(bank_SD, axis=1)
        query_QD = query_QD / jnp.where(norm_Q > 0, norm_Q, 1.0)[:, None]
        bank_SD = bank_SD / jnp.where(norm_S > 0, norm_S, 1.0)[:, None]
        return dot(query_QD, bank_SD.T)
    # Sums of squares, and no squares of roots: exact for integers, whatever the compiler fuses.
    square_Q, square_S = jnp.sum(query_QD**2, axis=1), jnp.sum(bank_SD**2, axis=1)
    square_QS = square_Q[:, None] + square_S[None, :] - 2 * dot(query_QD, bank_SD.T)
    return -jnp.sqrt(jnp.maximum(square_QS, 0.0)) * scale_Q


def _scale(x_ND: jax.Array) -> jax.Array:
    """Scale rows by 1, or by the largest entry where squares would leave float32, [N, 1]."""
    peak_N1 = jnp.max(jnp.abs(x_ND), axis=1, keepdims=True)
    extreme = (peak_N1 > 1e15) | ((peak_N1 < 1e-15) & (peak_N1 > 1e-30))
    return jnp.where(extreme, peak_N1, 1.0)


def _at_most_float32(x_ND: np.ndarray) -> np.ndarray:
    """Wider numbers as float32, which is computed with; pixels stay bytes until they are sent."""
    return x_ND.astype(np.float32) if x_ND.dtype.itemsize > 4 else x_ND


def check_finite(name: str, features_NF: np.ndarray) -> None:
    """Raise ValueError unless the features are a matrix of finite numbers."""
    if features_NF.ndim != 2:
        raise ValueError(f"{name}: expected features [N, F], got {features_NF.shape}; flatten them")
    with np.errstate(over="ignore"):  # float32 is what is computed with
        finite_NF = np.isfinite(features_NF.astype(np.float32, copy=False))
    bad = np.flatnonzero(~finite_NF.all(axis=1))
    if len(bad):
        raise ValueError(f"{name}: {len(bad)} rows are not finite, the first is row {bad[0]}")


def _check_search(
    bank_MD: np.ndarray,
    query_ND: np.ndarray,
    k: int,
    metrics: Sequence[str],
    leave_one_out: bool,
    block_size: int,
) -> None:
    shapes = bank_MD.shape, query_ND.shape
    if bank_MD.ndim != 2 or query_ND.ndim != 2 or bank_MD.shape[1] != query_ND.shape[1]:
        raise ValueError(f"bank [M, D] and queries [N, D] must share D, got {shapes}")
    if not metrics or set(metrics) - set(METRICS):
        raise ValueError(f"metric is 'cosine' or 'euclidean', got {', '.join(metrics)!r}")
    if len(bank_MD) <= leave_one_out or len(query_ND) == 0 or k < 1 or block_size < 1:
        raise ValueError(
            f"need rows to search, k >= 1 and block_size >= 1, got {shapes}, {k}, {block_size}"
        )
    if leave_one_out and bank_MD.shape != query_ND.shape:
        raise ValueError(f"leave_one_out needs the bank itself as the queries, got {shapes}")
    check_finite("bank", bank_MD)
    check_finite("query", query_ND)


def pad_rows(array: np.ndarray, rows: int) -> np.ndarray:
    """Append rows of zeros to an array until there are `rows`; the array itself if there are."""
    missing = rows - len(array)
    return np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1)) if missing else array
