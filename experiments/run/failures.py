"""Failures of training: running out of memory, and numbers that are not finite."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax

from contrastive_jax.errors import NonFiniteError, OutOfMemoryError
from contrastive_jax.storage import workdir
from contrastive_jax.types import Feed
from experiments.run import multihost

KEPT_STEPS = 100  # of a non-finite run, whose examples are written down


@contextmanager
def memory_explained(batch_size: int, devices: int) -> Iterator[None]:
    """Turn a failed allocation into an error that says what to make smaller.

    Raises:
      OutOfMemoryError: the block ran out of memory, on a device or on the host.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise OutOfMemoryError(
            f"Out of memory with {batch_size} examples a batch, {batch_size // devices} a device.\n"
            "Make data.batch_size, eval.batch_size or the encoder smaller, or use more devices.\n"
            "The last checkpoint stands."
        ) from error


@contextmanager
def nonfinite_recorded(feed: Feed, path: Path) -> Iterator[None]:
    """Write the examples of the steps in which training stopped being finite.

    The last KEPT_STEPS of them, as {"steps": [...], "index": [[...], ...]}: rows of the training
    set, in the order of the batch.
    """
    try:
        yield
    except NonFiniteError as error:
        steps = list(error.steps)[-KEPT_STEPS:]
        if multihost.is_first():
            batches = [feed.batch_at(step - 1) for step in steps]
            index = [batch["index"].tolist() for batch in batches if "index" in batch]
            workdir.write_json(path, {"steps": steps, "index": index})
        raise
