"""A text encoder for captions of a few words: a bag of word vectors and a small MLP."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from contrastive_jax.encoders.inputs import require


def make(n_tokens: int, width: int = 128, hidden_dim: int = 256) -> "Words":
    """Make a text encoder from tokens [B,L] and lengths [B] to features [B,F], float32.

        h = layer_norm(u + W2 relu(W1 u)),   u = layer_norm( sum_l e(token_l) / sqrt(words) )

    The order of the words is not seen.

    Args:
      n_tokens: size of the vocabulary.
      width: of the word vectors, and of the features.
      hidden_dim: of the MLP.

    Raises:
      ValueError: a size below 1.

    >>> text = make(10, width=4, hidden_dim=8)
    >>> tokens, length = jnp.array([[1, 2, 0], [2, 1, 0]]), jnp.array([2, 2])
    >>> variables = text.init(jax.random.key(0), tokens, length, train=False)
    >>> text.apply(variables, tokens, length, train=False).shape
    (2, 4)
    """
    sizes = {"n_tokens": n_tokens, "width": width, "hidden_dim": hidden_dim}
    for key, size in sizes.items():
        require(size >= 1, key, size, "at least 1")
    return Words(n_tokens, width, hidden_dim)


class Words(nn.Module):
    n_tokens: int
    width: int
    hidden_dim: int

    @nn.compact
    def __call__(self, tokens_BL: jax.Array, length_B: jax.Array, *, train: bool) -> jax.Array:
        del train
        vectors = nn.Embed(self.n_tokens, self.width, name="embedding")(tokens_BL)
        is_word_BL = jnp.arange(tokens_BL.shape[1])[None] < length_B[:, None]
        words_B1 = jnp.maximum(length_B[:, None], 1).astype(jnp.float32)
        sum_BW = (vectors * is_word_BL[..., None]).sum(axis=1) / jnp.sqrt(words_B1)
        u_BW = nn.LayerNorm()(sum_BW)
        u_BW += nn.Dense(self.width)(nn.relu(nn.Dense(self.hidden_dim)(u_BW)))
        return nn.LayerNorm()(u_BW)
