"""Batch norm whose statistics are those of the whole batch, or of each of several parts of it."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def batch_norm(groups: int, train: bool, dtype: Any) -> Callable[..., nn.Module]:
    """The norm layer of an encoder or a head, to be called with a name or a `scale_init`.

    Args:
      groups: parts of the batch, in order, that are normalised apart; 1 for the whole batch.
      train: take the statistics of the batch, else the running ones.
      dtype: of the computation; parameters and statistics are float32.

    >>> layer = batch_norm(2, True, jnp.float32)()
    >>> variables = layer.init(jax.random.key(0), jnp.zeros((4, 3)))
    >>> y, _ = layer.apply(variables, jnp.arange(12.0).reshape(4, 3), mutable=["batch_stats"])
    >>> print(y[:, 0].round(2))
    [-1.  1. -1.  1.]
    """
    kind = nn.BatchNorm if groups == 1 else functools.partial(SplitBatchNorm, groups=groups)
    return functools.partial(kind, use_running_average=not train, momentum=0.9, dtype=dtype)


class SplitBatchNorm(nn.Module):
    """As if each part of the batch were on a device of its own, with local statistics.

    The running statistics are the means over the parts.
    """

    groups: int
    use_running_average: bool
    momentum: float
    dtype: Any
    epsilon: float = 1e-5
    scale_init: Callable[..., jax.Array] = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1:]
        mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)
        scale = self.param("scale", self.scale_init, channels, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, channels, jnp.float32)
        groups = 1 if self.use_running_average else self.groups
        if len(x) % groups:
            raise ValueError(f"norm_groups is {groups}, which does not divide {len(x)} views")
        parts = x.astype(jnp.float32).reshape(groups, -1, *channels)
        if self.use_running_average:
            mean_GC, var_GC = mean.value[None], var.value[None]
        else:
            mean_GC, var_GC = parts.mean(axis=1), parts.var(axis=1)
            if not self.is_initializing():
                for running, new in ((mean, mean_GC), (var, var_GC)):
                    kept = self.momentum * running.value
                    running.value = kept + (1.0 - self.momentum) * new.mean(axis=0)
        y = (parts - mean_GC[:, None]) * jax.lax.rsqrt(var_GC + self.epsilon)[:, None]
        y = y * scale[None, None] + bias[None, None]
        return y.reshape(x.shape).astype(self.dtype)
