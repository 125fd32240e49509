"""Balanced assignment of embeddings to prototypes, for SwAV (arXiv 2006.09882, algorithm 1)."""

import jax
import jax.numpy as jnp


def assign(
    score_BTK: jax.Array,
    of_queue_TQK: jax.Array,
    reads_queue: jax.Array | bool,
    epsilon: float,
    iterations: int,
) -> jax.Array:
    """Assign the large views of a batch, [B,T,K], each view beside its queue where that is read."""
    score_TNK = jnp.concatenate([score_BTK.swapaxes(0, 1), of_queue_TQK], axis=1)
    counts_N = (jnp.arange(score_TNK.shape[1]) < len(score_BTK)) | reads_queue
    q_TNK = jax.vmap(lambda score_NK: sinkhorn(score_NK, counts_N, epsilon, iterations))(score_TNK)
    return q_TNK[:, : len(score_BTK)].swapaxes(0, 1)


def sinkhorn(
    score_NK: jax.Array, counts_N: jax.Array, epsilon: float, iterations: int
) -> jax.Array:
    """Assign rows to prototypes, softly, so that each prototype gets an equal share of them.

    Rows that do not count get zeros. Each of the iterations normalizes prototypes, then rows.

    >>> score = jnp.array([[1.0, 0.9], [1.0, 0.0]])
    >>> sinkhorn(score, jnp.array([True, True]), 0.05, 50).argmax(axis=-1).tolist()
    [1, 0]
    """
    Q = jnp.where(counts_N[:, None], jnp.exp((score_NK - score_NK.max()) / epsilon), 0.0)
    for _ in range(iterations):
        Q /= jnp.maximum(Q.sum(axis=0, keepdims=True), 1e-30)
        Q /= jnp.maximum(Q.sum(axis=1, keepdims=True), 1e-30)
    return Q
