"""BERT as a sentence encoder: Devlin et al. 2019, arXiv 1810.04805; pooled as in Sentence-BERT.

One file for BERT, MiniLM, E5, BGE, for RoBERTa and XLM-R, whose positions start later, and for
DistilBERT, which has no token types. Norms come after attention and MLP. Rows are flattened to
[B*L,F] around every matrix: XLA then computes the gradient of the matrix as one product.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from contrastive_jax._numerics import unit
from contrastive_jax.encoders import inputs
from contrastive_jax.encoders.inputs import require

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": functools.partial(nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(nn.gelu, approximate=True),
    "relu": nn.relu,
    "tanh": nn.tanh,
    "identity": lambda x: x,
}
POOLS = ("mean", "cls", "last", "max")
_MASKED = -1e9  # finite, so that a row without any token has no NaN


class Shape(NamedTuple):
    """Sizes and constants of the transformer."""

    n_tokens: int
    dim: int
    layers: int
    heads: int
    hidden_dim: int
    positions: int
    position_offset: int
    token_types: int
    epsilon: float
    activation: str
    dropout: float
    attention_dropout: float
    dtype: jnp.dtype


def make(
    n_tokens: int,
    dim: int = 384,
    layers: int = 6,
    heads: int = 12,
    hidden_dim: int = 1536,
    positions: int = 512,
    position_offset: int = 0,
    token_types: int = 2,
    epsilon: float = 1e-12,
    activation: str = "gelu",
    dropout: float = 0.1,
    attention_dropout: float = 0.1,
    pooling: str = "mean",
    dense_dim: int = 0,
    dense_activation: str = "tanh",
    dense_bias: bool = True,
    normalize: bool = False,
    dtype: str = "float32",
) -> "SentenceEncoder":
    """Make an encoder from tokens [B,L] and lengths [B] to features [B,F], float32.

        x = norm(e(token) + p(place) + t(0))
        x = norm(x + W softmax(q k / sqrt(h)) v),  x = norm(x + W2 act(W1 x))      in each layer

    Args:
      n_tokens: size of the vocabulary.
      dim, layers, heads, hidden_dim: of the transformer; the defaults are those of MiniLM-L6
        (arXiv 2002.10957).
      positions: rows of the table of positions; texts have at most `positions - position_offset`
        tokens.
      position_offset: row of the first token: 0, or 2 in RoBERTa and XLM-R.
      token_types: rows of the table of token types, the first of which is added: 2 in BERT, 1 in
        RoBERTa, 0 (no table) in DistilBERT.
      epsilon: of the layer norms.
      activation: "gelu" (exact), "gelu_tanh" or "relu".
      dropout: probability behind embeddings, attention and MLP, in training, with the key
        "dropout".
      attention_dropout: of the attention's probabilities.
      pooling: "mean" of a text's tokens, its first ("cls"), its "last", or "max".
      dense_dim: of a matrix behind the pooling; 0 for none.
      dense_activation, dense_bias: of that matrix; one of `ACTIVATIONS`.
      normalize: to length one, at the end.
      dtype: "float32" or "bfloat16" for products; parameters, norms and softmax are float32.

    Raises:
      ValueError: an unknown or impossible value.

    >>> encoder = make(10, dim=8, layers=1, heads=2, hidden_dim=16, positions=6)
    >>> tokens, length = jnp.array([[2, 5, 3, 0], [2, 7, 5, 3]]), jnp.array([3, 4])
    >>> variables = encoder.init(jax.random.key(0), tokens, length, train=False)
    >>> encoder.apply(variables, tokens, length, train=False).shape
    (2, 8)
    """
    sizes = {"n_tokens": n_tokens, "dim": dim, "layers": layers, "heads": heads}
    for key, size in {**sizes, "hidden_dim": hidden_dim, "positions": positions}.items():
        require(size >= 1, key, size, "at least 1")
    require(dim % heads == 0, "dim", dim, f"a multiple of heads, {heads}")
    require(0 <= position_offset < positions, "position_offset", position_offset, "0, or 2")
    require(token_types >= 0, "token_types", token_types, "0 or more")
    for key, name in {"activation": activation, "dense_activation": dense_activation}.items():
        require(name in ACTIVATIONS, key, name, f"one of {tuple(ACTIVATIONS)}")
    require(0 < epsilon < 1, "epsilon", epsilon, "a small number above 0")
    for key, rate in {"dropout": dropout, "attention_dropout": attention_dropout}.items():
        require(0 <= rate < 1, key, rate, "a probability below 1")
    require(pooling in POOLS, "pooling", pooling, f"one of {POOLS}")
    require(dense_dim >= 0, "dense_dim", dense_dim, "0 or more")
    shape = Shape(
        *(n_tokens, dim, layers, heads, hidden_dim, positions, position_offset, token_types),
        *(epsilon, activation, dropout, attention_dropout, inputs.computed_dtype(dtype)),
    )
    return SentenceEncoder(shape, pooling, dense_dim, dense_activation, dense_bias, normalize)


class SentenceEncoder(nn.Module):
    shape: Shape
    pooling: str
    dense_dim: int
    dense_activation: str
    dense_bias: bool
    normalize: bool

    def setup(self) -> None:
        self.transformer = Transformer(self.shape)
        if self.dense_dim:
            self.dense = _dense(self.dense_dim, jnp.float32, use_bias=self.dense_bias)

    def __call__(self, tokens_BL: jax.Array, length_B: jax.Array, *, train: bool) -> jax.Array:
        z_BF = pool(self.embed_tokens(tokens_BL, length_B, train=train), length_B, self.pooling)
        if self.dense_dim:
            z_BF = ACTIVATIONS[self.dense_activation](self.dense(z_BF))
        return unit(z_BF) if self.normalize else z_BF

    def embed_tokens(self, tokens_BL: jax.Array, length_B: jax.Array, *, train: bool) -> jax.Array:
        """Encode each token: float32 [B,L,dim], of no meaning beyond a text's length."""
        return self.transformer(tokens_BL, length_B, train=train)


def pool(x_BLF: jax.Array, length_B: jax.Array, pooling: str) -> jax.Array:
    """Pool the first `length_B` tokens of each text.

    >>> x_BLF = jnp.array([[[1.0], [5.0], [9.0]]])
    >>> [float(pool(x_BLF, jnp.array([2]), kind)[0, 0]) for kind in POOLS]
    [3.0, 1.0, 5.0, 5.0]
    """
    if pooling == "cls":
        return x_BLF[:, 0]
    if pooling == "last":
        return jnp.take_along_axis(x_BLF, length_B[:, None, None] - 1, axis=1)[:, 0]
    is_token_BL1 = _is_token(x_BLF.shape[1], length_B)[..., None]
    if pooling == "max":
        return jnp.where(is_token_BL1, x_BLF, _MASKED).max(axis=1)
    return jnp.where(is_token_BL1, x_BLF, 0.0).sum(axis=1) / length_B[:, None]


class Transformer(nn.Module):
    """Tokens [B,L] to float32 [B,L,dim]."""

    shape: Shape

    @nn.compact
    def __call__(self, tokens_BL: jax.Array, length_B: jax.Array, *, train: bool) -> jax.Array:
        shape, (batch, places) = self.shape, tokens_BL.shape
        bias_BL = jnp.where(_is_token(places, length_B), 0.0, _MASKED)
        x = self._embeddings(tokens_BL).reshape(batch * places, shape.dim)
        x = _dropout(shape.dropout, train)(_norm(shape, "embedding_norm")(x))
        for i in range(shape.layers):
            x = Layer(shape, name=f"layer{i}")(x, bias_BL, train=train)
        return x.reshape(batch, places, shape.dim).astype(jnp.float32)

    def _embeddings(self, tokens_BL: jax.Array) -> jax.Array:
        shape, places = self.shape, tokens_BL.shape[1]
        first, end = shape.position_offset, shape.position_offset + places
        if end > shape.positions:
            raise ValueError(
                f"texts have {places} tokens and the encoder has {shape.positions - first} "
                "places; lower the lengths in tokens, or raise encoder.positions"
            )
        places_L = jnp.arange(first, end)
        x_BLF = _table(shape.n_tokens, shape.dim, "word_embedding")(tokens_BL)
        x_BLF += _table(shape.positions, shape.dim, "position_embedding")(places_L)[None]
        if shape.token_types:
            zero = jnp.zeros(1, jnp.int32)
            x_BLF += _table(shape.token_types, shape.dim, "type_embedding")(zero)[None]
        return x_BLF


class Layer(nn.Module):
    """Attention and MLP on rows [B*L,F], each added to its input and then normalized."""

    shape: Shape

    @nn.compact
    def __call__(self, x: jax.Array, bias_BL: jax.Array, *, train: bool) -> jax.Array:
        shape, rows = self.shape, x.shape[0]
        dense = functools.partial(_dense, dtype=shape.dtype)
        drop = _dropout(shape.dropout, train)
        query, key, value = (
            _split_heads(dense(shape.dim, name=name)(x), bias_BL.shape, shape.heads)
            for name in ("query", "key", "value")
        )
        y = attention(query, key, value, bias_BL, _dropout(shape.attention_dropout, train))
        y = dense(shape.dim, name="attention_output")(y.reshape(rows, shape.dim))
        x = _norm(shape, "attention_norm")(x + drop(y))
        y = ACTIVATIONS[shape.activation](dense(shape.hidden_dim, name="mlp_input")(x))
        y = dense(shape.dim, name="mlp_output")(y)
        return _norm(shape, "mlp_norm")(x + drop(y))


def attention(
    query_BHLF: jax.Array,
    key_BHLF: jax.Array,
    value_BHLF: jax.Array,
    bias_BL: jax.Array,
    drop: Callable[[jax.Array], jax.Array] = lambda p: p,
) -> jax.Array:
    """Attend to the tokens of the same text, as two batched products.

        y = softmax(q k^T / sqrt(F) + bias) v

    Args:
      query_BHLF, key_BHLF, value_BHLF: of H heads.
      bias_BL: 0 for a token and a large negative number for padding.
      drop: of the probabilities.

    Returns:
      [B,L,H,F].
    """
    scale = 1 / math.sqrt(query_BHLF.shape[-1])
    logits = (query_BHLF * scale) @ key_BHLF.swapaxes(2, 3)
    logits = logits.astype(jnp.float32) + bias_BL[:, None, None]
    weights_BHLL = drop(jax.nn.softmax(logits)).astype(value_BHLF.dtype)
    return (weights_BHLL @ value_BHLF).swapaxes(1, 2)


def _split_heads(rows: jax.Array, batch_and_places: tuple[int, ...], heads: int) -> jax.Array:
    """[B*L,F] to [B,H,L,F/H]."""
    return rows.reshape(*batch_and_places, heads, -1).swapaxes(1, 2)


def _is_token(places: int, length_B: jax.Array) -> jax.Array:
    return jnp.arange(places)[None] < length_B[:, None]


def _dropout(rate: float, train: bool) -> nn.Dropout:
    return nn.Dropout(rate, deterministic=not train)


def _dense(width: int, dtype: jnp.dtype, use_bias: bool = True, name: str | None = None):
    init = nn.initializers.normal(0.02)  # of BERT
    return nn.Dense(width, use_bias=use_bias, dtype=dtype, kernel_init=init, name=name)


def _table(rows: int, dim: int, name: str) -> nn.Embed:
    return nn.Embed(rows, dim, embedding_init=nn.initializers.normal(0.02), name=name)


def _norm(shape: Shape, name: str) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=shape.epsilon, use_fast_variance=False, name=name)
