"""Wrappers of a loss: nested embedding sizes (Matryoshka), a learned temperature."""

import functools
import operator
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp

from contrastive_jax._numerics import as_array
from contrastive_jax.losses._engine.checks import check_number, check_positive


def matryoshka(
    loss: Callable[..., jax.Array],
    *embeddings: jax.Array,
    dims: Iterable[int],
    weights: Iterable[float] | None = None,
) -> jax.Array:
    """Apply a loss to nested prefixes of the embeddings, so that each prefix is an embedding.

        total = sum_d w_d loss(x[..., :d], y[..., :d], ...)

    Use it where embeddings will be cut short for a cheaper index.

    Args:
      loss: embeddings -> per-anchor losses; hold further arguments by `functools.partial`.
      embeddings: arrays whose last axis is D.
      dims: the sizes d, from 1 to D.
      weights: w_d, one for each size; all 1 when None, as in the paper.

    Returns:
      What the loss gives, float32 per anchor.

    Raises:
      ValueError: a size outside 1 to D, or weights that do not match the sizes.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> z = jnp.ones((4, 2, 8))
      >>> print(f"{losses.matryoshka(losses.nt_xent, z, dims=(2, 8)).mean():.3f}")  # 2 log(2B - 1)
      3.892

    Reference: Kusupati et al., Matryoshka Representation Learning, NeurIPS 2022, equation 1
    (arXiv 2205.13147).
    """
    embeddings = tuple(as_array("embeddings", x) for x in embeddings)
    dims = _integers("dims", dims)
    weights = [1.0] * len(dims) if weights is None else list(weights)
    weights = [check_number("weights", weight) for weight in weights]
    D = min(x.shape[-1] for x in embeddings)
    if not dims or min(dims) < 1 or max(dims) > D:
        raise ValueError(f"dims are {dims}, expected sizes from 1 to {D}: change them.")
    if len(weights) != len(dims):
        raise ValueError(f"{len(weights)} weights for {len(dims)} dims: give one for each.")
    parts = [
        w * loss(*(x[..., :d] for x in embeddings)) for d, w in zip(dims, weights, strict=True)
    ]
    return functools.reduce(jnp.add, parts)


def learned_temperature(log_scale: jax.Array, max_scale: float = 100.0) -> jax.Array:
    """Compute the temperature of a learned log scale, kept from falling below a limit.

        temperature = 1 / min(exp(log_scale), max_scale)

    At the limit a gradient that would raise the scale further is dropped, and one that lowers it
    passes, so that the parameter neither runs away nor gets stuck. This rule is for reverse mode:
    there is no `jvp`.

    Use it where the temperature is a parameter of the model, as in CLIP.

    Args:
      log_scale: float32 [], trained; CLIP starts at log(1 / 0.07).
      max_scale: the largest 1 / temperature, above 0.

    Returns:
      float32 [].

    Raises:
      ValueError: log_scale is not a scalar, max_scale <= 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from contrastive_jax import losses
      >>> print(losses.learned_temperature(jnp.float32(9.0)))
      0.01

    Reference: Radford et al., Learning Transferable Visual Models From Natural Language
    Supervision, ICML 2021, section 2.5 (arXiv 2103.00020).
    """
    log_scale = jnp.asarray(check_number("log_scale", log_scale), jnp.float32)
    limit = jnp.log(jnp.asarray(check_positive("max_scale", max_scale), jnp.float32))
    return jnp.exp(-_held_below(log_scale, limit))


def _integers(name: str, values: Iterable[int]) -> tuple[int, ...]:
    try:
        return tuple(operator.index(value) for value in values)
    except TypeError:
        raise ValueError(f"{name} are {values}, expected known integers: pass a tuple.") from None


@jax.custom_vjp
def _held_below(x: jax.Array, limit: jax.Array) -> jax.Array:
    return jnp.minimum(x, limit)


def _held_forward(x: jax.Array, limit: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.minimum(x, limit), x >= limit


def _held_backward(at_limit: jax.Array, cotangent: jax.Array) -> tuple[jax.Array, None]:
    # Descent moves against the gradient: a negative one would raise x.
    return jnp.where(at_limit & (cotangent < 0), 0.0, cotangent), None


_held_below.defvjp(_held_forward, _held_backward)
