"""Whitened patches of images, for the stem of an encoder."""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from contrastive_jax.encoders.conv import conv2d

_SIDE = 3  # of a patch, in pixels


class Whitening(nn.Module):
    """Each 3 x 3 patch of an image, decorrelated: neighbouring pixels tell almost the same.

        y = (C + eps tr(C) / n I)^(-1/2) (patch - mean),   n = 9 x channels

    C is the covariance of patches that tile the images, averaged over the batches seen so far and
    later over the last ten or so; it is carried as batch statistics and nothing here is trained.
    The symmetric root moves little from step to step, where eigenvectors would swap and turn.

    Args of the module:
      use_running_average: leave C and the mean as they are, in evaluation.
      momentum: share of the old C once there are more than 1 / (1 - momentum) batches.
      epsilon: of the mean variance, added to each direction: how much noise is let through.

    Args of the call: images [B,H,W,C] float32, at least 3 pixels a side; the result is [B,H,W,9C].

    >>> layer = Whitening(use_running_average=False)
    >>> images = jax.random.uniform(jax.random.key(0), (2, 6, 6, 3))
    >>> variables = layer.init(jax.random.key(0), images)
    >>> y, variables = layer.apply(variables, images, mutable=["batch_stats"])
    >>> y.shape, variables["batch_stats"]["covariance"].shape
    ((2, 6, 6, 27), (27, 27))

    ZCA whitening: Kessy, Lewin, Strimmer 2018, arXiv 1512.00809. A first layer of whitened patches
    speeds up supervised training on CIFAR-10: Jordan 2024, arXiv 2404.00498, section 3.2.
    """

    use_running_average: bool
    momentum: float = 0.9
    epsilon: float = 1e-3

    @nn.compact
    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        channels = x_BHWC.shape[-1]
        n = _SIDE * _SIDE * channels
        carried: Any = functools.partial(self.variable, "batch_stats")
        mean = carried("mean", jnp.zeros, channels, jnp.float32)
        covariance = carried("covariance", jnp.eye, n, dtype=jnp.float32)
        batches = carried("batches", jnp.zeros, (), jnp.float32)
        if not self.use_running_average and not self.is_initializing():
            batches.value = batches.value + 1.0
            share = jnp.maximum(1.0 - self.momentum, 1.0 / batches.value)
            mean.value += share * (x_BHWC.mean(axis=(0, 1, 2)) - mean.value)
            seen = _covariance(_centred(x_BHWC, mean.value))
            covariance.value += share * (seen - covariance.value)
        root = _inverse_root(covariance.value, self.epsilon)
        kernel = lax.stop_gradient(root).reshape(_SIDE, _SIDE, channels, n)
        pad = ((_SIDE // 2, _SIDE // 2),) * 2
        return conv2d(_centred(x_BHWC, mean.value), kernel, 1, pad)


def _centred(x_BHWC: jax.Array, mean_C: jax.Array) -> jax.Array:
    return x_BHWC - mean_C[None, None, None]


def _covariance(x_BHWC: jax.Array) -> jax.Array:
    """Mean outer product of the patches that tile the images; rows are (row, column, channel)."""
    batch, height, width, channels = x_BHWC.shape
    rows, columns = height // _SIDE, width // _SIDE
    x = x_BHWC[:, : rows * _SIDE, : columns * _SIDE]
    tiles = x.reshape(batch, rows, _SIDE, columns, _SIDE, channels).swapaxes(2, 3)
    patches = tiles.reshape(math.prod(tiles.shape[:3]), -1)
    exact = lax.Precision.HIGHEST
    return jnp.matmul(patches.T, patches, precision=exact) / len(patches)


def _inverse_root(covariance: jax.Array, epsilon: float) -> jax.Array:
    """(C + epsilon tr(C) / n I)^(-1/2), zero where all images are of one colour."""
    values, vectors = jnp.linalg.eigh(covariance)
    floor = epsilon * jnp.trace(covariance) / len(covariance)
    scale = jnp.where(floor > 0, lax.rsqrt(jnp.maximum(values, 0.0) + floor), 0.0)
    return jnp.matmul(vectors * scale[None], vectors.T, precision=lax.Precision.HIGHEST)
