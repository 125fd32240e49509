"""Checks of a loss's arguments when it is traced: each raises a ValueError with the remedy.

Those of numbers return what they have checked, as the loss computes with it.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from contrastive_jax._numerics import as_array


def arrays(**named: Any) -> Any:
    """The arguments as arrays, in order: lists are taken."""
    return [as_array(name, x) for name, x in named.items()]


def check_embedding(name: str, x: jax.Array, dims: str) -> None:
    """`dims` spells the axes, a letter each."""
    x = as_array(name, x)
    if x.ndim != len(dims):
        raise ValueError(f"{name} has shape {x.shape}, expected [{','.join(dims)}]: reshape it.")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"{name} has dtype {x.dtype}, expected a float dtype: cast it.")
    if 0 in (x.shape[0], x.shape[-1]):
        raise ValueError(f"{name} has shape {x.shape}: pass at least one row and one feature.")


def check_shapes(name: str, x: jax.Array, other_name: str, shape: tuple[int, ...]) -> None:
    if jnp.shape(x) != shape:
        raise ValueError(
            f"{name} has shape {jnp.shape(x)}, but {other_name} asks for {shape}: "
            "pass matching rows."
        )


def check_labels(name: str, labels: jax.Array, other_name: str, batch: int) -> None:
    labels = as_array(name, labels)
    check_shapes(name, labels, other_name, (batch,))
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"{name} has dtype {labels.dtype}, expected integers: cast to int32.")


def check_number(name: str, value: Any) -> Any:
    """A scalar, which becomes a float, or a float32 array where it is traced."""
    scalar_types = int | float | np.number | np.ndarray | jax.Array
    if not isinstance(value, scalar_types) or isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}, expected a number.")
    if jnp.ndim(value) != 0:
        raise ValueError(f"{name} has shape {jnp.shape(value)}, expected a scalar: index it.")
    dtype = jnp.result_type(value)
    if not (jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)):
        raise ValueError(f"{name} has dtype {dtype}, expected a real number: cast it.")
    number = _read(value)
    if number is not None and not math.isfinite(number):
        raise ValueError(f"{name} is {value}, expected a finite number.")
    return value.astype(jnp.float32) if isinstance(value, Tracer) else float(value)


def check_positive(name: str, value: Any, *, or_zero: bool = False) -> Any:
    """A number above 0; a traced one is trusted, since it is not known yet."""
    checked = check_number(name, value)
    number = _read(value)
    if number is not None and not (number > 0 or (or_zero and number == 0)):
        least = "of at least" if or_zero else "above"
        raise ValueError(f"{name} is {value}, expected a finite number {least} 0: raise it.")
    return checked


def check_between(name: str, value: Any, low: float, high: float) -> Any:
    """A number from low to high; a traced one is trusted."""
    checked = check_number(name, value)
    number = _read(value)
    if number is not None and not low <= number <= high:
        raise ValueError(f"{name} is {value}, expected a number from {low:g} to {high:g}.")
    return checked


def check_below(name: str, value: Any, limit: float) -> Any:
    """A number that `check_positive` has checked, and the end that it must not reach."""
    number = _read(value)
    if number is not None and number >= limit:
        raise ValueError(f"{name} is {value}, expected a number below {limit}: lower it.")
    return value


def check_flag(name: str, value: Any) -> None:
    if isinstance(value, Tracer):
        raise ValueError(
            f"{name} is traced, but chooses what is compiled: "
            f"name it in jax.jit(..., static_argnames={name!r})."
        )
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} is {value!r}, expected True or False.")


def check_block_size(block_size: Any) -> None:
    if block_size is None:
        return
    if isinstance(block_size, Tracer):
        raise ValueError(
            "block_size is traced, but shapes depend on it: "
            "name it in jax.jit(..., static_argnames='block_size')."
        )
    integer = isinstance(block_size, int | np.integer) and not isinstance(block_size, bool)
    if not integer or block_size < 1:
        raise ValueError(
            f"block_size is {block_size!r}, expected an int of at least 1 (1024 is a good start), "
            "or None for the dense form."
        )


def check_option(name: str, value: Any, options: tuple[str, ...]) -> None:
    if value not in options:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(map(repr, options))}.")


def _read(value: Any) -> float | None:
    """The number, None while it is traced."""
    try:
        return float(value)
    except jax.errors.ConcretizationTypeError:
        return None
