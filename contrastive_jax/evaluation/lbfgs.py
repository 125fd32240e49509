"""Minimize by L-BFGS with step halving: one evaluation a step, so that mapped fits share it."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

_NEGLIGIBLE = 1e-6  # a value that counts as none
_SHORTEST_STEP = 1e-6  # a line search that gets here has reached the precision of float32


class Stop(NamedTuple):
    """When a search ends."""

    max_steps: jax.Array | np.int32  # evaluations
    tolerance: jax.Array | np.float32  # of the gradient's length, as a part of the value


class Minimum(NamedTuple):
    """The end of a search: point, value, steps, and whether it converged."""

    point: jax.Array
    value: jax.Array  # []
    steps: jax.Array  # [], evaluations of the function and its gradient
    converged: jax.Array  # [] bool


class _Search(NamedTuple):
    """A point, a direction from it and the step to try along it."""

    point: jax.Array
    value: jax.Array
    grad: jax.Array
    direction: jax.Array
    stride: jax.Array
    memory: optax.OptState


def minimize(
    value_and_grad: Callable[[jax.Array], tuple[jax.Array, jax.Array]],
    start: jax.Array,
    stop: Stop,
) -> Minimum:
    """Minimize a smooth convex function that is not negative, such as a mean loss.

    It ends where ||gradient|| <= tolerance (value + 1e-6), or where no step leads down. Under
    `jax.vmap` the fits share every evaluation, and continue until the last has ended. `optax.lbfgs`
    is not used whole: mapped, its line search evaluates every branch.

    Args:
      value_and_grad: x -> (f(x) [], gradient of the shape of x), float32.
      start: the first point, float32.
      stop: when to end.

    >>> bowl = lambda x: (0.5 * jnp.sum((x - 3.0) ** 2) + 1.0, x - 3.0)
    >>> end = minimize(bowl, jnp.zeros(2), Stop(np.int32(50), np.float32(1e-5)))
    >>> [round(x, 3) for x in end.point.tolist()], bool(end.converged)
    ([3.0, 3.0], True)

    Nocedal 1980 (Mathematics of Computation 35).
    """
    lbfgs = optax.scale_by_lbfgs(memory_size=10)

    def settled(at: _Search) -> jax.Array:
        # The Hessian shrinks with the loss, and the gradient that may be left with it.
        enough = stop.tolerance * (at.value + _NEGLIGIBLE)
        return jnp.isfinite(at.value) & (jnp.linalg.norm(at.grad) <= enough)

    def unfinished(carry: tuple[_Search, jax.Array]) -> jax.Array:
        at, steps = carry
        return (steps == 0) | (
            ~settled(at) & (at.stride > _SHORTEST_STEP) & (steps < stop.max_steps)
        )

    def advance(carry: tuple[_Search, jax.Array]) -> tuple[_Search, jax.Array]:
        at, steps = carry
        point = at.point + at.stride * at.direction
        value, grad = value_and_grad(point)
        expected = 1e-4 * at.stride * jnp.vdot(at.grad, at.direction)
        rounding = 1e-7 * jnp.abs(at.value)
        step, memory = lbfgs.update(grad, at.memory, point)
        step = jnp.asarray(step)
        downhill = -jnp.where(jnp.vdot(step, grad) > 0, step, grad)
        there = _Search(point, value, grad, downhill, jnp.ones_like(value), memory)
        stay = at._replace(stride=at.stride / 2)
        lower = value <= at.value + expected + rounding
        return jax.tree.map(partial(jnp.where, lower), there, stay), steps + 1

    # The first step goes nowhere: it only evaluates the start.
    still, one = jnp.zeros_like(start), jnp.ones((), start.dtype)
    begin = _Search(start, one * jnp.inf, still, still, one, lbfgs.init(start))
    at, steps = jax.lax.while_loop(unfinished, advance, (begin, jnp.zeros((), jnp.int32)))
    return Minimum(at.point, at.value, steps, settled(at))
