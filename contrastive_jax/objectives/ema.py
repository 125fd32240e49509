"""A slowly moving copy of encoder and head: the target of BYOL and MoCo, the teacher of DINO.

    theta' <- tau theta' + (1 - tau) theta

It lives in the model state, {"params", "statistics"}, with batch statistics of its own.
"""

import jax
import jax.numpy as jnp
import optax

from contrastive_jax.types import ModelState, Params


def check(method: str, momentum: float) -> None:
    """Refuse a momentum that is no share.

    Raises:
      ValueError: outside [0, 1].
    """
    if not 0 <= momentum <= 1:
        raise ValueError(f"{method} momentum is {momentum}; give a number from 0 to 1")


def copy(params: Params, statistics: ModelState, names: tuple[str, ...]) -> ModelState:
    """Start a target as a copy of the named parts."""
    parts = {name: params[name] for name in names if name in params}
    statistics = {name: statistics[name] for name in names}
    return jax.tree.map(jnp.copy, {"params": parts, "statistics": statistics})


def cosine(momentum: float, step: jax.Array, steps: int) -> jax.Array:
    """Compute the momentum of a step, which rises from its first value to 1.

    tau_k = 1 - (1 - tau_0) (cos(pi k / K) + 1) / 2

    >>> taus = [float(cosine(0.9, jnp.array(k), 10)) for k in (0, 5, 10)]
    >>> [round(tau, 3) for tau in taus]
    [0.9, 0.95, 1.0]

    Grill et al. 2020 (BYOL, arXiv 2006.07733), section 3.3.
    """
    falling = (jnp.cos(jnp.pi * step.astype(jnp.float32) / steps) + 1) / 2
    return 1 - (1 - momentum) * falling


def follow(
    target: ModelState, params: Params, momentum: float, step: jax.Array, steps: int
) -> ModelState:
    """Move the target by the last step's momentum, at the start of a step.

    The papers move it at the end of a step, when the new parameters are known; a loss sees those
    when the next step starts. At step 0 the target still equals the parameters.
    """
    return move(target, params, cosine(momentum, jnp.maximum(step - 1, 0), steps))


def move(target: ModelState, params: Params, momentum: jax.Array | float) -> ModelState:
    """Move the target once: theta' <- tau theta' + (1 - tau) theta."""
    fast = {name: jax.lax.stop_gradient(params[name]) for name in target["params"]}
    return {**target, "params": optax.incremental_update(fast, target["params"], 1 - momentum)}
