"""GradCache: encode a batch in chunks, with the activations of one chunk in memory."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def encode_in_chunks(
    encode: Callable[[Any, Any, jax.Array], Any],
    params: Any,
    inputs: Any,
    key: jax.Array,
    *,
    chunk_size: int,
    has_aux: bool = False,
) -> Any:
    """Encode a whole batch with the activations of one chunk in memory at a time.

        embeddings[c::n] = encode(params, inputs[c::n], fold_in(key, c)),   n = B / chunk_size

    Apply any loss to the embeddings of one or two encoders and differentiate as usual: the backward
    pass encodes each chunk again with the same key, so the same dropout, and the gradient is that
    of the plain step (about 4/3 of its cost). The encoder must treat examples one by one: batch
    statistics are those of a chunk. A chunk has every n-th example, so that where the batch is
    split over devices, and they divide `chunk_size`, each device encodes its own rows of every
    chunk, and the chunks are the same on any number of devices.

    Args:
      encode: (params, chunk of inputs, key) -> embeddings, any pytree with a leading batch axis.
      params: any pytree; gradients reach it.
      inputs: any pytree of arrays with a leading batch axis B.
      key: typed PRNG key, folded with the chunk's number.
      chunk_size: examples encoded at a time; divides B.
      has_aux: whether `encode` gives (embeddings, aux), aux being float arrays that describe a
        chunk: batch statistics.

    Returns:
      The output of `encode`, for all B examples; aux is the mean over the chunks.

    Raises:
      ValueError: inputs of different B, or B that chunk_size does not divide.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> from contrastive_jax.grad_cache import encode_in_chunks
      >>> encode = lambda w, x, key: x @ w
      >>> def loss(w, x_BVF):
      ...     z_BVD = encode_in_chunks(encode, w, x_BVF, jax.random.key(0), chunk_size=2)
      ...     return losses.nt_xent(z_BVD).mean()
      >>> jax.jit(jax.grad(loss))(jnp.eye(3), jnp.ones((4, 2, 3))).shape
      (3, 3)

    Reference: Gao et al., Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup,
    RepL4NLP 2021, section 3 (arXiv 2101.06983).
    """
    sizes = sorted({len(x) for x in jax.tree.leaves(inputs)})
    if len(sizes) != 1 or chunk_size < 1 or sizes[0] % chunk_size:
        raise ValueError(
            f"Inputs of batch size {sizes} in chunks of {chunk_size}: "
            "use one batch size and a chunk_size that divides it."
        )
    n = sizes[0] // chunk_size
    chunks = jax.tree.map(lambda x: _split(x, n), inputs)
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(n))

    @jax.checkpoint
    def step(_: None, chunk: Any) -> tuple[None, Any]:
        inputs, key = chunk
        return None, encode(params, inputs, key)

    _, encoded = lax.scan(step, None, (chunks, keys))
    if not has_aux:
        return jax.tree.map(_join, encoded)
    embeddings, aux = encoded
    return jax.tree.map(_join, embeddings), jax.tree.map(lambda x: jnp.mean(x, axis=0), aux)


def _split(x: jax.Array, n: int) -> jax.Array:
    """[B, ...] to [n, B / n, ...]: every n-th row is a chunk, and no row leaves its device."""
    return jnp.moveaxis(x.reshape(-1, n, *x.shape[1:]), 1, 0)


def _join(x: jax.Array) -> jax.Array:
    """The inverse of `_split`."""
    return jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:])
