"""Contrastive learning in JAX. Import what you use: `from contrastive_jax import losses`."""

__version__ = "0.1.0"
