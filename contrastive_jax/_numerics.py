"""Numeric pieces that every part shares: arrays of lists, unit vectors, exact products, safe roots.

Results are float32 unless said otherwise. Each function has a finite value and a finite gradient
where its textbook form has none: at zero vectors, at distance zero, at a sum over nothing.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Accelerators round float32 factors to TF32 or bfloat16 by default: 2 to 3 digits are lost, which
# reorders close neighbors, stalls a line search, and shows in small distances and in pixels.
EXACT = lax.Precision.HIGHEST

_TINY = 1e-37  # below this a float32 may already have been flushed to zero
_SHORTEST = 1e-30  # a direction has a gradient of 1 / length: shorter rows count as zero
_LARGEST = 1e15  # the square of it, summed over any number of features, is a float32


def as_array(name: str, x: Any) -> jax.Array:
    """Make an array of numbers of a list or a NumPy array, and never cut an integer.

    Raises:
      ValueError: no numbers, or integers beyond those that JAX holds (int32 without x64).

    >>> as_array("labels_B", [3, 4]).dtype
    dtype('int32')
    >>> as_array("labels_B", np.array([5, 5 + 2**32]))
    Traceback (most recent call last):
    ValueError: labels_B holds 4294967301, beyond int32: pass np.unique(labels_B,
    return_inverse=True)[1], or set jax_enable_x64.
    """
    if isinstance(x, jax.Array):
        return x
    if any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(x)):
        return jnp.asarray(x)
    host = as_numpy(name, x)
    array = jnp.asarray(host)
    if jnp.issubdtype(array.dtype, jnp.integer) and host.size:
        limits = jnp.iinfo(array.dtype)
        largest = max((host.min(), host.max()), key=lambda value: abs(int(value)))
        if not limits.min <= largest <= limits.max:
            raise ValueError(
                f"{name} holds {largest}, beyond {array.dtype}: pass np.unique({name}, "
                "return_inverse=True)[1], or set jax_enable_x64."
            )
    return array


def as_numpy(name: str, x: Any) -> np.ndarray:
    """Make a NumPy array of numbers of a list or an array.

    Raises:
      ValueError: not an array of numbers.

    >>> as_numpy("labels", ["cat", "dog"])
    Traceback (most recent call last):
    ValueError: labels is not an array of numbers: pass a list or array of one shape and dtype.
    """
    try:
        array = np.asarray(x)
        numbers = jnp.issubdtype(array.dtype, jnp.number) or array.dtype == bool
    except (ValueError, TypeError, OverflowError):  # rows of unequal length
        numbers = False
    if not numbers:
        raise ValueError(
            f"{name} is not an array of numbers: pass a list or array of one shape and dtype."
        )
    return array


def unit(x: jax.Array) -> jax.Array:
    """Scale rows to length one; a zero row stays zero and has a finite gradient.

        y_i = x_i / |x_i|

    Args:
      x: [..., D] of any float dtype.

    Returns:
      float32 like x.

    >>> unit(jnp.array([[3.0, 4.0], [0.0, 0.0]])).round(1)
    Array([[0.6, 0.8],
           [0. , 0. ]], dtype=float32)
    """
    x = x.astype(jnp.float32)
    # Dividing by the largest entry first keeps the squares from over- and underflowing; the
    # result does not depend on it, so its gradient is rightly left out.
    peak = lax.stop_gradient(jnp.max(jnp.abs(x), axis=-1, keepdims=True))
    x = x / jnp.where(peak > _SHORTEST, peak, 1.0)
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    return x * lax.rsqrt(jnp.where(square > _TINY, square, 1.0))


def dot(a: jax.Array, b: jax.Array, dtype: jax.typing.DTypeLike | None = None) -> jax.Array:
    """Multiply matrices without rounding their factors, on every backend.

    Args:
      a, b: as `jnp.matmul` takes them.
      dtype: of the sums; None for that of the factors.

    >>> float(dot(jnp.array([1.0, 1e-4]), jnp.array([1.0, 1.0])))
    1.000100016593933
    """
    return jnp.matmul(a, b, precision=EXACT, preferred_element_type=dtype)


def bounded(x: jax.Array, largest: float = _LARGEST) -> jax.Array:
    """Shrink rows with an entry beyond the largest to it, so that squares are finite; not NaN.

    >>> bounded(jnp.array([[1e30, 0.0], [2.0, 1.0]])).tolist()
    [[999999986991104.0, 0.0], [2.0, 1.0]]
    """
    x = x.astype(jnp.float32)
    peak = lax.stop_gradient(jnp.max(jnp.abs(x), axis=-1, keepdims=True, initial=0.0))
    return x * jnp.where(peak > largest, largest / peak, 1.0)


def safe_sqrt(x: jax.Array) -> jax.Array:
    """Take the square root; 0 with gradient 0 where x <= 0.

    >>> float(jax.grad(safe_sqrt)(0.0)), float(safe_sqrt(jnp.float32(4.0)))
    (0.0, 2.0)
    """
    positive = x > _TINY
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)


def euclidean(x: jax.Array, y: jax.Array) -> jax.Array:
    """Measure the distance along the last axis; its gradient at distance zero is zero.

    >>> float(euclidean(jnp.zeros(2), jnp.array([3.0, 4.0])))
    5.0
    """
    gap = bounded(x) - bounded(y)
    return safe_sqrt(jnp.sum(gap * gap, axis=-1))


def log_sum_exp(x: jax.Array, axis: int = -1) -> jax.Array:
    """Compute log sum exp; -inf with gradient 0 over nothing but -inf, where JAX's gives NaN.

    >>> float(log_sum_exp(jnp.full(3, -jnp.inf)))
    -inf
    """
    peak = lax.stop_gradient(jnp.max(x, axis=axis, keepdims=True))
    peak = jnp.where(jnp.isfinite(peak), peak, 0.0)
    total = jnp.sum(jnp.exp(x - peak), axis=axis)
    empty = total == 0
    log_total = jnp.log(jnp.where(empty, 1.0, total)) + jnp.squeeze(peak, axis)
    return jnp.where(empty, -jnp.inf, log_total)


def softplus(x: jax.Array) -> jax.Array:
    """Compute log(1 + e^x); 0 with gradient 0 at -inf.

    >>> float(softplus(jnp.float32(-jnp.inf)))
    0.0
    """
    return jnp.maximum(x, 0.0) + jnp.log1p(jnp.exp(-jnp.abs(x)))
