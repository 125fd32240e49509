"""Losses that pick the positive out of a softmax over similarities: NT-Xent, InfoNCE, SupCon."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from contrastive_jax.losses._common import (
    check_block_size,
    check_embedding,
    check_labels,
    check_option,
    check_positive,
    check_shapes,
    global_index,
    log_sum_exp,
    softplus,
    unit,
)
from contrastive_jax.losses.pairs import Terms, over_both, over_keys, over_self


class Ids(NamedTuple):
    """What is known of a row: its place in the global batch, and what it shows."""

    index: jax.Array
    id: jax.Array


def nt_xent(
    z_BVD: jax.Array,
    temperature: jax.Array | float = 0.5,
    *,
    axis_name: str | None = None,
    block_size: int | None = None,
) -> jax.Array:
    """The normalised temperature-scaled cross-entropy of SimCLR, for each view of each example.

    With unit vectors z and s(a, b) = z_a . z_b / temperature, anchor i and its positives P(i) (the
    other views of its example):

        loss_i = 1/|P(i)| sum_{p in P(i)} -log( exp s(i, p) / sum_{a != i} exp s(i, a) )

    Args:
      z_BVD: embeddings of V >= 2 views of B examples, any float dtype; normalised inside.
      temperature: scalar above 0; may be traced, its gradient is exact.
      axis_name: mapped axis over which the batch is sharded; negatives come from all devices.
      block_size: None for the dense form, or the side of the tiles of the linear-memory form
        (reverse-mode differentiation only).

    Returns:
      float32 [B, V], one loss per anchor; 0 where there is nothing to contrast with.

    Raises:
      ValueError: wrong rank or dtype, fewer than two views, temperature <= 0, block_size < 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> parallel = jnp.ones((4, 2, 8))  # every similarity is equal: log(2B - 1)
      >>> print(losses.nt_xent(parallel).mean().round(4))
      1.9459

    Reference: Chen et al., A Simple Framework for Contrastive Learning of Visual Representations,
    ICML 2020, equation 1 (arXiv:2002.05709).
    """
    check_embedding("z_BVD", z_BVD, "BVD")
    check_positive("temperature", temperature)
    check_block_size(block_size)
    B, V, D = z_BVD.shape
    if V < 2:
        raise ValueError(f"z_BVD has {V} view(s), expected at least 2: pass [B,V,D] with V >= 2.")
    z_BVD = _scaled(z_BVD, temperature, sides=2)
    example = global_index(B * V, axis_name) // V
    negatives = over_self(
        _other_examples,
        z_BVD.reshape(B * V, D),
        example,
        axis_name=axis_name,
        block_size=block_size,
    ).exponents[0]
    return _mean_over_views(z_BVD, negatives.reshape(B, V))


def info_nce(
    query_BD: jax.Array,
    key_BD: jax.Array,
    temperature: jax.Array | float = 0.07,
    *,
    negatives_BKD: jax.Array | None = None,
    ids_B: jax.Array | None = None,
    axis_name: str | None = None,
    block_size: int | None = None,
) -> jax.Array:
    """InfoNCE with in-batch negatives: each query must find its own key among all keys.

        loss_i = -log( exp s(i, i) / sum_j exp s(i, j) ),   s(i, j) = query_i . key_j / temperature

    on unit vectors. j runs over all keys of the batch and, when given, over all explicit negatives
    of all queries (as in DPR). This is also the multiple negatives ranking loss.

    Args:
      query_BD, key_BD: row i of one belongs to row i of the other; any float dtype, normalised.
      temperature: scalar above 0; may be traced, its gradient is exact.
      negatives_BKD: K further negatives that came with each query.
      ids_B: integers; keys j != i with the id of i show the same thing and are left out.
      axis_name: mapped axis over which the batch is sharded; keys come from all devices.
      block_size: None for the dense form, or the side of the tiles of the linear-memory form
        (reverse-mode differentiation only).

    Returns:
      float32 [B], one loss per query; 0 where there is nothing to contrast with.

    Raises:
      ValueError: wrong rank or dtype, batches that differ, temperature <= 0, block_size < 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> print(losses.info_nce(jnp.eye(3), jnp.eye(3), temperature=1.0).round(4))
      [0.5514 0.5514 0.5514]

    References: van den Oord et al., Representation Learning with Contrastive Predictive Coding,
    2018, equation 4 (arXiv:1807.03748); Karpukhin et al., Dense Passage Retrieval, EMNLP 2020,
    equation 2 and section 3.2 (arXiv:2004.04906).
    """
    rows = _check_pairs(query_BD, key_BD, temperature, ids_B, axis_name, block_size)
    query_BD = _scaled(query_BD, temperature, sides=1)
    key_BD = unit(key_BD)
    keys, cols = key_BD, rows
    if negatives_BKD is not None:
        check_embedding("negatives_BKD", negatives_BKD, "BKD")
        B, K, D = negatives_BKD.shape
        check_shapes("negatives_BKD", negatives_BKD, "key_BD", (len(key_BD), K, key_BD.shape[1]))
        keys = jnp.concatenate([key_BD, unit(negatives_BKD).reshape(B * K, D)])
        cols = jax.tree.map(lambda x: jnp.pad(x, (0, B * K), constant_values=-1), rows)
    tile = _other_keys if ids_B is None else _keys_of_other_ids
    negatives = over_keys(
        tile, query_BD, keys, rows, cols, axis_name=axis_name, block_size=block_size
    ).exponents[0]
    return softplus(negatives - jnp.sum(query_BD * key_BD, axis=-1))


def symmetric_info_nce(
    a_BD: jax.Array,
    b_BD: jax.Array,
    temperature: jax.Array | float = 0.07,
    *,
    ids_B: jax.Array | None = None,
    axis_name: str | None = None,
    block_size: int | None = None,
) -> jax.Array:
    """The loss of CLIP: half of InfoNCE from a to b and half from b to a.

        loss_i = ( info_nce(a, b)_i + info_nce(b, a)_i ) / 2

    One visit of the similarity matrix serves both directions.

    Args:
      a_BD, b_BD: row i of one belongs to row i of the other; any float dtype, normalised inside.
      temperature: scalar above 0; may be traced (CLIP learns it), its gradient is exact.
      ids_B: integers; pairs j != i with the id of i show the same thing and are left out.
      axis_name: mapped axis over which the batch is sharded; negatives come from all devices.
      block_size: None for the dense form, or the side of the tiles of the linear-memory form
        (reverse-mode differentiation only).

    Returns:
      float32 [B], one loss per pair; 0 where there is nothing to contrast with.

    Raises:
      ValueError: wrong rank or dtype, batches that differ, temperature <= 0, block_size < 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> print(losses.symmetric_info_nce(jnp.eye(3), jnp.eye(3), temperature=1.0).round(4))
      [0.5514 0.5514 0.5514]

    Reference: Radford et al., Learning Transferable Visual Models From Natural Language
    Supervision, ICML 2021, figure 3 (arXiv:2103.00020).
    """
    rows = _check_pairs(a_BD, b_BD, temperature, ids_B, axis_name, block_size)
    a_BD = _scaled(a_BD, temperature, sides=1)
    b_BD = unit(b_BD)
    tile = _other_keys if ids_B is None else _keys_of_other_ids
    by_a, by_b = over_both(tile, a_BD, b_BD, rows, rows, axis_name=axis_name, block_size=block_size)
    own = jnp.sum(a_BD * b_BD, axis=-1)
    return 0.5 * (softplus(by_a.exponents[0] - own) + softplus(by_b.exponents[0] - own))


def sup_con(
    z_BVD: jax.Array,
    labels_B: jax.Array,
    temperature: jax.Array | float = 0.1,
    *,
    positives: str = "outside",
    axis_name: str | None = None,
    block_size: int | None = None,
) -> jax.Array:
    """Supervised contrastive loss: all views of all examples with the anchor's label are positives.

    With unit vectors, s(a, b) = z_a . z_b / temperature and P(i) the other views of i's label:

        outside: loss_i = 1/|P(i)| sum_{p in P(i)} -log( exp s(i, p) / sum_{a != i} exp s(i, a) )
        inside:  loss_i = -log( 1/|P(i)| sum_{p in P(i)} exp s(i, p) / sum_{a != i} exp s(i, a) )

    Args:
      z_BVD: embeddings of V views of B examples, any float dtype; normalised inside.
      labels_B: integers.
      temperature: scalar above 0; may be traced, its gradient is exact.
      positives: "outside" or "inside": where the sum over positives stands relative to the log.
      axis_name: mapped axis over which the batch is sharded; pairs come from all devices.
      block_size: None for the dense form, or the side of the tiles of the linear-memory form
        (reverse-mode differentiation only).

    Returns:
      float32 [B, V], one loss per anchor; 0 for an anchor without positives.

    Raises:
      ValueError: wrong rank or dtype, labels that do not fit, unknown `positives`,
        temperature <= 0, block_size < 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> z_BVD = jnp.ones((4, 1, 8))
      >>> print(losses.sup_con(z_BVD, jnp.array([0, 0, 0, 1]))[:, 0].round(4))
      [1.0986 1.0986 1.0986 0.    ]

    Reference: Khosla et al., Supervised Contrastive Learning, NeurIPS 2020, equations 2 and 3
    (arXiv:2004.11362).
    """
    check_embedding("z_BVD", z_BVD, "BVD")
    B, V, D = z_BVD.shape
    check_labels("labels_B", labels_B, "z_BVD", B)
    check_positive("temperature", temperature)
    check_option("positives", positives, ("outside", "inside"))
    check_block_size(block_size)
    rows = Ids(global_index(B * V, axis_name), jnp.repeat(labels_B, V))
    terms = over_self(
        _log_mean_positive if positives == "outside" else _log_sum_positive,
        _scaled(z_BVD, temperature, sides=2).reshape(B * V, D),
        rows,
        axis_name=axis_name,
        block_size=block_size,
    )
    return _positive_share(terms).reshape(B, V)


def _check_pairs(
    query_BD: jax.Array,
    key_BD: jax.Array,
    temperature: Any,
    ids_B: jax.Array | None,
    axis_name: str | None,
    block_size: int | None,
) -> Ids:
    """Checks the arguments that the pair losses share; what is known of each pair."""
    check_embedding("query", query_BD, "BD")
    check_embedding("key", key_BD, "BD")
    check_shapes("key", key_BD, "query", query_BD.shape)
    check_positive("temperature", temperature)
    check_block_size(block_size)
    index = global_index(len(query_BD), axis_name)
    if ids_B is None:
        return Ids(index, index)
    check_labels("ids_B", ids_B, "query", len(query_BD))
    return Ids(index, ids_B)


def _scaled(x: jax.Array, temperature: jax.Array | float, sides: int) -> jax.Array:
    """Unit rows that carry the temperature: whole, or its root where they meet themselves.

    With the temperature inside the vectors, its gradient follows from theirs in every form.
    """
    scale = 1.0 / jnp.asarray(temperature, jnp.float32)
    return unit(x) * (scale if sides == 1 else jnp.sqrt(scale))


def _other_examples(s: jax.Array, params: tuple[()], rows: jax.Array, cols: jax.Array) -> Terms:
    return Terms((jnp.where(rows[:, None] != cols[None, :], s, -jnp.inf),))


def _other_keys(s: jax.Array, params: tuple[()], rows: Ids, cols: Ids) -> Terms:
    return Terms((jnp.where(rows.index[:, None] != cols.index[None, :], s, -jnp.inf),))


def _keys_of_other_ids(s: jax.Array, params: tuple[()], rows: Ids, cols: Ids) -> Terms:
    # An explicit negative has index -1: whatever its id, it stays in.
    other = (rows.id[:, None] != cols.id[None, :]) | (cols.index < 0)[None, :]
    return Terms((jnp.where(other, s, -jnp.inf),))


def _log_mean_positive(s: jax.Array, params: tuple[()], rows: Ids, cols: Ids) -> Terms:
    other = rows.index[:, None] != cols.index[None, :]
    positive = other & (rows.id[:, None] == cols.id[None, :])
    return Terms(
        (jnp.where(other, s, -jnp.inf),),
        (positive.astype(jnp.float32), jnp.where(positive, s, 0.0)),
    )


def _log_sum_positive(s: jax.Array, params: tuple[()], rows: Ids, cols: Ids) -> Terms:
    other = rows.index[:, None] != cols.index[None, :]
    positive = other & (rows.id[:, None] == cols.id[None, :])
    return Terms(
        (jnp.where(other, s, -jnp.inf), jnp.where(positive, s, -jnp.inf)),
        (positive.astype(jnp.float32),),
    )


def _positive_share(terms: Terms) -> jax.Array:
    """-log of the positives' mean share of the softmax; 0 for a row without positives."""
    count, *total = terms.values
    some = count > 0
    count = jnp.where(some, count, 1.0)
    every, *positive = [jnp.where(some, x, 0.0) for x in terms.exponents]
    mean = total[0] / count if total else positive[0] - jnp.log(count)
    return jnp.where(some, every - mean, 0.0)


def _mean_over_views(z_BVD: jax.Array, negatives_BV: jax.Array) -> jax.Array:
    """The mean over the positives p of log( sum of e^{s(a)} over all a / e^{s(p)} ).

    Written in differences to the positive, so that a small loss keeps its digits.
    """
    V = z_BVD.shape[1]
    s_BVV = jnp.einsum("bvd,bwd->bvw", z_BVD, z_BVD)
    others = jnp.array([[w for w in range(V) if w != v] for v in range(V)])
    positives = jnp.take_along_axis(s_BVV, others[None], axis=2)
    every = jnp.concatenate([positives, negatives_BV[..., None]], axis=-1)
    return log_sum_exp(every[:, :, None, :] - positives[..., None]).mean(axis=-1)
