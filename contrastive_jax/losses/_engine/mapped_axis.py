"""Rows of a batch that is sharded over a mapped axis: gather them, number them."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def gather(tree: Any, axis_name: str | None) -> Any:
    """The rows of all devices along the mapped axis, or the tree as it is without one."""
    if axis_name is None:
        return tree
    return jax.tree.map(lambda x: lax.all_gather(x, axis_name, axis=0, tiled=True), tree)


def global_index(n: int, axis_name: str | None) -> jax.Array:
    """int32 [n]: the places of this device's n rows among the rows of all devices."""
    index = jnp.arange(n, dtype=jnp.int32)
    return index if axis_name is None else index + n * lax.axis_index(axis_name)
