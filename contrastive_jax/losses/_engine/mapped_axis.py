"""Rows of a batch that is sharded over a mapped axis: gather them, number them."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def gather(tree: Any, axis_name: str | None) -> Any:
    """The rows of all devices along the mapped axis, or the tree as it is without one."""
    if axis_name is None:
        return tree
    check_axis(axis_name)
    return jax.tree.map(lambda x: lax.all_gather(x, axis_name, axis=0, tiled=True), tree)


def global_index(n: int, axis_name: str | None) -> jax.Array:
    """int32 [n]: the places of this device's n rows among the rows of all devices."""
    index = jnp.arange(n, dtype=jnp.int32)
    if axis_name is None:
        return index
    check_axis(axis_name)
    return index + n * lax.axis_index(axis_name)


def check_axis(axis_name: Any) -> None:
    """Raise ValueError unless the axis is mapped here."""
    try:
        lax.axis_size(axis_name)
    except (NameError, TypeError):
        raise ValueError(
            f"axis_name is {axis_name!r}, but no such axis is mapped here: call the loss through "
            "parallel.shard_loss, or inside jax.shard_map."
        ) from None
