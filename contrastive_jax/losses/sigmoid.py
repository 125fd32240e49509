"""Sigmoid losses, which classify each pair independently: SigLIP, NT-Logistic."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from contrastive_jax._numerics import as_array, softplus, unit
from contrastive_jax.losses._engine.checks import arrays, check_flag, check_number, check_option
from contrastive_jax.losses._engine.mapped_axis import global_index
from contrastive_jax.losses._engine.reduce import over_keys
from contrastive_jax.losses._engine.similarity import (
    Ids,
    check_pairs,
    check_views,
    positives_of,
    scaled,
)
from contrastive_jax.losses._engine.tile import Terms


def siglip(
    a_BD: jax.Array,
    b_BD: jax.Array,
    temperature: jax.Array | float = 0.1,
    bias: jax.Array | float = -10.0,
    *,
    ids_B: jax.Array | None = None,
    same_id: str = "left_out",
    axis_name: str | None = None,
    block_size: int | None = None,
) -> jax.Array:
    """Compute the pairwise sigmoid loss of SigLIP: does a match b, for every pair.

        loss_i = sum_j -log sigmoid( y_ij (a_i . b_j / temperature + bias) ),  y_ii = 1, else -1

    on unit vectors. The paper learns both t' = -log(temperature) and the bias, from the defaults.

    Use it for images and texts, with a learned bias; it needs no sum over all devices.

    Args:
      a_BD, b_BD: row i of one belongs to row i of the other; any float dtype, normalized inside.
      temperature: scalar above 0; may be traced, its gradient is exact.
      bias: scalar; may be traced, its gradient is exact.
      ids_B: integers; pairs j != i with the id of i depict the same thing.
      same_id: what becomes of these: "left_out", or "positive" (y_ij = 1: several captions of an
        image).
      axis_name: mapped axis over which the batch is sharded; pairs with all devices count.
      block_size: None for the dense form, or the side of the tiles of the linear-memory form. Tiles
        have reverse mode only: for `jvp` or a Hessian use None, or `jacrev` of `grad`.

    Returns:
      float32 [B], one loss per row of a; its mean is the paper's loss.

    Raises:
      ValueError: wrong rank or dtype, batches that differ, unknown `same_id`, temperature <= 0,
        block_size < 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> print(losses.siglip(jnp.eye(2), jnp.eye(2), temperature=1.0, bias=0.0).round(4))
      [1.0064 1.0064]

    Reference: Zhai et al., Sigmoid Loss for Language Image Pre-Training, ICCV 2023, section 3.2
    and algorithm 1 (arXiv 2303.15343).
    """
    a_BD, b_BD = arrays(a_BD=a_BD, b_BD=b_BD)
    bias = check_number("bias", bias)
    check_option("same_id", same_id, ("left_out", "positive"))
    ids = check_pairs(a_BD, b_BD, temperature, ids_B, axis_name, block_size)
    return over_keys(
        _classified if same_id == "left_out" else _classified_by_id,
        scaled(a_BD, temperature, sides=1),
        unit(b_BD),
        ids,
        ids,
        jnp.asarray(bias, jnp.float32),
        axis_name=axis_name,
        block_size=block_size,
    ).values[0]


class _View(NamedTuple):
    example: jax.Array
    limit: jax.Array  # the largest logit that a negative may have


def nt_logistic(
    z_BVD: jax.Array,
    temperature: jax.Array | float = 0.5,
    *,
    semi_hard: bool = False,
    axis_name: str | None = None,
    block_size: int | None = None,
) -> jax.Array:
    """Compute NT-Logistic: the logistic loss on scaled cosine similarities of views.

        loss_i = mean over positives p of -log sigmoid s(i, p)
                 + mean over negatives n of -log sigmoid(-s(i, n)),   s = z . z / temperature

    on unit vectors, negatives being all views of other examples.

    Use it to compare losses of views as SimCLR does; `siglip` is its form for two modalities.

    Args:
      z_BVD: embeddings of V >= 2 views of B examples, any float dtype; normalized inside.
      temperature: scalar above 0; may be traced.
      semi_hard: keep only negatives less similar than the least similar positive.
      axis_name: mapped axis over which the batch is sharded.
      block_size: None for the dense form, or the side of the tiles of the linear-memory form. Tiles
        have reverse mode only: for `jvp` or a Hessian use None, or `jacrev` of `grad`.

    Returns:
      float32 [B, V], one loss per anchor; without negatives the second mean is 0.

    Raises:
      ValueError: wrong rank or dtype, fewer than two views, temperature <= 0, block_size < 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> loss = losses.nt_logistic(jnp.ones((4, 2, 8)), temperature=1.0)
      >>> print(f"{loss.mean():.4f}")  # softplus(-1) + softplus(1)
      1.6265

    Reference: Chen et al., A Simple Framework for Contrastive Learning of Visual Representations,
    ICML 2020, table 2 and section 5.1 (arXiv 2002.05709).
    """
    z_BVD = as_array("z_BVD", z_BVD)
    check_views(z_BVD, temperature, block_size)
    check_flag("semi_hard", semi_hard)
    B, V, D = z_BVD.shape
    z_BVD = scaled(z_BVD, temperature, sides=2)
    positives = positives_of(z_BVD)
    limit = positives.min(axis=-1) if semi_hard else jnp.full((B, V), jnp.inf, jnp.float32)
    rows = _View(global_index(B * V, axis_name) // V, lax.stop_gradient(limit).reshape(-1))
    z_ND = z_BVD.reshape(B * V, D)
    count, total = over_keys(
        _pushed, z_ND, z_ND, rows, rows, axis_name=axis_name, block_size=block_size
    ).values
    push = (total / jnp.maximum(count, 1.0)).reshape(B, V)
    return softplus(-positives).mean(axis=-1) + push


def _classified(s: jax.Array, bias: jax.Array, rows: Ids, cols: Ids) -> Terms:
    matching = rows.index[:, None] == cols.index[None, :]
    same = rows.id[:, None] == cols.id[None, :]
    logit = s + bias
    return Terms(
        values=(jnp.where(same & ~matching, 0.0, softplus(jnp.where(matching, -logit, logit))),)
    )


def _classified_by_id(s: jax.Array, bias: jax.Array, rows: Ids, cols: Ids) -> Terms:
    logit = s + bias
    same = rows.id[:, None] == cols.id[None, :]
    return Terms(values=(softplus(jnp.where(same, -logit, logit)),))


def _pushed(s: jax.Array, params: tuple[()], rows: _View, cols: _View) -> Terms:
    kept = (rows.example[:, None] != cols.example[None, :]) & (s < rows.limit[:, None])
    return Terms(values=(kept.astype(jnp.float32), jnp.where(kept, softplus(s), 0.0)))
