"""A text encoder for captions of a few words: a bag of word vectors and a small MLP."""

import flax.linen as nn
import jax
import jax.numpy as jnp

PAD = 0  # the token of a place without a word


def make(
    vocabulary: int, width: int = 128, hidden_dim: int = 256, output_dim: int = 128
) -> "BagOfWords":
    """Make a text encoder from tokens [B,L] to embeddings [B,D].

        z = W layer_norm(u + W2 relu(W1 u)),   u = layer_norm( sum_l e(token_l) / sqrt(words) )

    The order of the words is not seen.

    Args:
      vocabulary: tokens, the padding among them.
      width: of the word vectors.
      hidden_dim: of the MLP.
      output_dim: D.

    Raises:
      ValueError: a size below 1.

    >>> text = make(10, width=4, hidden_dim=8, output_dim=2)
    >>> variables = text.init(jax.random.key(0), jnp.zeros((1, 3), jnp.int32), train=False)
    >>> text.apply(variables, jnp.array([[1, 2, 0], [2, 1, 0]]), train=False).shape
    (2, 2)
    """
    sizes = {"vocabulary": vocabulary, "width": width, "hidden_dim": hidden_dim}
    for key, size in {**sizes, "output_dim": output_dim}.items():
        if size < 1:
            raise ValueError(f"text {key} is {size}; give at least 1")
    return BagOfWords(vocabulary, width, hidden_dim, output_dim)


class BagOfWords(nn.Module):
    vocabulary: int
    width: int
    hidden_dim: int
    output_dim: int

    @nn.compact
    def __call__(self, tokens_BL: jax.Array, *, train: bool) -> jax.Array:
        del train
        vectors = nn.Embed(self.vocabulary, self.width, name="embedding")(tokens_BL)
        is_word_BL = (tokens_BL != PAD).astype(jnp.float32)
        words_B1 = jnp.maximum(is_word_BL.sum(axis=1, keepdims=True), 1.0)
        sum_BW = (vectors * is_word_BL[..., None]).sum(axis=1) / jnp.sqrt(words_B1)
        u_BW = nn.LayerNorm()(sum_BW)
        u_BW += nn.Dense(self.width)(nn.relu(nn.Dense(self.hidden_dim)(u_BW)))
        return nn.Dense(self.output_dim, use_bias=False)(nn.LayerNorm()(u_BW))
