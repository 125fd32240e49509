"""Batch norm with statistics of the whole batch, or of each of several parts of it."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax


def batch_norm(groups: int, train: bool, dtype: Any) -> Callable[..., nn.Module]:
    """Make the norm layer of an encoder or a head, to be called with a name or a `scale_init`.

    Args:
      groups: parts of the batch, in order, that are normalized separately; 1 for the whole batch.
      train: take the statistics of the batch, else the running ones.
      dtype: of the computation; parameters and statistics are float32.

    >>> layer = batch_norm(2, True, jnp.float32)()
    >>> variables = layer.init(jax.random.key(0), jnp.zeros((4, 3)))
    >>> y, _ = layer.apply(variables, jnp.arange(12.0).reshape(4, 3), mutable=["batch_stats"])
    >>> print(y[:, 0].round(2))
    [-1.  1. -1.  1.]
    """
    settings = {"use_running_average": not train, "momentum": 0.9, "dtype": dtype}
    return functools.partial(BatchNorm, groups=groups, **settings)


class BatchNorm(nn.Module):
    """Batch norm; each of the groups as if it were alone on a device, with local statistics.

    The running statistics are the means over the groups.
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
        if self.use_running_average:
            inverse = lax.rsqrt(var.value + self.epsilon)
            return _affine(x, scale * inverse, mean.value, bias).astype(self.dtype)
        if len(x) % self.groups:
            raise ValueError(f"norm_groups is {self.groups}, which does not divide {len(x)} views")

        def normalize_one_group(part: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            return normalize(part, scale, bias, self.epsilon)

        if self.groups == 1:
            y, mean_C, var_C = normalize_one_group(x)
        else:
            x_GNC = x.reshape(self.groups, -1, *channels)
            y, mean_GC, var_GC = jax.vmap(normalize_one_group)(x_GNC)
            mean_C, var_C = mean_GC.mean(axis=0), var_GC.mean(axis=0)
        if not self.is_initializing():
            for running, new in ((mean, mean_C), (var, var_C)):
                running.value = self.momentum * running.value + (1.0 - self.momentum) * new
        return y.reshape(x.shape).astype(self.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalize(
    x: jax.Array, scale_C: jax.Array, bias_C: jax.Array, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalize each channel by its own mean and variance over all other axes.

        y = scale (x - mean) / sqrt(var + epsilon) + bias

    Of the size of x it keeps nothing but x for the gradient. On CPUs, where it was measured, the
    gradient is written out: two sums over x and the incoming gradient, then one pass for the
    gradient of x. Elsewhere JAX derives it from x anew.

    Args:
      x: [..., C], float32 or bfloat16.
      scale_C, bias_C: float32.
      epsilon: added to the variance.

    Returns:
      y like x, and the mean and the (biased) variance [C] in float32.

    >>> y, mean, var = normalize(jnp.array([[1.0], [3.0]]), jnp.ones(1), jnp.zeros(1), 0.0)
    >>> print(y[:, 0], mean, var)
    [-1.  1.] [2.] [1.]

    Ioffe and Szegedy 2015, arXiv 1502.03167, algorithm 1 and the gradients below it.
    """
    return _forward(x, scale_C, bias_C, epsilon)[0]


def _forward(x, scale_C, bias_C, epsilon):
    axes, x32 = tuple(range(x.ndim - 1)), x.astype(jnp.float32)
    mean_C = x32.mean(axes)
    var_C = jnp.maximum(jnp.square(x32).mean(axes) - jnp.square(mean_C), 0.0)
    inverse_C = lax.rsqrt(var_C + epsilon)
    y = _affine(x, scale_C * inverse_C, mean_C, bias_C).astype(x.dtype)
    return (y, mean_C, var_C), (x, scale_C, bias_C, mean_C, inverse_C)


def _backward(epsilon, saved, grads):
    def derived(saved, grads):
        x, scale_C, bias_C, *_ = saved
        plain = lambda x, scale_C, bias_C: _forward(x, scale_C, bias_C, epsilon)[0]  # noqa: E731
        return jax.vjp(plain, x, scale_C, bias_C)[1](grads)

    return lax.platform_dependent(saved, grads, cpu=_written_out, default=derived)


def _written_out(saved, grads):
    x, scale_C, _, mean_C, inverse_C = saved
    grad, grad_mean_C, grad_var_C = grads
    axes, count = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
    x32, grad = x.astype(jnp.float32), grad.astype(jnp.float32)
    grad_bias_C = grad.sum(axes)
    grad_scale_C = (grad * (x32 - _wide(mean_C, x))).sum(axes) * inverse_C
    slope_C = scale_C * inverse_C
    # Each of these is the same for every row: x counts through the variance, the rest through both.
    of_x_C = (2.0 * grad_var_C - slope_C * inverse_C * grad_scale_C) / count
    level_C = (grad_mean_C - slope_C * grad_bias_C) / count - of_x_C * mean_C
    grad_x = grad * _wide(slope_C, x) + x32 * _wide(of_x_C, x) + _wide(level_C, x)
    return grad_x.astype(x.dtype), grad_scale_C, grad_bias_C


normalize.defvjp(_forward, _backward)


def _affine(x, slope_C, mean_C, bias_C):
    """slope (x - mean) + bias in float32, as one multiplication and one addition."""
    shift_C = bias_C - mean_C * slope_C
    return x.astype(jnp.float32) * _wide(slope_C, x) + _wide(shift_C, x)


def _wide(array_C, x):
    return array_C.reshape((1,) * (x.ndim - 1) + array_C.shape)
