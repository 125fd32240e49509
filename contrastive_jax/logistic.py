"""Multinomial logistic regression on cached features, fitted to its optimum on the device.

The objective of one fit, on standardised features x, with the bias free and a start from zero:

    mean_n -log softmax(W x_n + b)[y_n]  +  l2 / 2 ||W||^2

which is scikit-learn's LogisticRegression(C=1 / (N l2)). It is strictly convex in W, so a result
depends on the data and on l2, and not on a learning rate or a number of epochs.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from contrastive_jax.evaluate import check_finite, check_labels

_TOLERANCE = 3e-4
_NEGLIGIBLE_LOSS = 1e-6
_SHORTEST_STEP = 1e-6  # a line search that gets here has reached the precision of float32

Array = np.ndarray | jax.Array


class _Stop(NamedTuple):
    max_steps: Array | np.int32  # evaluations of the objective
    tolerance: Array | np.float32  # of the preconditioned gradient, as a part of the objective


class LinearProbe(NamedTuple):
    """A fitted classifier, and how its fit ended."""

    weight: Array  # [F, C], for standardised features
    bias: Array  # [C]
    mean: Array  # [F], of the data it was fitted on
    std: Array  # [F], 1 for a constant feature
    objective: Array  # []
    steps: Array  # [], evaluations of the objective and its gradient
    converged: Array  # [] bool


def fit_logistic(
    x_NF: np.ndarray,
    y_N: np.ndarray,
    *,
    n_classes: int,
    l2: float,
    max_steps: int = 500,
    tolerance: float = _TOLERANCE,
) -> LinearProbe:
    """Multinomial logistic regression by L-BFGS; the module's head has the objective.

    The solver works in coordinates in which the Hessian at zero is the identity, so it takes some
    50 steps where classes overlap; hundreds where they are separable and l2 is below about 1e-4.

    Args:
      x_NF: features, float32 or any dtype that converts to it, not yet standardised.
      y_N: classes, integers in [0, n_classes).
      n_classes: C; a class may be absent from `y_N`.
      l2: weight of the penalty, positive.
      max_steps: evaluations of the objective at most.
      tolerance: stop when the preconditioned gradient is shorter than this part of the objective.

    Raises:
      ValueError: for values that are not finite, labels out of range, or an l2 that is not > 0.

    >>> x, y = np.array([[-2.0], [-1.0], [1.0], [2.0]]), np.array([0, 0, 1, 1])
    >>> fitted = fit_logistic(x, y, n_classes=2, l2=0.1)
    >>> predict(fitted, np.array([[-0.1], [0.1]])), bool(fitted.converged)
    (array([0, 1]), True)

    Nocedal 1980 (Mathematics of Computation 35) for L-BFGS.
    """
    return lane(fit_grid(x_NF, y_N, n_classes, (l2,), max_steps, tolerance), 0)


def predict(probe: LinearProbe, x_NF: np.ndarray) -> np.ndarray:
    """The most probable class of each row, [N] int64; ties go to the lowest class.

    argmax_c (W (x - mean) / std + b)_c

    >>> x, y = np.array([[-2.0], [-1.0], [1.0], [2.0]]), np.array([0, 0, 1, 1])
    >>> predict(fit_logistic(x, y, n_classes=2, l2=1.0), x)
    array([0, 0, 1, 1])
    """
    weight_FC = probe.weight / probe.std[:, None]
    return (x_NF @ weight_FC + (probe.bias - probe.mean @ weight_FC)).argmax(axis=1)


def fit_grid(
    x_NF: np.ndarray,
    y_N: np.ndarray,
    n_classes: int,
    l2_grid: Sequence[float],
    max_steps: int,
    tolerance: float = _TOLERANCE,
) -> LinearProbe:
    """One probe for each l2, stacked on a leading axis; all read the features together."""
    check_set("train", x_NF, y_N, n_classes)
    stop = _Stop(np.int32(max_steps), np.float32(tolerance))
    data = jax.device_put((x_NF, y_N.astype(np.int32), _strength(l2_grid), stop))
    return jax.device_get(_fit_strengths(*data, n_classes=n_classes))


@partial(jax.jit, static_argnames="n_classes")
def _fit_strengths(
    x_NF: jax.Array, y_N: jax.Array, l2_S: jax.Array, stop: _Stop, *, n_classes: int
) -> LinearProbe:
    # Only l2 is mapped, so each step reads the features once for all strengths together.
    fit = partial(_fit, n_classes=n_classes)
    return jax.vmap(fit, in_axes=(None, None, 0, None))(x_NF, y_N, l2_S, stop)


def fit_draws(
    x_RNF: np.ndarray, y_RN: np.ndarray, *, n_classes: int, l2: float, max_steps: int
) -> LinearProbe:
    """One probe for each of R small training sets, stacked on a leading axis."""
    stop = _Stop(np.int32(max_steps), np.float32(_TOLERANCE))
    data = jax.device_put((x_RNF, y_RN.astype(np.int32), _strength(l2), stop))
    return jax.device_get(_fit_draws(*data, n_classes=n_classes))


@partial(jax.jit, static_argnames="n_classes")
def _fit_draws(
    x_RNF: jax.Array, y_RN: jax.Array, l2: jax.Array, stop: _Stop, *, n_classes: int
) -> LinearProbe:
    fit = partial(_fit, n_classes=n_classes)
    return jax.vmap(fit, in_axes=(0, 0, None, None))(x_RNF, y_RN, l2, stop)


def _fit(
    x_NF: jax.Array, y_N: jax.Array, l2: jax.Array, stop: _Stop, *, n_classes: int
) -> LinearProbe:
    x_NF, mean_F, std_F = _standardise(x_NF)
    variance_F, axes_FF = jnp.linalg.eigh(_dot(x_NF.T, x_NF) / len(x_NF))
    x_NF = _dot(x_NF, axes_FF)  # principal axes; a rotation leaves ||W|| as it is
    hit_CN = jax.nn.one_hot(y_N, n_classes, axis=0)
    # The Hessian at zero is variance / C + l2 along an axis and 1 / C for the bias.
    unit_F = jax.lax.rsqrt(jnp.maximum(variance_F, 0.0) / n_classes + l2)
    unit_1F1 = jnp.append(unit_F, jnp.sqrt(jnp.float32(n_classes)))[None, :]

    def unscale(scaled_CF1: jax.Array) -> tuple[jax.Array, jax.Array]:
        plain_CF1 = scaled_CF1 * unit_1F1
        return plain_CF1[:, :-1], plain_CF1[:, -1]

    def objective(scaled_CF1: jax.Array) -> jax.Array:
        weight_CF, bias_C = unscale(scaled_CF1)
        # Classes before examples: sums over the ten or so classes then vectorise.
        logits_CN = _dot(weight_CF, x_NF.T) + bias_C[:, None]
        return jnp.mean(_cross_entropy(logits_CN, hit_CN)) + 0.5 * l2 * jnp.sum(weight_CF**2)

    start = jnp.zeros((n_classes, x_NF.shape[1] + 1), jnp.float32)
    end, value, steps, converged = _minimise(objective, start, stop)
    weight_CF, bias_C = unscale(end)
    return LinearProbe(_dot(axes_FF, weight_CF.T), bias_C, mean_F, std_F, value, steps, converged)


def _cross_entropy(logits_CN: jax.Array, hit_CN: jax.Array) -> jax.Array:
    """[N], with full relative precision however small, as separable classes ask for."""
    lead_CN = logits_CN - jnp.sum(logits_CN * hit_CN, axis=0, keepdims=True)
    top_N = jax.lax.stop_gradient(jnp.max(lead_CN, axis=0))  # >= 0, the true class being at 0
    wrong_N = jnp.sum((1 - hit_CN) * jnp.exp(lead_CN - top_N[None, :]), axis=0)
    return top_N + jnp.log1p(jnp.expm1(-top_N) + wrong_N)


class _Search(NamedTuple):
    """A point, a direction from it and the step to try along it."""

    point: jax.Array
    value: jax.Array
    grad: jax.Array
    direction: jax.Array
    stride: jax.Array
    memory: optax.OptState


def _minimise(
    objective: Callable[[jax.Array], jax.Array], start: jax.Array, stop: _Stop
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """L-BFGS with step halving: one evaluation a step, so that mapped fits share each of them.

    `optax.lbfgs` is not used whole: mapped over strengths, its line search evaluates every branch.
    """
    lbfgs = optax.scale_by_lbfgs(memory_size=10)
    value_and_grad = jax.value_and_grad(objective)

    def settled(at: _Search) -> jax.Array:
        # The Hessian shrinks with the loss, and the gradient that may be left with it.
        enough = stop.tolerance * (at.value + _NEGLIGIBLE_LOSS)
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
    return at.point, at.value, steps, settled(at)


def _standardise(x_NF: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    x_NF = x_NF.astype(jnp.float32)
    shifted_NF = x_NF - x_NF[:1]  # makes a constant feature exactly zero
    mean_1F, std_1F = (f(shifted_NF, axis=0, keepdims=True) for f in (jnp.mean, jnp.std))
    std_1F = jnp.where(std_1F > 0, std_1F, 1.0)
    return (shifted_NF - mean_1F) / std_1F, (x_NF[:1] + mean_1F)[0], std_1F[0]


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    # Accelerators round float32 factors by default, which would stall the line search.
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def lane(probes: LinearProbe, i: int) -> LinearProbe:
    """One of several stacked probes."""
    return jax.tree.map(lambda array: array[i], probes)


def _strength(l2: float | Sequence[float]) -> np.ndarray:
    strength = np.asarray(l2, np.float32)
    if strength.size == 0 or not np.all((strength > 0) & np.isfinite(strength)):
        raise ValueError(f"l2 must be positive and finite, got {l2}; try 1e-6 for almost none")
    return strength


def check_set(name: str, x_NF: np.ndarray, y_N: np.ndarray, n_classes: int) -> None:
    """Raises ValueError unless the features are finite and the labels in [0, n_classes)."""
    check_finite(name, x_NF)
    check_labels(name, x_NF, y_N)
    if y_N.max() >= n_classes:
        raise ValueError(f"{name}: label {y_N.max()} needs more than n_classes = {n_classes}")
