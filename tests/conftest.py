"""Stricter than production: 8 simulated devices, no implicit rank promotion."""

import signal
from contextlib import contextmanager
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parents[1]

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def key() -> jax.Array:
    """A fresh root key; split or fold it, never reuse it."""
    return jax.random.key(0)


@pytest.fixture
def in_the_repository():
    """Commands run from its root; the signals that they take over are given back."""
    with _in_the_repository():
        yield


@pytest.fixture(scope="module")
def in_the_repository_of_a_module():
    """The same for all of a module."""
    with _in_the_repository():
        yield


@contextmanager
def _in_the_repository():
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = [signal.getsignal(number) for number in numbers]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        yield
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)
    signal.set_wakeup_fd(-1)
