"""The key queue of MoCo: first in, first out, a pytree with a pure push."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from contrastive_jax._numerics import as_array


class Queue(NamedTuple):
    """The last K keys, the oldest at the cursor. Carry it in the model state."""

    keys_KD: jax.Array  # float32
    cursor: jax.Array  # int32 []


def make_queue(key: jax.Array, size: int, dim: int) -> Queue:
    """Make a queue of random unit vectors, which serve as negatives until keys replace them.

        keys_i = g_i / |g_i|,   g_i ~ N(0, I)

    Args:
      key: typed PRNG key.
      size: K, the number of keys to hold.
      dim: D of the keys.

    Returns:
      Queue with float32 keys [K, D] of length one.

    Raises:
      ValueError: size or dim below 1.

    Example:
      >>> import jax
      >>> from contrastive_jax.queue import make_queue
      >>> make_queue(jax.random.key(0), 8, 4).keys_KD.shape
      (8, 4)

    Reference: He et al., Momentum Contrast, CVPR 2020, section 3.2 (arXiv 1911.05722).
    """
    if size < 1 or dim < 1:
        raise ValueError(f"A queue of {size} keys of dimension {dim}: both must be at least 1.")
    keys = jax.random.normal(key, (size, dim), jnp.float32)
    keys /= jnp.linalg.norm(keys, axis=-1, keepdims=True)
    return Queue(keys, jnp.zeros((), jnp.int32))


def push(queue: Queue, keys_BD: jax.Array) -> Queue:
    """Replace the B oldest keys of a queue by new ones; K need not be a multiple of B.

        keys_{(cursor + i) mod K} <- keys_i,   cursor <- (cursor + B) mod K

    Args:
      queue: from `make_queue` or an earlier push.
      keys_BD: any float dtype, stored as they are in float32, without a gradient.

    Returns:
      The new Queue.

    Raises:
      ValueError: keys of another dimension than the queue's, or more keys than it holds.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from contrastive_jax.queue import make_queue, push
      >>> queue = push(make_queue(jax.random.key(0), 3, 1), jnp.array([[1.0], [2.0]]))
      >>> queue = push(queue, jnp.array([[3.0], [4.0]]))
      >>> print(queue.keys_KD[:, 0], queue.cursor)
      [4. 2. 3.] 1

    Reference: He et al., Momentum Contrast, CVPR 2020, section 3.2 (arXiv 1911.05722).
    """
    (K, D), keys_BD = queue.keys_KD.shape, as_array("keys_BD", keys_BD)
    if keys_BD.ndim != 2 or keys_BD.shape[1] != D or len(keys_BD) > K:
        raise ValueError(
            f"Keys of shape {keys_BD.shape} do not fit a queue of shape {(K, D)}: "
            f"push at most {K} keys of dimension {D}."
        )
    places = (queue.cursor + jnp.arange(len(keys_BD), dtype=jnp.int32)) % K
    new = lax.stop_gradient(keys_BD.astype(jnp.float32))
    cursor = (queue.cursor + len(keys_BD)) % K
    return Queue(queue.keys_KD.at[places].set(new), cursor.astype(jnp.int32))
