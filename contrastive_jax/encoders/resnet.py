"""ResNets up to the pooled features: the encoder f(.) of SimCLR.

He et al. 2016, arXiv 1512.03385, with the stride on the 3x3 convolution of the bottleneck, as
torchvision does it. The last norm scale of each block starts at zero (Goyal et al. 2017,
arXiv 1706.02677, section 5.1), so that a block starts as the identity.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from contrastive_jax.encoders import inputs
from contrastive_jax.encoders.batch_norm import batch_norm
from contrastive_jax.encoders.conv import Conv
from contrastive_jax.encoders.inputs import require


class Architecture(NamedTuple):
    blocks: tuple[int, ...]  # blocks in each stage
    bottleneck: bool


ARCHITECTURES = {
    10: Architecture((1, 1, 1, 1), bottleneck=False),
    18: Architecture((2, 2, 2, 2), bottleneck=False),
    34: Architecture((3, 4, 6, 3), bottleneck=False),
    50: Architecture((3, 4, 6, 3), bottleneck=True),
    101: Architecture((3, 4, 23, 3), bottleneck=True),
    152: Architecture((3, 8, 36, 3), bottleneck=True),
}
STEMS = ("cifar", "stride2", "imagenet")


def make(
    depth: int = 18,
    stem: str = "cifar",
    width: float = 1.0,
    stages: int = 4,
    dtype: str = "float32",
    norm_groups: int = 1,
    bottleneck_width: float = 1.0,
    remat: bool = False,
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
) -> "ResNet":
    """Make a ResNet from images [B,H,W,C] to features [B,F] by the keys of the config's `encoder`.

    Args:
      depth: 10, 18, 34 (basic blocks), 50, 101 or 152 (bottlenecks).
      stem: "cifar" is 3x3 with stride 1; "stride2" is 3x3 with stride 2, which costs a quarter;
        "imagenet" is 7x7 with stride 2 and a 3x3 max-pool.
      width: multiplies every channel count; 1.0 starts with 64 channels.
      stages: how many of the four stages to keep; each halves the side and doubles the channels.
      dtype: "float32" or "bfloat16" for the computation; parameters and statistics are float32.
      norm_groups: parts of the batch with separate statistics, as if each were alone on a device;
        1 is the global batch.
      bottleneck_width: multiplies the channels within a bottleneck; 2 with depth 50 or 101 is the
        wide ResNet of torchvision (arXiv 1605.07146).
      remat: compute each block again in the backward pass: less memory, about a third more work.
      mean, std: of each channel, or one for all: images become (x - mean) / std first.

    Raises:
      ValueError: an unknown depth, stem or dtype, or a width or number of stages out of range.

    >>> encoder = make(depth=10, stem="stride2", width=0.25, stages=2)
    >>> x_BHWC = jnp.zeros((4, 32, 32, 3))
    >>> init, apply = (jax.jit(f, static_argnames="train") for f in (encoder.init, encoder.apply))
    >>> variables = init(jax.random.key(0), x_BHWC, train=False)
    >>> apply(variables, x_BHWC, train=False).shape
    (4, 32)
    """
    require(depth in ARCHITECTURES, "depth", depth, f"one of {sorted(ARCHITECTURES)}")
    require(stem in STEMS, "stem", stem, f"one of {STEMS}")
    require(0 < width <= 64, "width", width, "a multiplier such as 1.0 or 0.5")
    require(stages in (1, 2, 3, 4), "stages", stages, "1, 2, 3 or 4")
    channels = round(64 * width)
    require(channels >= 1, "width", width, "large enough for one channel of 64 * width")
    require(norm_groups >= 1, "norm_groups", norm_groups, "at least 1")
    architecture = ARCHITECTURES[depth]
    blocks = architecture.blocks[:stages]
    plain = architecture.bottleneck or bottleneck_width == 1
    require(plain, "bottleneck_width", bottleneck_width, f"1.0: depth {depth} has no bottlenecks")
    inner = round(channels * bottleneck_width) if architecture.bottleneck else None
    require(inner is None or inner >= 1, "bottleneck_width", bottleneck_width, "a larger one")
    computed, normalization = inputs.computed_dtype(dtype), inputs.normalization(mean, std)
    return ResNet(blocks, inner, stem, channels, computed, norm_groups, remat, normalization)


class ResNet(nn.Module):
    blocks: tuple[int, ...]
    inner: int | None  # channels within a bottleneck of the first stage; None for basic blocks
    stem: str
    channels: int
    dtype: jnp.dtype
    norm_groups: int
    remat: bool
    normalization: inputs.Normalization

    @nn.compact
    def __call__(self, x_BHWC: jax.Array, *, train: bool) -> jax.Array:
        norm = batch_norm(self.norm_groups, train, self.dtype)
        conv = functools.partial(Conv, dtype=self.dtype)
        block: Any = Basic if self.inner is None else Bottleneck
        block = functools.partial(nn.remat(block) if self.remat else block, norm=norm, conv=conv)

        x_BHWC = inputs.normalized(x_BHWC, self.normalization)
        size, stride = {"cifar": (3, 1), "stride2": (3, 2), "imagenet": (7, 2)}[self.stem]
        x = conv(self.channels, size, stride, name="stem_conv")(x_BHWC)
        x = nn.relu(norm(name="stem_norm")(x))
        if self.stem == "imagenet":
            edges: Any = ((1, 1), (1, 1))  # flax annotates its padding as a name only
            x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=edges)
        for stage, count in enumerate(self.blocks):
            for i in range(count):
                stride = 2 if stage > 0 and i == 0 else 1
                name = f"stage{stage + 1}_block{i + 1}"
                x = block(self.channels * 2**stage, self._inner(stage), stride, name=name)(x)
        return jnp.mean(x, axis=(1, 2), dtype=jnp.float32)

    def _inner(self, stage: int) -> int:
        return (self.inner or self.channels) * 2**stage


class Basic(nn.Module):
    channels: int
    inner: int
    stride: int
    norm: Callable[..., nn.Module]
    conv: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.conv(self.inner, 3, self.stride)(x)
        y = nn.relu(self.norm()(y))
        y = self.conv(self.channels, 3)(y)
        y = self.norm(scale_init=nn.initializers.zeros)(y)
        return nn.relu(_shortcut(self, x, y) + y)


class Bottleneck(nn.Module):
    channels: int
    inner: int
    stride: int
    norm: Callable[..., nn.Module]
    conv: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.relu(self.norm()(self.conv(self.inner, 1)(x)))
        y = nn.relu(self.norm()(self.conv(self.inner, 3, self.stride)(y)))
        y = self.conv(4 * self.channels, 1)(y)
        y = self.norm(scale_init=nn.initializers.zeros)(y)
        return nn.relu(_shortcut(self, x, y) + y)


def _shortcut(block: Basic | Bottleneck, x: jax.Array, y: jax.Array) -> jax.Array:
    """The input, projected where the block changes its shape."""
    if x.shape == y.shape:
        return x
    x = block.conv(y.shape[-1], 1, block.stride, name="shortcut_conv")(x)
    return block.norm(name="shortcut_norm")(x)
