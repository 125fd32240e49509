"""Metrics as plain numbers of Python, for every sink alike."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def scalars(metrics: Mapping[str, Any]) -> dict[str, int | float]:
    """Fetch the metrics from the devices, as numbers by name in alphabetical order.

    Args:
      metrics: one number each: of Python, NumPy or JAX.

    Raises:
      ValueError: a metric is not one number, or is named "step".

    >>> scalars({"loss": jnp.float32(2.5), "count": 3})
    {'count': 3, 'loss': 2.5}
    """
    if "step" in metrics:
        raise ValueError("a metric is named 'step', the key of the row: rename it.")
    host = jax.device_get(dict(metrics))
    return {name: _scalar(name, host[name]) for name in sorted(host)}


def _scalar(name: str, value: Any) -> int | float:
    array = np.asarray(value)
    if array.shape or not (jnp.issubdtype(array.dtype, jnp.number) or array.dtype == bool):
        raise ValueError(
            f"metric {name!r} has shape {array.shape} and dtype {array.dtype}: log one number."
        )
    return array.item()
