"""Checks of a loss's arguments when it is traced: each raises a ValueError with the remedy."""

import math
from typing import Any

import jax
import jax.numpy as jnp


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
            "pass matching rows."
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
