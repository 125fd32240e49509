"""Methods, one page each: `make(...)` returns an `Objective` for `contrastive_jax.train`."""
