"""The text transformer of CLIP: Radford et al. 2021, arXiv 2103.00020, section 2.4.

Each token sees those before it, and the features are those of a text's last token, which is the end
of the text where the tokenizer marks that. Norms come before attention and MLP.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from contrastive_jax.encoders import inputs
from contrastive_jax.encoders.inputs import require
from contrastive_jax.encoders.vit import ACTIVATIONS, Block, Style


def make(
    n_tokens: int,
    dim: int = 512,
    layers: int = 12,
    heads: int = 8,
    context: int = 77,
    activation: str = "gelu",
    dtype: str = "float32",
) -> "TextTransformer":
    """Make an encoder from tokens [B,L] and lengths [B] to features [B,dim], float32.

        x = e(token) + p(place),   x += attention(norm(x)),   x += MLP(norm(x)),   h = norm(x)_last

    Args:
      n_tokens: size of the vocabulary.
      dim, layers, heads: of the transformer; the defaults are those beside ViT-B/32 and ViT-B/16
        (table 19 of the paper).
      context: rows of the table of positions; texts have at most so many tokens.
      activation: "gelu", or "quick_gelu", x sigmoid(1.702 x), as OpenAI's weights have it.
      dtype: "float32" or "bfloat16" for the computation; parameters are float32.

    Raises:
      ValueError: a size out of range, or another activation.

    >>> encoder = make(10, dim=8, layers=1, heads=2, context=4)
    >>> tokens, length = jnp.array([[2, 5, 3, 0], [2, 5, 3, 7]]), jnp.array([3, 3])
    >>> variables = encoder.init(jax.random.key(0), tokens, length, train=False)
    >>> h = encoder.apply(variables, tokens, length, train=False)
    >>> h.shape, bool(jnp.allclose(h[0], h[1]))  # what comes after the length is not seen
    ((2, 8), True)
    """
    sizes = {"n_tokens": n_tokens, "dim": dim, "layers": layers, "heads": heads, "context": context}
    for key, size in sizes.items():
        require(size >= 1, key, size, "at least 1")
    require(dim % heads == 0, "dim", dim, f"a multiple of heads, {heads}")
    require(activation in ACTIVATIONS, "activation", activation, f"one of {tuple(ACTIVATIONS)}")
    computed = inputs.computed_dtype(dtype)
    return TextTransformer(n_tokens, dim, layers, heads, context, activation, computed)


class TextTransformer(nn.Module):
    n_tokens: int
    dim: int
    layers: int
    heads: int
    context: int
    activation: str
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, tokens_BL: jax.Array, length_B: jax.Array, *, train: bool) -> jax.Array:
        del train
        places = tokens_BL.shape[1]
        if places > self.context:
            raise ValueError(
                f"texts have {places} tokens and the encoder has {self.context} places; "
                "cut them, or give it a longer context"
            )
        table = nn.Embed(self.n_tokens, self.dim, embedding_init=_normal(0.02), name="embedding")
        shape = (self.context, self.dim)
        positions = self.param("position_embedding", _normal(0.01), shape, jnp.float32)
        x_BLF = (table(tokens_BL) + positions[None, :places]).astype(self.dtype)
        style = Style(1e-5, self.activation, causal=True, clip_layers=self.layers)
        for i in range(self.layers):
            x_BLF = Block(self.heads, 0.0, self.dtype, style, name=f"block{i + 1}")(x_BLF)
        last_B11 = jnp.maximum(length_B - 1, 0)[:, None, None]
        x_BF = jnp.take_along_axis(x_BLF, last_B11, axis=1)[:, 0]
        norm = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, use_fast_variance=False, name="norm")
        return norm(x_BF).astype(jnp.float32)


def _normal(deviation: float) -> nn.initializers.Initializer:
    return nn.initializers.normal(deviation)
