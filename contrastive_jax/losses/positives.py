"""Softmax losses with several or soft positives, and on raw inner products: N-pair, angular."""

import jax
import jax.numpy as jnp

from contrastive_jax._numerics import bounded, softplus, unit
from contrastive_jax.losses._engine.checks import (
    arrays,
    check_below,
    check_labels,
    check_positive,
    check_shapes,
)
from contrastive_jax.losses._engine.mapped_axis import gather
from contrastive_jax.losses._engine.reduce import over_keys
from contrastive_jax.losses._engine.similarity import Ids, check_pairs, other_keys, scaled
from contrastive_jax.losses._engine.tile import Terms, similarities


def multi_positive_info_nce(
    query_BD: jax.Array,
    key_BD: jax.Array,
    ids_B: jax.Array,
    temperature: jax.Array | float = 0.07,
    *,
    axis_name: str | None = None,
    block_size: int | None = None,
) -> jax.Array:
    """Compute InfoNCE with every key of the query's id as a positive: captions of one image.

        loss_i = mean over {p: id_p = id_i} of -log( exp s(i, p) / sum_j exp s(i, j) )

    with s(i, j) = query_i . key_j / temperature on unit vectors: supervised contrast across two
    towers, and the cross-entropy to the uniform distribution over the positives.

    Use it where several keys of a batch belong to one query: captions, answers.

    Args:
      query_BD, key_BD: row i of one belongs to row i of the other; any float dtype, normalized.
      ids_B: integers; equal ids are positives of one another.
      temperature: scalar above 0; may be traced.
      axis_name: mapped axis over which the batch is sharded; keys come from all devices.
      block_size: None for the dense form, or the side of the tiles of the linear-memory form. Tiles
        have reverse mode only: for `jvp` or a Hessian use None, or `jacrev` of `grad`.

    Returns:
      float32 [B], one loss per query.

    Raises:
      ValueError: wrong rank or dtype, batches that differ, temperature <= 0, block_size < 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> x = jnp.ones((4, 8))
      >>> print(losses.multi_positive_info_nce(x, x, jnp.array([0, 0, 1, 2])).round(4))  # log B
      [1.3863 1.3863 1.3863 1.3863]

    Reference: Khosla et al., Supervised Contrastive Learning, NeurIPS 2020, equation 2
    (arXiv 2004.11362), between two towers.
    """
    query_BD, key_BD, ids_B = arrays(query_BD=query_BD, key_BD=key_BD, ids_B=ids_B)
    check_labels("ids_B", ids_B, "query_BD", len(query_BD))
    ids = check_pairs(query_BD, key_BD, temperature, ids_B, axis_name, block_size)
    terms = over_keys(
        _shared_ids,
        scaled(query_BD, temperature, sides=1),
        unit(key_BD),
        ids,
        ids,
        axis_name=axis_name,
        block_size=block_size,
    )
    count, total = terms.values
    return terms.exponents[0] - total / count


def soft_info_nce(
    query_BD: jax.Array,
    key_BD: jax.Array,
    targets_BM: jax.Array,
    temperature: jax.Array | float = 0.07,
    *,
    axis_name: str | None = None,
) -> jax.Array:
    """Compute the cross-entropy of the softmax over keys to given targets.

        loss_i = -sum_j t_ij log( exp s(i, j) / sum_k exp s(i, k) ),   s = query . key / temperature

    With the identity matrix as targets it is InfoNCE.

    Use it where similarity is known by degrees: soft labels, hierarchies, mixed images.

    Args:
      query_BD, key_BD: any float dtype, normalized inside.
      targets_BM: for each query a weight for each of the M keys (of all devices), usually summing
        to one; no gradient is stopped. The matrix is held anyway, so there is no tiled form.
      temperature: scalar above 0; may be traced.
      axis_name: mapped axis over which the batch is sharded; keys come from all devices.

    Returns:
      float32 [B], one loss per query.

    Raises:
      ValueError: wrong rank or dtype, shapes that differ, temperature <= 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> x = jnp.eye(3)
      >>> print(losses.soft_info_nce(x, x, jnp.eye(3), temperature=1.0).round(4))
      [0.5514 0.5514 0.5514]

    Reference: Gao et al., SoftCLIP, AAAI 2024 (arXiv 2303.17561), for given targets.
    """
    query_BD, key_BD, targets_BM = arrays(query_BD=query_BD, key_BD=key_BD, targets_BM=targets_BM)
    check_pairs(query_BD, key_BD, temperature, None, axis_name, None)
    keys = gather(unit(key_BD), axis_name)
    check_shapes("targets_BM", targets_BM, "query and all keys", (len(query_BD), len(keys)))
    s = similarities(scaled(query_BD, temperature, sides=1), keys)
    return -jnp.sum(targets_BM.astype(jnp.float32) * jax.nn.log_softmax(s), axis=-1)


def n_pair(
    anchor_BD: jax.Array,
    positive_BD: jax.Array,
    *,
    axis_name: str | None = None,
    block_size: int | None = None,
) -> jax.Array:
    """Compute the multi-class N-pair loss, on inner products of embeddings as they come.

        loss_i = log( 1 + sum_{j != i} exp(anchor_i . positive_j - anchor_i . positive_i) )

    Each of the B pairs must be of another class. The paper adds a small penalty on the squared
    lengths, which is the caller's.

    Use it with one pair of each class, where the length of an embedding may carry meaning.

    Args:
      anchor_BD, positive_BD: any float dtype, not normalized.
      axis_name: mapped axis over which the batch is sharded.
      block_size: None for the dense form, or the side of the tiles of the linear-memory form. Tiles
        have reverse mode only: for `jvp` or a Hessian use None, or `jacrev` of `grad`.

    Returns:
      float32 [B], one loss per anchor; 0 for a single pair.

    Raises:
      ValueError: wrong rank or dtype, batches that differ, block_size < 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> print(losses.n_pair(jnp.eye(3), jnp.eye(3)).round(4))  # log(1 + 2/e)
      [0.5514 0.5514 0.5514]

    Reference: Sohn, Improved Deep Metric Learning with Multi-class N-pair Loss Objective,
    NeurIPS 2016, section 3.2.
    """
    anchor_BD, positive_BD = arrays(anchor_BD=anchor_BD, positive_BD=positive_BD)
    ids = check_pairs(anchor_BD, positive_BD, 1.0, None, axis_name, block_size)
    anchor, positive = bounded(anchor_BD), bounded(positive_BD)
    matching = jnp.sum(anchor * positive, axis=-1)
    return _against_other_pairs(anchor, positive, matching, ids, axis_name, block_size)


def angular(
    anchor_BD: jax.Array,
    positive_BD: jax.Array,
    degrees: float = 45.0,
    *,
    axis_name: str | None = None,
    block_size: int | None = None,
) -> jax.Array:
    """Compute the angular loss over pairs, which bounds the angle at the negative of each triangle.

        loss_i = log( 1 + sum_{j != i} exp f_ij )
        f_ij = 4 tan^2(a) (x_i + p_i) . p_j - 2 (1 + tan^2(a)) x_i . p_i

    with x the anchors, p the positives and a the angle. Each of the B pairs must be of another
    class.

    Use it in metric learning where distances differ in scale from class to class: an angle has
    none.

    Args:
      anchor_BD, positive_BD: any float dtype, not normalized (the paper normalizes).
      degrees: the angle, above 0 and below 90, may be traced; the paper uses 36 to 55.
      axis_name: mapped axis over which the batch is sharded.
      block_size: None for the dense form, or the side of the tiles of the linear-memory form. Tiles
        have reverse mode only: for `jvp` or a Hessian use None, or `jacrev` of `grad`.

    Returns:
      float32 [B], one loss per anchor; 0 for a single pair.

    Raises:
      ValueError: wrong rank or dtype, batches that differ, degrees outside (0, 90).

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> print(losses.angular(jnp.eye(3), jnp.eye(3)).round(4))  # log(1 + 2 e^-4)
      [0.036 0.036 0.036]

    Reference: Wang et al., Deep Metric Learning with Angular Loss, ICCV 2017, section 3.3
    (arXiv 1708.01682).
    """
    anchor_BD, positive_BD = arrays(anchor_BD=anchor_BD, positive_BD=positive_BD)
    ids = check_pairs(anchor_BD, positive_BD, 1.0, None, axis_name, block_size)
    degrees = check_below("degrees", check_positive("degrees", degrees), 90)
    steepness = jnp.tan(jnp.deg2rad(jnp.asarray(degrees, jnp.float32))) ** 2
    anchor, positive = bounded(anchor_BD), bounded(positive_BD)
    away = 4.0 * steepness * (anchor + positive)
    matching = 2.0 * (1.0 + steepness) * jnp.sum(anchor * positive, axis=-1)
    return _against_other_pairs(away, positive, matching, ids, axis_name, block_size)


def _against_other_pairs(
    anchor: jax.Array,
    positive: jax.Array,
    matching: jax.Array,
    ids: Ids,
    axis_name: str | None,
    block_size: int | None,
) -> jax.Array:
    negatives = over_keys(
        other_keys, anchor, positive, ids, ids, axis_name=axis_name, block_size=block_size
    ).exponents[0]
    return softplus(negatives - matching)


def _shared_ids(s: jax.Array, params: tuple[()], rows: Ids, cols: Ids) -> Terms:
    positive = rows.id[:, None] == cols.id[None, :]
    return Terms((s,), (positive.astype(jnp.float32), jnp.where(positive, s, 0.0)))
