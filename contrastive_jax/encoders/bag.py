"""A bag of words as a text encoder from scratch: weighted word vectors, on average."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from contrastive_jax._numerics import unit
from contrastive_jax.encoders.inputs import require

SCALES = ("root", "mean", "unit")


def make(
    n_tokens: int,
    dim: int = 256,
    word_dropout: float = 0.3,
    repeats: float = 0.5,
    scale: str = "root",
    *,
    idf_T: np.ndarray | None = None,
) -> "Bag":
    """Make an encoder from tokens [B,L] and lengths [B] to features [B,F], float32.

        h = sum_l a_l w(t_l) e(t_l) / s,   a_l = count(t_l)^(repeats - 1)

    with s = sqrt( sum_l a_l^2 ) by default.
    count(t) is how often token t is in the text: with `repeats` 1 each occurrence counts in full,
    with 0 a word counts once. The order of the words is not seen. In training each distinct word is
    dropped from a text with the probability `word_dropout`.

    Args:
      n_tokens: T, size of the vocabulary.
      dim: of the word vectors e, and of the features.
      word_dropout: with the key "dropout".
      repeats: between 0 and 1.
      scale: s: "root"; "mean" for sum_l a_l; "unit" for what makes h of length one.
      idf_T: the first weights w, such as log(N / texts with the token); 1 by default.

    Raises:
      ValueError: a value out of range.

    >>> encoder = make(10, dim=8)
    >>> tokens, length = jnp.array([[2, 5, 3, 0], [5, 3, 2, 9]]), jnp.array([3, 3])
    >>> variables = encoder.init(jax.random.key(0), tokens, length, train=False)
    >>> h = encoder.apply(variables, tokens, length, train=False)
    >>> h.shape, bool(jnp.allclose(h[0], h[1], atol=1e-6))
    ((2, 8), True)

    Wieting et al. 2016, Towards Universal Paraphrastic Sentence Embeddings (arXiv 1511.08198), for
    averages of word vectors that are trained on pairs; Iyyer et al. 2015 for word dropout.
    """
    require(n_tokens >= 1, "n_tokens", n_tokens, "at least 1")
    require(dim >= 1, "dim", dim, "at least 1")
    require(0 <= word_dropout < 1, "word_dropout", word_dropout, "a probability below 1")
    require(0 <= repeats <= 1, "repeats", repeats, "a number from 0 to 1")
    require(scale in SCALES, "scale", scale, f"one of {SCALES}")
    if idf_T is not None:
        require(idf_T.shape == (n_tokens,), "idf_T", idf_T.shape, f"{n_tokens} weights")
    return Bag(n_tokens, dim, word_dropout, repeats, scale, idf_T)


class Bag(nn.Module):
    n_tokens: int
    dim: int
    word_dropout: float
    repeats: float
    scale: str
    idf_T: np.ndarray | None

    @nn.compact
    def __call__(self, tokens_BL: jax.Array, length_B: jax.Array, *, train: bool) -> jax.Array:
        first = jnp.ones(self.n_tokens) if self.idf_T is None else jnp.asarray(self.idf_T)
        weight_T = self.param("weight", lambda key: first.astype(jnp.float32))
        init = nn.initializers.normal(self.dim**-0.5)
        vectors = nn.Embed(self.n_tokens, self.dim, embedding_init=init, name="embedding")
        share_BL = _shares(tokens_BL, length_B, self.repeats)
        if train and self.word_dropout:
            kept_BL = _kept(self.make_rng("dropout"), tokens_BL, self.word_dropout)
            share_BL = jnp.where(kept_BL, share_BL, 0.0)
        share_BL = share_BL / jnp.maximum(_size(share_BL, self.scale), 1e-6)
        h_BF = jnp.einsum("bl,blf->bf", share_BL * weight_T[tokens_BL], vectors(tokens_BL))
        return unit(h_BF) if self.scale == "unit" else h_BF


def _size(share_BL: jax.Array, scale: str) -> jax.Array:
    if scale == "mean":
        return jnp.sum(share_BL, axis=1, keepdims=True)
    return jnp.sqrt(jnp.sum(share_BL**2, axis=1, keepdims=True))


def _kept(key: jax.Array, tokens_BL: jax.Array, dropout: float) -> jax.Array:
    """Choose the words that stay: all occurrences of one in a text, or none.

    Each text has random bits, and each of its words the lot that they mix to.
    """
    bits_B1 = jax.random.bits(key, (len(tokens_BL), 1), jnp.uint32)
    x = tokens_BL.astype(jnp.uint32) * jnp.uint32(0x9E3779B1) ^ bits_B1
    for factor in (0x85EBCA6B, 0xC2B2AE35):  # the finalizer of MurmurHash3
        x = (x ^ (x >> 15)) * jnp.uint32(factor)
    return (x ^ (x >> 16)) >= jnp.uint32(dropout * 2**32)


def _shares(tokens_BL: jax.Array, length_B: jax.Array, repeats: float) -> jax.Array:
    """count^(repeats - 1) for the tokens of a text, 0 beyond its length."""
    is_token_BL = jnp.arange(tokens_BL.shape[1])[None] < length_B[:, None]
    if repeats == 1:
        return is_token_BL.astype(jnp.float32)
    same_BLL = (tokens_BL[:, :, None] == tokens_BL[:, None, :]) & is_token_BL[:, None, :]
    count_BL = jnp.maximum(same_BLL.sum(axis=2), 1).astype(jnp.float32)
    return jnp.where(is_token_BL, count_BL ** (repeats - 1), 0.0)
