"""Methods, one file each: `make(...)` returns an `Objective` for `contrastive_jax.training`."""
