"""Regularization by nearest neighbors: KoLeo."""

import jax
import jax.numpy as jnp
from jax import lax

from contrastive_jax._numerics import as_array, euclidean, unit
from contrastive_jax.losses._engine.checks import check_embedding, check_positive
from contrastive_jax.losses._engine.mapped_axis import gather, global_index


def koleo(x_BD: jax.Array, epsilon: float = 1e-8, *, axis_name: str | None = None) -> jax.Array:
    """Compute KoLeo, which spreads rows by the distance of each to its nearest neighbor.

        loss_i = -log( min_{j != i} |x_i - x_j| + epsilon )   on unit vectors

    Its mean is the Kozachenko-Leonenko estimate of differential entropy up to a constant. The
    gradient reaches both rows of a pair.

    Use it beside another loss, with a small weight, to spread embeddings (DINOv2).

    Args:
      x_BD: any float dtype, normalized inside.
      epsilon: above 0.
      axis_name: mapped axis over which the batch is sharded; neighbors come from all devices.

    Returns:
      float32 [B], one loss per row; 0 for a single row.

    Raises:
      ValueError: wrong rank or dtype, epsilon <= 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> print(losses.koleo(jnp.eye(3)).round(4))  # -log sqrt(2)
      [-0.3466 -0.3466 -0.3466]

    References: Sablayrolles et al., Spreading Vectors for Similarity Search, ICLR 2019, section 3.1
    (arXiv 1806.03198); Oquab et al., DINOv2, 2023 (arXiv 2304.07193), for epsilon.
    """
    x_BD = as_array("x_BD", x_BD)
    check_embedding("x_BD", x_BD, "BD")
    epsilon = check_positive("epsilon", epsilon)
    x_BD = unit(x_BD)
    x_MD = gather(x_BD, axis_name)
    if len(x_MD) == 1:
        return jnp.zeros(len(x_BD), jnp.float32)
    here = global_index(len(x_BD), axis_name)[:, None]
    itself = here == jnp.arange(len(x_MD), dtype=jnp.int32)[None, :]
    nearest = jnp.argmax(jnp.where(itself, -jnp.inf, lax.stop_gradient(x_BD @ x_MD.T)), axis=1)
    return -jnp.log(euclidean(x_BD, x_MD[nearest]) + epsilon)
