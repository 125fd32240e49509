"""Mine hard negatives for many queries: some of them at a time, results on the host."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from contrastive_jax.mining.corpus import Negatives, mine_corpus

_search = jax.jit(
    mine_corpus, static_argnames=("n_negatives", "ranks", "margin", "relative_margin")
)


def mine_in_blocks(
    query_QD: np.ndarray,
    corpus_MD: np.ndarray,
    positives_QP: np.ndarray,
    excluded_QE: np.ndarray,
    *,
    key: jax.Array | None = None,
    at_once: int = 1024,
    **settings: Any,
) -> Negatives:
    """Mine as `mine_corpus` with cosines, for `at_once` queries at a time, compiled once.

    Args:
      query_QD, corpus_MD: embeddings of any length above 0.
      positives_QP, excluded_QE: rows of the corpus, padded with -1.
      key: typed PRNG key for a random choice.
      at_once: queries that are searched for at a time.
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
    query_QD, corpus_MD = _unit(query_QD), jnp.asarray(_unit(corpus_MD))
    n, at_once, parts = len(query_QD), min(at_once, len(query_QD)), []
    for start in range(0, n, at_once):
        rows = np.arange(start, start + at_once) % n  # the last block is filled up: one program
        own = None if key is None else jax.random.fold_in(key, start)
        left_out = {"excluded_QE": excluded_QE[rows], "key": own}
        found = _search(query_QD[rows], corpus_MD, positives_QP[rows], **left_out, **settings)
        parts.append(jax.device_get(found))
    return Negatives(*(np.concatenate(x)[:n] for x in zip(*parts, strict=True)))  # type: ignore[arg-type]


def _unit(x_ND: np.ndarray) -> np.ndarray:
    norm_N = np.sqrt(np.einsum("nd,nd->n", x_ND, x_ND))  # without an array of squares
    return x_ND / np.maximum(norm_N, 1e-12)[:, None]
