"""Vision transformers up to the pooled features: Dosovitskiy et al. 2021, arXiv 2010.11929.

Norms come before attention and MLP, with epsilon 1e-6 and the exact GELU, as in timm and
torchvision, so that their weights give their features.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from contrastive_jax.encoders import inputs
from contrastive_jax.encoders.inputs import require


class Size(NamedTuple):
    dim: int
    layers: int
    heads: int


class Style(NamedTuple):
    """How a block computes."""

    epsilon: float  # of the norms
    activation: str  # of the MLP
    causal: bool = False  # a token attends to those before it
    clip_layers: int = 0  # of a tower whose matrices begin as those of CLIP do; 0 for Glorot's


TIMM = Style(1e-6, "gelu")
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": functools.partial(nn.gelu, approximate=False),
    "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),
}
SIZES = {"Ti": Size(192, 12, 3), "S": Size(384, 12, 6), "B": Size(768, 12, 12)}
STYLES = ("timm", "clip")
POOLS = ("token", "mean")
POSITIONS = ("learned", "sincos")


def make(
    size: str = "S",
    patch_size: int = 16,
    pool: str = "token",
    positions: str = "learned",
    dim: int | None = None,
    layers: int | None = None,
    heads: int | None = None,
    stochastic_depth: float = 0.0,
    freeze_patches: bool = False,
    dtype: str = "float32",
    remat: bool = False,
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
    style: str = "timm",
    activation: str = "gelu",
) -> "ViT":
    """Make a ViT from images [B,H,W,C] to features [B,dim] by the keys of the config's `encoder`.

    Args:
      size: "Ti", "S" or "B": 12 layers of 192, 384 or 768 dimensions, with 3, 6 or 12 heads
        (DeiT, arXiv 2012.12877, table 1).
      patch_size: side of a patch in pixels; it divides the sides of the images.
      pool: "token" is the class token after the last norm; "mean" has no class token and averages
        the patches.
      positions: "learned", or "sincos", which are fixed. Made for the (square) images of `init`;
        for images of another size they are interpolated (bicubic, antialiased).
      dim, layers, heads: in place of those of the size.
      stochastic_depth: probability of leaving out the last residual branch of an example in
        training, rising linearly from 0 at the first (Huang et al. 2016, arXiv 1603.09382,
        equation 4).
      freeze_patches: keep the random patch projection (MoCo v3, arXiv 2104.02057, section 4.2).
      dtype: "float32" or "bfloat16" for the computation; parameters are float32.
      remat: compute each block again in the backward pass: less memory, about a third more work.
      mean, std: of each channel, or one for all: images become (x - mean) / std first.
      style: "timm", or "clip" as in CLIP: a norm before the blocks too, no bias of the patches,
        epsilon 1e-5, and the first weights of its paper's code.
      activation: "gelu", or "quick_gelu", x sigmoid(1.702 x), as OpenAI's weights have it.

    Raises:
      ValueError: an unknown or impossible value.

    >>> encoder = make(patch_size=4, dim=16, layers=1, heads=2)
    >>> x_BHWC = jnp.zeros((2, 8, 8, 3))
    >>> variables = encoder.init(jax.random.key(0), x_BHWC, train=False)
    >>> encoder.apply(variables, jnp.zeros((2, 16, 12, 3)), train=False).shape
    (2, 16)
    """
    require(size in SIZES, "size", size, f"one of {tuple(SIZES)}")
    chosen = zip(SIZES[size], (dim, layers, heads), strict=True)
    given = Size(*(default if own is None else own for default, own in chosen))
    require(patch_size >= 1, "patch_size", patch_size, "at least 1, such as 4, 8 or 16")
    require(pool in POOLS, "pool", pool, f"one of {POOLS}")
    require(positions in POSITIONS, "positions", positions, f"one of {POSITIONS}")
    require(given.layers >= 1, "layers", given.layers, "at least 1")
    require(given.heads >= 1, "heads", given.heads, "at least 1")
    divides = given.dim >= 1 and given.dim % given.heads == 0
    require(divides, "dim", given.dim, f"a multiple of heads, {given.heads}")
    quarters = positions == "learned" or given.dim % 4 == 0
    require(quarters, "dim", given.dim, "a multiple of 4 for positions 'sincos'")
    rate = stochastic_depth
    require(0 <= rate < 1, "stochastic_depth", rate, "a probability below 1")
    require(style in STYLES, "style", style, f"one of {STYLES}")
    require(activation in ACTIVATIONS, "activation", activation, f"one of {tuple(ACTIVATIONS)}")
    normalization = inputs.normalization(mean, std)
    computed = inputs.computed_dtype(dtype)
    if style == "clip":
        chosen_style = Style(1e-5, activation, clip_layers=given.layers)
    else:
        chosen_style = TIMM._replace(activation=activation)
    return ViT(
        *(given, patch_size, pool, positions, rate, freeze_patches, computed, remat),
        *(normalization, chosen_style),
    )


class ViT(nn.Module):
    size: Size
    patch_size: int
    pool: str
    positions: str
    stochastic_depth: float
    freeze_patches: bool
    dtype: jnp.dtype
    remat: bool
    normalization: inputs.Normalization
    style: Style = TIMM

    @nn.compact
    def __call__(self, x_BHWC: jax.Array, *, train: bool) -> jax.Array:
        grid = _grid(x_BHWC.shape, self.patch_size)
        x_BHWC = inputs.normalized(x_BHWC, self.normalization).astype(self.dtype)
        name = "frozen_patch_projection" if self.freeze_patches else "patch_projection"
        has_bias, style = not self.style.clip_layers, self.style
        project = PatchProjection(
            self.size.dim, self.patch_size, self.freeze_patches, has_bias, name=name
        )
        x_BLF = project(x_BHWC)
        if self.pool == "token":
            token_F = self.param("class_token", self._first_tokens(), (self.size.dim,))
            first = jnp.broadcast_to(token_F.astype(self.dtype), (len(x_BLF), 1, self.size.dim))
            x_BLF = jnp.concatenate([first, x_BLF], axis=1)
        x_BLF += self._positions(grid).astype(self.dtype)[None]
        if style.clip_layers:
            x_BLF = _norm(self.dtype, "norm_pre", style.epsilon)(x_BLF)
        block = nn.remat(Block) if self.remat else Block
        last = max(self.size.layers - 1, 1)
        for i in range(self.size.layers):
            rate = self.stochastic_depth * i / last if train else 0.0
            x_BLF = block(self.size.heads, rate, self.dtype, style, name=f"block{i + 1}")(x_BLF)
        x_BLF = _norm(self.dtype, "norm", style.epsilon)(x_BLF).astype(jnp.float32)
        return x_BLF[:, 0] if self.pool == "token" else x_BLF.mean(axis=1)

    def _positions(self, grid: tuple[int, int]) -> jax.Array:
        """Embeddings [tokens, dim] for a grid of patches, interpolated where made for another."""
        extra = int(self.pool == "token")
        learned = self.positions == "learned"
        name = "position_embedding" if learned else "frozen_position_embedding"
        if self.has_variable("params", name):
            embedding = self.get_variable("params", name)
        else:
            if grid[0] != grid[1]:
                raise ValueError(f"a ViT starts on square images; these have {grid} patches")
            shape = (extra + math.prod(grid), self.size.dim)
            init = self._first_tokens() if learned else functools.partial(_sincos, extra)
            embedding = self.param(name, init, shape)
        embedding = embedding if learned else jax.lax.stop_gradient(embedding)
        return resized(embedding, grid, extra)

    def _first_tokens(self) -> nn.initializers.Initializer:
        """How the class token and learned positions begin."""
        return nn.initializers.normal(self.size.dim**-0.5 if self.style.clip_layers else 0.02)


class PatchProjection(nn.Module):
    """Project each patch to a token: a convolution whose stride is its size, as one matrix."""

    dim: int
    patch_size: int
    frozen: bool
    has_bias: bool = True

    @nn.compact
    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        batch, height, width, channels = x_BHWC.shape
        side = self.patch_size
        shape = (side, side, channels, self.dim)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        zeros = nn.initializers.zeros
        bias = (
            self.param("bias", zeros, (self.dim,))
            if self.has_bias
            else jnp.zeros(self.dim, jnp.float32)
        )
        if self.frozen:
            kernel, bias = jax.lax.stop_gradient((kernel, bias))
        x = x_BHWC.reshape(batch, height // side, side, width // side, side, channels)
        x = x.swapaxes(2, 3).reshape(batch, -1, side * side * channels)
        return x @ kernel.reshape(-1, self.dim).astype(x.dtype) + bias.astype(x.dtype)[None, None]


class Block(nn.Module):
    """Attention and MLP, each behind a norm and added to its input."""

    heads: int
    drop: float  # probability of leaving out each branch of an example
    dtype: jnp.dtype
    style: Style = TIMM

    @nn.compact
    def __call__(self, x_BLF: jax.Array) -> jax.Array:
        dim, style = x_BLF.shape[-1], self.style
        inner, output, hidden = _kernel_inits(dim, style.clip_layers)
        dense = functools.partial(nn.Dense, dtype=self.dtype)
        y = _norm(self.dtype, "norm1", style.epsilon)(x_BLF)
        y = dense(3 * dim, kernel_init=inner, name="qkv")(y)
        y = y.reshape(*y.shape[:2], 3, self.heads, dim // self.heads)
        query, key, value = y[:, :, 0], y[:, :, 1], y[:, :, 2]
        y = jax.nn.dot_product_attention(query, key, value, is_causal=style.causal)
        x_BLF += self._kept(dense(dim, kernel_init=output, name="proj")(y.reshape(x_BLF.shape)))
        y = _norm(self.dtype, "norm2", style.epsilon)(x_BLF)
        y = dense(4 * dim, kernel_init=hidden, name="fc1")(y)
        y = dense(dim, kernel_init=output, name="fc2")(ACTIVATIONS[style.activation](y))
        return x_BLF + self._kept(y)

    def _kept(self, y_BLF: jax.Array) -> jax.Array:
        """The branch, left out for some examples and larger for the others."""
        if not self.drop:
            return y_BLF
        kept = jax.random.bernoulli(self.make_rng("dropout"), 1 - self.drop, (len(y_BLF), 1, 1))
        return jnp.where(kept, y_BLF / (1 - self.drop), jnp.zeros_like(y_BLF))


def resized(embedding: jax.Array, grid: tuple[int, int], extra: int) -> jax.Array:
    """Interpolate position embeddings of a square grid to another; the first `extra` stay.

    >>> resized(jnp.ones((1 + 4, 8)), (3, 2), extra=1).shape
    (7, 8)
    """
    side = math.isqrt(len(embedding) - extra)
    if (side, side) == grid:
        return embedding
    dim = embedding.shape[-1]
    square = embedding[extra:].reshape(side, side, dim)
    other = jax.image.resize(square, (*grid, dim), "bicubic", antialias=True)
    return jnp.concatenate([embedding[:extra], other.reshape(-1, dim)])


def _sincos(extra: int, key: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Sines and cosines of column and row, as MoCo v3 has them; zeros for the class token."""
    del key  # an initializer that is not random
    side, quarter = math.isqrt(shape[0] - extra), shape[1] // 4
    frequency = 10000.0 ** -(jnp.arange(quarter, dtype=jnp.float32) / quarter)
    angle = jnp.arange(side, dtype=jnp.float32)[:, None] * frequency[None]
    waves = jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=1)
    columns, rows = jnp.tile(waves, (side, 1)), jnp.repeat(waves, side, axis=0)
    zeros = jnp.zeros((extra, shape[1]), jnp.float32)
    return jnp.concatenate([zeros, jnp.concatenate([columns, rows], axis=1)])


def _grid(shape: tuple[int, ...], patch_size: int) -> tuple[int, int]:
    height, width = shape[1:3]
    if height % patch_size or width % patch_size:
        raise ValueError(
            f"encoder patch_size is {patch_size} and the images are {height} x {width}; "
            "give one that divides both"
        )
    return height // patch_size, width // patch_size


def _kernel_inits(dim: int, clip_layers: int) -> tuple[nn.initializers.Initializer, ...]:
    """How the matrices into a branch, out of one, and into an MLP begin."""
    if not clip_layers:
        return (nn.initializers.xavier_uniform(),) * 3
    deviations = dim**-0.5, dim**-0.5 * (2 * clip_layers) ** -0.5, (2 * dim) ** -0.5
    return tuple(map(nn.initializers.normal, deviations))


def _norm(dtype: jnp.dtype, name: str, epsilon: float = 1e-6) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=epsilon, dtype=dtype, use_fast_variance=False, name=name)
