"""Mine hard negatives for many queries: some of them at a time, results on the host."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from contrastive_jax._numerics import unit
from contrastive_jax.mining.corpus import Negatives, mine_corpus

AT_ONCE = 1024  # queries that are searched for at a time
_search = jax.jit(
    mine_corpus, static_argnames=("n_negatives", "ranks", "margin", "relative_margin")
)
_unit = jax.jit(unit, donate_argnums=0)  # in place


def mine_in_blocks(
    query_QD: np.ndarray,
    corpus_MD: np.ndarray,
    positives_QP: np.ndarray,
    excluded_QE: np.ndarray,
    *,
    key: jax.Array | None = None,
    **settings: Any,
) -> Negatives:
    """Mine as `mine_corpus` with cosines, some queries at a time, compiled once.

    Args:
      query_QD, corpus_MD: embeddings of any length above 0.
      positives_QP, excluded_QE: rows of the corpus, padded with -1.
      key: typed PRNG key for a random choice.
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
    query_QD, unit_MD = (_unit(jnp.array(x, jnp.float32)) for x in (query_QD, corpus_MD))
    n, at_once, parts = len(query_QD), min(AT_ONCE, len(query_QD)), []
    for start in range(0, n, at_once):
        rows = np.arange(start, start + at_once) % n  # the last block is filled up: one program
        own = None if key is None else jax.random.fold_in(key, start)
        left_out = {"excluded_QE": excluded_QE[rows], "key": own}
        found = _search(query_QD[rows], unit_MD, positives_QP[rows], **left_out, **settings)
        parts.append(jax.device_get(found))
    return Negatives(*(np.concatenate(x)[:n] for x in zip(*parts, strict=True)))  # type: ignore[arg-type]
