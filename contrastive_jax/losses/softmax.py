"""Softmax contrastive losses: NT-Xent, InfoNCE, the symmetric InfoNCE of CLIP, SupCon.

`nt_xent_reference` is the equation as it is printed, in one piece. The others are computed by the
engine (`_engine/`): the same sums, also in tiles, on many devices, and safe where nothing is left.
"""

import jax
import jax.numpy as jnp

from contrastive_jax._numerics import as_array, softplus, unit
from contrastive_jax.losses._engine.checks import (
    arrays,
    check_flag,
    check_labels,
    check_option,
)
from contrastive_jax.losses._engine.directions import check_directions, log_sum_of_negatives
from contrastive_jax.losses._engine.explicit import check_given
from contrastive_jax.losses._engine.mapped_axis import global_index
from contrastive_jax.losses._engine.reduce import over_both, over_self
from contrastive_jax.losses._engine.similarity import (
    Ids,
    against_negatives,
    check_pairs,
    check_views,
    keys_of_other_ids,
    mean_positive_loss,
    other_examples,
    other_views_of,
    positives_of,
    scaled,
)
from contrastive_jax.losses._engine.tile import Terms


def nt_xent_reference(z_BVD: jax.Array, temperature: jax.Array | float = 0.5) -> jax.Array:
    """Compute NT-Xent as its equation reads: dense, on one device, what `nt_xent` must equal.

        loss_i = 1/|P(i)| sum_{p in P(i)} -log( exp s(i, p) / sum_{a != i} exp s(i, a) )

    Args:
      z_BVD: embeddings of V >= 2 views of B examples, any float dtype; normalized inside.
      temperature: scalar above 0.

    Returns:
      float32 [B, V], one loss per anchor.

    >>> print(f"{nt_xent_reference(jnp.ones((4, 2, 8))).mean():.4f}")  # log(2B - 1)
    1.9459

    Chen et al. 2020 (SimCLR, arXiv 2002.05709), equation 1.
    """
    B, V, D = z_BVD.shape
    z_ND = unit(z_BVD).reshape(B * V, D)
    s_NN = z_ND @ z_ND.T / temperature
    example_N = jnp.arange(B * V) // V
    itself_NN = jnp.eye(B * V, dtype=bool)
    positive_NN = (example_N[:, None] == example_N[None, :]) & ~itself_NN
    log_total_N = jax.nn.logsumexp(jnp.where(itself_NN, -jnp.inf, s_NN), axis=1)
    return jnp.mean(log_total_N[:, None] - s_NN, axis=1, where=positive_NN).reshape(B, V)


def nt_xent(
    z_BVD: jax.Array,
    temperature: jax.Array | float = 0.5,
    *,
    normalize: bool = True,
    axis_name: str | None = None,
    block_size: int | None = None,
) -> jax.Array:
    """Compute NT-Xent, the normalized temperature-scaled cross-entropy of SimCLR, of each view.

    With unit vectors z and s(a, b) = z_a . z_b / temperature, anchor i and its positives P(i) (the
    other views of its example):

        loss_i = 1/|P(i)| sum_{p in P(i)} -log( exp s(i, p) / sum_{a != i} exp s(i, a) )

    Use it for augmented views, as SimCLR does, in batches as large as fit.

    Args:
      z_BVD: embeddings of V >= 2 views of B examples, any float dtype; normalized inside.
      temperature: scalar above 0; may be traced, its gradient is exact.
      normalize: False takes inner products of the embeddings as they come (the paper's Table 5).
      axis_name: mapped axis over which the batch is sharded; negatives come from all devices.
      block_size: None for the dense form, or the side of the tiles of the linear-memory form. Tiles
        have reverse mode only: for `jvp` or a Hessian use None, or `jacrev` of `grad`.

    Returns:
      float32 [B, V], one loss per anchor; 0 where there is nothing to contrast with.

    Raises:
      ValueError: wrong rank or dtype, fewer than two views, temperature <= 0, block_size < 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> parallel = jnp.ones((4, 2, 8))  # every similarity is equal: log(2B - 1)
      >>> print(f"{losses.nt_xent(parallel).mean():.4f}")
      1.9459

    Reference: Chen et al., A Simple Framework for Contrastive Learning of Visual Representations,
    ICML 2020, equation 1 (arXiv 2002.05709).
    """
    z_BVD = as_array("z_BVD", z_BVD)
    check_views(z_BVD, temperature, block_size)
    check_flag("normalize", normalize)
    z_BVD = scaled(z_BVD, temperature, sides=2, normalize=normalize)
    negatives_BV = other_views_of(z_BVD, other_examples, (), axis_name, block_size).exponents[0]
    return mean_positive_loss(positives_of(z_BVD), negatives_BV)


def info_nce(
    query_BD: jax.Array,
    key_BD: jax.Array,
    temperature: jax.Array | float = 0.07,
    *,
    negatives_BKD: jax.Array | None = None,
    negatives_mask_BK: jax.Array | None = None,
    negatives_ids_BK: jax.Array | None = None,
    ids_B: jax.Array | None = None,
    directions: tuple[str, ...] = ("query_to_key",),
    axis_name: str | None = None,
    block_size: int | None = None,
) -> jax.Array:
    """Compute InfoNCE with in-batch negatives: each query must find its key among all keys.

        loss_i = -log( exp s(i, i) / sum_j exp s(i, j) ),   s(i, j) = query_i . key_j / temperature

    on unit vectors. j runs over all keys of the batch and, when given, over all explicit negatives
    of all queries (as in DPR). This is also the multiple negatives ranking loss.

    Use it for queries and documents, as text retrieval does; with `ids_B` where documents
    repeat.

    Args:
      query_BD, key_BD: row i of one belongs to row i of the other; any float dtype, normalized.
      temperature: scalar above 0; may be traced, its gradient is exact.
      negatives_BKD: K further negatives that came with each query.
      negatives_mask_BK: bool, False for padding, which counts as if it were not there.
      negatives_ids_BK: integers; a negative with a query's id is left out for that query.
      ids_B: integers; keys j != i with the id of i depict the same thing and are left out.
      directions: what is summed in the denominator. "query_to_key" as above; "key_to_query" adds
        sum_j exp s(j, i), with the positive once more; "query_to_query" and "key_to_key" add the
        other queries and the other keys, with the explicit negatives of other queries.
      axis_name: mapped axis over which the batch is sharded; keys come from all devices.
      block_size: None for the dense form, or the side of the tiles of the linear-memory form. Tiles
        have reverse mode only: for `jvp` or a Hessian use None, or `jacrev` of `grad`.

    Returns:
      float32 [B], one loss per query; 0 where there is nothing to contrast with.

    Raises:
      ValueError: wrong rank or dtype, batches that differ, ids of negatives without `ids_B`,
        unknown directions, temperature <= 0, block_size < 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> print(losses.info_nce(jnp.eye(3), jnp.eye(3), temperature=1.0).round(4))
      [0.5514 0.5514 0.5514]

    References: van den Oord et al., Representation Learning with Contrastive Predictive Coding,
    2018, equation 4 (arXiv 1807.03748); Karpukhin et al., Dense Passage Retrieval, EMNLP 2020,
    equation 2 and section 3.2 (arXiv 2004.04906); for the directions Li et al., 2023
    (arXiv 2308.03281).
    """
    query_BD, key_BD = arrays(query_BD=query_BD, key_BD=key_BD)
    ids = check_pairs(query_BD, key_BD, temperature, ids_B, axis_name, block_size)
    given = check_given(query_BD, negatives_BKD, negatives_mask_BK, negatives_ids_BK, ids_B)
    check_directions(directions)
    query_BD, key_BD = (scaled(x, temperature, sides=2) for x in (query_BD, key_BD))
    if given is not None:
        given = given._replace(rows_BKD=scaled(given.rows_BKD, temperature, sides=2))
    negatives = log_sum_of_negatives(
        directions, query_BD, key_BD, ids, given, axis_name=axis_name, block_size=block_size
    )
    matching = jnp.sum(query_BD * key_BD, axis=-1)
    return against_negatives(negatives, matching, twice="key_to_query" in directions)


def symmetric_info_nce(
    a_BD: jax.Array,
    b_BD: jax.Array,
    temperature: jax.Array | float = 0.07,
    *,
    ids_B: jax.Array | None = None,
    axis_name: str | None = None,
    block_size: int | None = None,
) -> jax.Array:
    """Compute the loss of CLIP: half of InfoNCE from a to b and half from b to a.

        loss_i = ( info_nce(a, b)_i + info_nce(b, a)_i ) / 2

    One visit of the similarity matrix serves both directions.

    Use it for images and texts (CLIP), and wherever both sides are searched.

    Args:
      a_BD, b_BD: row i of one belongs to row i of the other; any float dtype, normalized inside.
      temperature: scalar above 0; may be traced (CLIP learns it), its gradient is exact.
      ids_B: integers; pairs j != i with the id of i depict the same thing and are left out.
      axis_name: mapped axis over which the batch is sharded; negatives come from all devices.
      block_size: None for the dense form, or the side of the tiles of the linear-memory form. Tiles
        have reverse mode only: for `jvp` or a Hessian use None, or `jacrev` of `grad`.

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
    Supervision, ICML 2021, figure 3 (arXiv 2103.00020).
    """
    a_BD, b_BD = arrays(a_BD=a_BD, b_BD=b_BD)
    rows = check_pairs(a_BD, b_BD, temperature, ids_B, axis_name, block_size)
    a_BD = scaled(a_BD, temperature, sides=1)
    b_BD = unit(b_BD)
    form = {"axis_name": axis_name, "block_size": block_size}
    by_a, by_b = over_both(keys_of_other_ids, a_BD, b_BD, rows, rows, **form)
    matching = jnp.sum(a_BD * b_BD, axis=-1)
    return 0.5 * (softplus(by_a.exponents[0] - matching) + softplus(by_b.exponents[0] - matching))


def sup_con(
    z_BVD: jax.Array,
    labels_B: jax.Array,
    temperature: jax.Array | float = 0.1,
    *,
    positives: str = "outside",
    axis_name: str | None = None,
    block_size: int | None = None,
) -> jax.Array:
    """Compute the supervised contrastive loss: all other views of a label are positives.

    With unit vectors, s(a, b) = z_a . z_b / temperature and P(i) the other views of i's label:

        outside: loss_i = 1/|P(i)| sum_{p in P(i)} -log( exp s(i, p) / sum_{a != i} exp s(i, a) )
        inside:  loss_i = -log( 1/|P(i)| sum_{p in P(i)} exp s(i, p) / sum_{a != i} exp s(i, a) )

    The positives stand in the denominator as well, so a batch of one class has a loss, as in the
    paper; pytorch-metric-learning makes it 0.

    Use it to train an encoder with labels before a linear classifier.

    Args:
      z_BVD: embeddings of V views of B examples, any float dtype; normalized inside.
      labels_B: integers.
      temperature: scalar above 0; may be traced, its gradient is exact.
      positives: "outside" or "inside" of the log is the sum over positives.
      axis_name: mapped axis over which the batch is sharded; pairs come from all devices.
      block_size: None for the dense form, or the side of the tiles of the linear-memory form. Tiles
        have reverse mode only: for `jvp` or a Hessian use None, or `jacrev` of `grad`.

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
    (arXiv 2004.11362).
    """
    z_BVD, labels_B = arrays(z_BVD=z_BVD, labels_B=labels_B)
    check_views(z_BVD, temperature, block_size, at_least=1)
    B, V, D = z_BVD.shape
    check_labels("labels_B", labels_B, "z_BVD", B)
    check_option("positives", positives, ("outside", "inside"))
    rows = Ids(global_index(B * V, axis_name), jnp.repeat(labels_B, V))
    terms = over_self(
        _log_mean_positive if positives == "outside" else _log_sum_positive,
        scaled(z_BVD, temperature, sides=2).reshape(B * V, D),
        rows,
        axis_name=axis_name,
        block_size=block_size,
    )
    return _minus_log_probability(terms).reshape(B, V)


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


def _minus_log_probability(terms: Terms) -> jax.Array:
    """-log of the positives' mean probability under the softmax; 0 without positives."""
    count, *total = terms.values
    some = count > 0
    count = jnp.where(some, count, 1.0)
    every, *positive = [jnp.where(some, x, 0.0) for x in terms.exponents]
    mean = total[0] / count if total else positive[0] - jnp.log(count)
    return jnp.where(some, every - mean, 0.0)
