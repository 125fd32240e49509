"""Mine hard negatives for many queries: some of them at a time, results on the host."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from contrastive_jax import parallel
from contrastive_jax._numerics import unit
from contrastive_jax.mining.corpus import Negatives, mine_corpus

AT_ONCE = 1024  # queries that are searched for at a time
_STATIC = ("n_negatives", "ranks", "margin", "relative_margin", "block_size", "mesh")
_search = jax.jit(mine_corpus, static_argnames=_STATIC)
_unit = jax.jit(unit, donate_argnums=0)  # in place


def mine_in_blocks(
    query_QD: np.ndarray,
    corpus_MD: np.ndarray,
    positives_QP: np.ndarray,
    excluded_QE: np.ndarray,
    *,
    key: jax.Array | None = None,
    block_size: int = 4096,
    devices: Sequence[Any] | None = None,
    **settings: Any,
) -> Negatives:
    """Mine as `mine_corpus` with cosines, some queries at a time, compiled once.

    The corpus is split over the devices; what is mined is the same on any number of them.

    Args:
      query_QD, corpus_MD: embeddings of any length above 0.
      positives_QP, excluded_QE: rows of the corpus, padded with -1.
      key: typed PRNG key for a random choice.
      block_size: rows of the corpus that are scored at a time, the least that a device searches.
      devices: over which the corpus is split; those of this process by default.
      settings: `n_negatives`, `ranks`, `margin`, `relative_margin` of `mine_corpus`.

    Returns:
      Negatives [Q, K] of NumPy arrays.

    Raises:
      ValueError: as `mine_corpus`.

    >>> rows, none = np.array([[0], [1]]), np.full((2, 1), -1)
    >>> found = mine_in_blocks(np.eye(2), np.eye(2), rows, none, n_negatives=1, ranks=(0, 1))
    >>> found.index.tolist()
    [[1], [0]]
    """
    blocks = max(1, -(-len(corpus_MD) // block_size))
    mesh = parallel.mesh_of_parts(blocks, devices)
    # Whole blocks of rows on each device, so that scores are computed as on one.
    share = min(-(-blocks // mesh.size) * block_size, len(corpus_MD))
    padded_MD = _padded(np.asarray(corpus_MD, np.float32), share * mesh.size)
    unit_MD = _unit(parallel.put_batch({"corpus": padded_MD}, mesh)["corpus"])
    query_QD = _unit(parallel.put_replicated(np.asarray(query_QD, np.float32), mesh))
    settings |= {"block_size": block_size, "mesh": mesh}
    n, at_once, parts = len(query_QD), min(AT_ONCE, len(query_QD)), []
    for start in range(0, n, at_once):
        rows = np.arange(start, start + at_once) % n  # the last block is filled up: one program
        own = None if key is None else jax.random.fold_in(key, start)
        left_out = {"excluded_QE": excluded_QE[rows], "key": own}
        found = _search(query_QD[rows], unit_MD, positives_QP[rows], **left_out, **settings)
        parts.append(jax.device_get(found))
    return Negatives(*(np.concatenate(x)[:n] for x in zip(*parts, strict=True)))  # type: ignore[arg-type]


def _padded(corpus_MD: np.ndarray, rows: int) -> np.ndarray:
    """Append rows of NaN, which are never found, until there are `rows`."""
    missing = rows - len(corpus_MD)
    return (
        np.pad(corpus_MD, ((0, missing), (0, 0)), constant_values=np.nan) if missing else corpus_MD
    )
