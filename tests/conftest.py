"""Stricter than production: 8 simulated devices, no implicit rank promotion."""

import atexit
import gc
import os
import shutil
import signal
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import compiled

ROOT = Path(__file__).parents[1]
CACHE = "JAX_COMPILATION_CACHE_DIR"
if CACHE not in os.environ:  # workers and commands inherit it: what one compiles serves all
    os.environ[CACHE] = tempfile.mkdtemp(prefix="contrastive_jax-tests-")
    atexit.register(shutil.rmtree, os.environ[CACHE], ignore_errors=True)

os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ.setdefault("XLA_FLAGS", " ".join(compiled.QUICKLY))

import jax  # noqa: E402  reads the environment

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


LONGEST_FIRST = (  # so that all workers end together
    "tests/experiments/test_methods.py",
    "tests/faults/",
    "tests/golden/",
    "tests/test_docs.py",
    "tests/experiments/",
    "tests/augment/",
    "tests/evaluation/",
    "tests/losses/",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_place)


def pytest_collection_finish() -> None:
    """Look for garbage seldom: what imports and tracing make stays, and costs each search."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def _place(item: pytest.Item) -> int:
    path = item.path.relative_to(ROOT).as_posix()
    places = [i for i, start in enumerate(LONGEST_FIRST) if path.startswith(start)]
    return min(places, default=len(LONGEST_FIRST))


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
