"""Stricter than production: 8 simulated devices, no implicit rank promotion."""

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def key() -> jax.Array:
    """A fresh root key; split or fold it, never reuse it."""
    return jax.random.key(0)
