"""Metrics as plain numbers of Python, and sinks that may fail without stopping a run."""

import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_log = logging.getLogger(__name__)


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
    host = {name: np.asarray(value) for name, value in jax.device_get(dict(metrics)).items()}
    for name, array in host.items():
        if array.shape or not (jnp.issubdtype(array.dtype, jnp.number) or array.dtype == bool):
            raise ValueError(
                f"metric {name!r} has shape {array.shape} and dtype {array.dtype}: log one number."
            )
    return {name: host[name].item() for name in sorted(host)}


class Sink:
    """Where rows go beside metrics.jsonl: one that fails warns once and is dropped.

    A subclass opens `_target`, sends numbers to it, and finishes it.
    """

    name = ""
    _target: Any = None

    def _send(self, step: int, numbers: Mapping[str, int | float]) -> None:
        raise NotImplementedError

    def _finish(self, target: Any) -> None:
        raise NotImplementedError

    def write(self, step: int, row: Mapping[str, Any]) -> None:
        """Add the scalars of `step`."""
        numbers = scalars(row)
        if self._target is not None:
            try:
                self._send(step, numbers)
            except Exception as error:
                self._drop(error)

    def close(self) -> None:
        """Finish; again is harmless."""
        target, self._target = self._target, None
        if target is not None:
            with suppress(Exception):  # each row was sent: nothing is pending
                self._finish(target)

    def _drop(self, error: Exception) -> None:
        message = str(error).partition("\n")[0] or type(error).__name__
        _log.warning("%s stops here (%s); metrics.jsonl goes on.", self.name, message)
        self.close()
