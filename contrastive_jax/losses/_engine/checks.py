"""What the losses share: trace-time checks, safe norms and distances, rows of a mapped axis."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

_TINY = 1e-37  # below this a float32 may already have been flushed to zero
_SHORTEST = 1e-30  # a direction has a gradient of 1 / length: shorter rows count as zero
_LARGEST = 1e15  # the square of it, summed over any number of features, is a float32


def unit(x: jax.Array) -> jax.Array:
    """Rows of length one, in float32; a zero row stays zero and has a finite gradient."""
    x = x.astype(jnp.float32)
    # Dividing by the largest entry first keeps the squares from over- and underflowing; the
    # result does not depend on it, so its gradient is rightly left out.
    peak = lax.stop_gradient(jnp.max(jnp.abs(x), axis=-1, keepdims=True))
    x = x / jnp.where(peak > _SHORTEST, peak, 1.0)
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    return x * lax.rsqrt(jnp.where(square > _TINY, square, 1.0))


def bounded(x: jax.Array, largest: float = _LARGEST) -> jax.Array:
    """Rows in float32; where an entry is beyond the largest the row is shrunk to it, not NaN."""
    x = x.astype(jnp.float32)
    peak = lax.stop_gradient(jnp.max(jnp.abs(x), axis=-1, keepdims=True, initial=0.0))
    return x * jnp.where(peak > largest, largest / peak, 1.0)


def safe_sqrt(x: jax.Array) -> jax.Array:
    """The square root, 0 with gradient 0 where x <= 0."""
    positive = x > _TINY
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)


def euclidean(x: jax.Array, y: jax.Array) -> jax.Array:
    """Distance along the last axis, in float32; its gradient at distance zero is zero."""
    gap = bounded(x) - bounded(y)
    return safe_sqrt(jnp.sum(gap * gap, axis=-1))


def log_sum_exp(x: jax.Array, axis: int = -1) -> jax.Array:
    """log sum exp, -inf with gradient 0 over nothing but -inf (where the stock one gives NaN)."""
    peak = lax.stop_gradient(jnp.max(x, axis=axis, keepdims=True))
    peak = jnp.where(jnp.isfinite(peak), peak, 0.0)
    total = jnp.sum(jnp.exp(x - peak), axis=axis)
    empty = total == 0
    log_total = jnp.log(jnp.where(empty, 1.0, total)) + jnp.squeeze(peak, axis)
    return jnp.where(empty, -jnp.inf, log_total)


def softplus(x: jax.Array) -> jax.Array:
    """log(1 + e^x), 0 with gradient 0 at -inf."""
    return jnp.maximum(x, 0.0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


def gather(tree: Any, axis_name: str | None) -> Any:
    """The rows of all devices along the mapped axis, or the tree as it is without one."""
    if axis_name is None:
        return tree
    return jax.tree.map(lambda x: lax.all_gather(x, axis_name, axis=0, tiled=True), tree)


def global_index(n: int, axis_name: str | None) -> jax.Array:
    """int32 [n]: where this device's n rows stand among the rows of all devices."""
    index = jnp.arange(n, dtype=jnp.int32)
    return index if axis_name is None else index + n * lax.axis_index(axis_name)


def check_embedding(name: str, x: jax.Array, dims: str) -> None:
    """`dims` spells the axes, a letter each."""
    if jnp.ndim(x) != len(dims):
        raise ValueError(
            f"{name} has shape {jnp.shape(x)}, expected [{','.join(dims)}]: reshape it."
        )
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"{name} has dtype {x.dtype}, expected a float dtype: cast it.")
    if 0 in (x.shape[0], x.shape[-1]):
        raise ValueError(f"{name} has shape {x.shape}: pass at least one row and one feature.")


def check_shapes(name: str, x: jax.Array, other_name: str, shape: tuple[int, ...]) -> None:
    if jnp.shape(x) != shape:
        raise ValueError(
            f"{name} has shape {jnp.shape(x)}, but {other_name} asks for {shape}: "
            "pass rows that belong together."
        )


def check_labels(name: str, labels: jax.Array, other_name: str, batch: int) -> None:
    check_shapes(name, labels, other_name, (batch,))
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"{name} has dtype {labels.dtype}, expected integers: cast to int32.")


def check_positive(name: str, value: Any, *, or_zero: bool = False) -> None:
    """A traced value is trusted to be positive: it is not known yet."""
    if jnp.ndim(value) != 0:
        raise ValueError(f"{name} has shape {jnp.shape(value)}, expected a scalar: index it.")
    try:
        number = float(value)
    except jax.errors.ConcretizationTypeError:
        return
    least = "of at least" if or_zero else "above"
    if not (0 < number < math.inf or (or_zero and number == 0)):
        raise ValueError(f"{name} is {value}, expected a finite number {least} 0: raise it.")


def check_block_size(block_size: int | None) -> None:
    if block_size is None:
        return
    if isinstance(block_size, bool) or not isinstance(block_size, int) or block_size < 1:
        raise ValueError(
            f"block_size is {block_size!r}, expected an int of at least 1 (1024 is a good start), "
            "or None for the dense form."
        )


def check_option(name: str, value: Any, options: tuple[str, ...]) -> None:
    if value not in options:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(map(repr, options))}.")
