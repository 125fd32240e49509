"""Fit multinomial logistic regression on cached features to its optimum, on the device.

The objective of one fit, on standardized features x, with the bias free and a start from zero:

    mean_n -log softmax(W x_n + b)[y_n]  +  l2 / 2 ||W||^2

which is scikit-learn's LogisticRegression(C=1 / (N l2)). It is strictly convex in W, so a result
depends on the data and on l2, and not on a learning rate or a number of epochs.

Many strengths are fitted as a path from the strongest down, a few at a time: those share each pass
over the features, and start where stronger ones ended. A pass visits the rows in tiles, so beside
three copies of the features only the logits of one tile are held. The examples are split over the
devices, which exchange the sum of their gradients once a pass.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from contrastive_jax import parallel
from contrastive_jax._numerics import as_numpy, dot
from contrastive_jax.evaluation.lbfgs import Stop, minimize
from contrastive_jax.evaluation.neighbors import check_finite, pad_rows
from contrastive_jax.evaluation.results import check_labels

_TOLERANCE = 3e-4
_CONSTANT = 1e-30  # a feature that varies less does not vary
_TILE_ROWS = 2048
_FITS_PER_PASS = 9  # enough to fill a matmul, few enough to end at about the same step
_NUMBERS_AT_ONCE = 2**24  # in the features of the sets that are fitted at the same time

Array = np.ndarray | jax.Array
_Point = tuple[jax.Array, jax.Array]  # weight [C, F] along the principal axes, bias [C]


class LinearProbe(NamedTuple):
    """A fitted classifier, and whether its fit converged."""

    weight: Array  # [F, C], for standardized features
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
    """Fit multinomial logistic regression by L-BFGS; the objective is in the module's docstring.

    The solver works in coordinates in which the Hessian at zero is the identity, so it takes some
    50 steps where classes overlap; hundreds where they are separable and l2 is below about 1e-4.

    Args:
      x_NF: features, float32 or any dtype that converts to it, not yet standardized.
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
    return select(fit_grid(x_NF, y_N, n_classes, (l2,), max_steps, tolerance), 0)


def predict(probe: LinearProbe, x_NF: np.ndarray) -> np.ndarray:
    """Predict the most probable class of each row, [N] int64; ties go to the lowest class.

    argmax_c (W (x - mean) / std + b)_c

    >>> x, y = np.array([[-2.0], [-1.0], [1.0], [2.0]]), np.array([0, 0, 1, 1])
    >>> predict(fit_logistic(x, y, n_classes=2, l2=1.0), x)
    array([0, 0, 1, 1])
    """
    # In float64, since a row unlike those of the fit may be any number of deviations away; from the
    # mean, so that a large constant feature adds no rounding.
    weight_FC = probe.weight.astype(np.float64) / probe.std[:, None]
    return ((x_NF - probe.mean.astype(np.float64)) @ weight_FC + probe.bias).argmax(axis=1)


def fit_grid(
    x_NF: np.ndarray,
    y_N: np.ndarray,
    n_classes: int,
    l2_grid: Sequence[float],
    max_steps: int,
    tolerance: float = _TOLERANCE,
    devices: Sequence[Any] | None = None,
) -> LinearProbe:
    """Fit a probe for each l2, stacked on a leading axis; all share each pass over the features.

    The examples are split over the devices, those of this process by default, a tile or more each.
    """
    x_NF, y_N = as_set("train", x_NF, y_N, n_classes)
    stop = Stop(np.int32(max_steps), np.float32(tolerance))
    n = len(y_N)
    mesh = parallel.mesh_of_parts(-(-n // _TILE_ROWS), devices)
    rows = -(-n // mesh.size) * mesh.size
    padded = {"x": pad_rows(x_NF, rows), "y": pad_rows(y_N.astype(np.int32), rows)}
    split = parallel.put_batch(padded, mesh)
    whole = parallel.put_replicated((strengths(l2_grid), stop), mesh)
    known = {"n_classes": n_classes, "n": n, "mesh": mesh}
    return jax.device_get(_fit_strengths(split["x"], split["y"], *whole, **known))


@partial(jax.jit, static_argnames=("n_classes", "n", "mesh"))
def _fit_strengths(
    x_NF: jax.Array,
    y_N: jax.Array,
    l2_S: jax.Array,
    stop: Stop,
    *,
    n_classes: int,
    n: int,
    mesh: parallel.Mesh,
) -> LinearProbe:
    """Fit to the first n rows of examples that are split over the devices."""
    table = _tabulate(x_NF, y_N, n_classes, n, mesh)
    order_S = jnp.argsort(-l2_S)
    fits = min(_FITS_PER_PASS, len(l2_S))
    groups = -(-len(l2_S) // fits)
    # A last group that is not full repeats the weakest strength; the copies are dropped.
    path = jnp.pad(l2_S[order_S], (0, groups * fits - len(l2_S)), mode="edge")
    # Only l2 is mapped, so each step reads the features once for all fits of a group.
    fit = jax.vmap(partial(_fit, table, mesh), in_axes=(0, None, None))

    def advance(start: _Point, l2_L: jax.Array) -> tuple[_Point, _Fitted]:
        found = fit(l2_L, start, stop)
        return (found.weight_CF[-1], found.bias_C[-1]), found

    _, found = jax.lax.scan(advance, _origin(table), path.reshape(groups, fits))
    place_S = jnp.argsort(order_S)
    found = jax.tree.map(lambda x: x.reshape(groups * fits, *x.shape[2:])[place_S], found)
    return jax.vmap(partial(_as_probe, table))(found)


def fit_each(
    x_RNF: np.ndarray, y_RN: np.ndarray, *, n_classes: int, l2: float, max_steps: int
) -> LinearProbe:
    """Fit a probe to each of R small training sets, stacked on a leading axis."""
    stop = Stop(np.int32(max_steps), np.float32(_TOLERANCE))
    data = jax.device_put((x_RNF, y_RN.astype(np.int32), strengths(l2), stop))
    return jax.device_get(_fit_each(*data, n_classes=n_classes))


@partial(jax.jit, static_argnames="n_classes")
def _fit_each(
    x_RNF: jax.Array, y_RN: jax.Array, l2: jax.Array, stop: Stop, *, n_classes: int
) -> LinearProbe:
    alone = parallel.mesh_of_parts(1)

    def fit(one: tuple[jax.Array, jax.Array]) -> LinearProbe:
        table = _tabulate(*one, n_classes, len(one[1]), alone)
        return _as_probe(table, _fit(table, alone, l2, _origin(table), stop))

    at_once = max(1, min(len(y_RN), _NUMBERS_AT_ONCE // x_RNF[0].size))
    return jax.lax.map(fit, (x_RNF, y_RN), batch_size=at_once)


class _Table(NamedTuple):
    """Standardized features along their principal axes, in T tiles of R rows."""

    x_TRF: jax.Array
    hit_TCR: jax.Array  # one-hot classes
    weight_TR: jax.Array  # in the mean over examples: 1 / N, and 0 for padding
    variance_F: jax.Array  # along each axis
    axes_FF: jax.Array
    mean_F: jax.Array
    std_F: jax.Array


class _Fitted(NamedTuple):
    weight_CF: jax.Array  # along the principal axes
    bias_C: jax.Array
    objective: jax.Array
    steps: jax.Array
    converged: jax.Array


def _tabulate(
    x_NF: jax.Array, y_N: jax.Array, n_classes: int, n: int, mesh: parallel.Mesh
) -> _Table:
    real_N1 = (jnp.arange(len(x_NF)) < n)[:, None]
    x_NF, mean_F, std_F = standardize(x_NF, real_N1)
    variance_F, axes_FF = jnp.linalg.eigh(dot(x_NF.T, x_NF) / n)
    x_NF = dot(x_NF, axes_FF)  # a rotation leaves ||W|| as it is
    x_TRF = _in_tiles(x_NF, mesh.size)
    weight_TR = _in_tiles(jnp.where(real_N1[:, 0], jnp.float32(1 / n), 0.0), mesh.size)
    # Classes before examples: sums over the ten or so classes then vectorize.
    hit_TCR = jax.nn.one_hot(_in_tiles(y_N, mesh.size), n_classes, dtype=jnp.float32, axis=1)
    return _Table(x_TRF, hit_TCR, weight_TR, variance_F, axes_FF, mean_F, std_F)


def _in_tiles(array: jax.Array, parts: int) -> jax.Array:
    """Arrange [N, ...] as [T, R, ...], the rows of each part in its own tiles, padded with 0."""
    array = array.reshape(parts, -1, *array.shape[1:])
    rows = min(_TILE_ROWS, array.shape[1])
    tiles = -(-array.shape[1] // rows)
    missing = [(0, 0), (0, tiles * rows - array.shape[1])] + [(0, 0)] * (array.ndim - 2)
    return jnp.pad(array, missing).reshape(parts * tiles, rows, *array.shape[2:])


def _origin(table: _Table) -> _Point:
    classes, features = table.hit_TCR.shape[1], table.x_TRF.shape[2]
    return jnp.zeros((classes, features), jnp.float32), jnp.zeros(classes, jnp.float32)


def _fit(table: _Table, mesh: parallel.Mesh, l2: jax.Array, start: _Point, stop: Stop) -> _Fitted:
    n_classes = table.hit_TCR.shape[1]
    tiles = table.x_TRF, table.hit_TCR, table.weight_TR
    loss_and_grad = parallel.shard_sum(_loss_and_grad, mesh)
    # The Hessian at zero is variance / C + l2 along an axis and 1 / C for the bias.
    unit_F = jax.lax.rsqrt(jnp.maximum(table.variance_F, 0.0) / n_classes + l2)
    unit_1F1 = jnp.append(unit_F, jnp.sqrt(jnp.float32(n_classes)))[None, :]

    def value_and_grad(scaled_CF1: jax.Array) -> tuple[jax.Array, jax.Array]:
        plain_CF1 = scaled_CF1 * unit_1F1
        loss, grad_CF1 = loss_and_grad(tiles, plain_CF1)
        penalized_CF1 = plain_CF1.at[:, -1].set(0.0)
        value = loss + 0.5 * l2 * jnp.sum(penalized_CF1**2)
        return value, (grad_CF1 + l2 * penalized_CF1) * unit_1F1

    begin_CF1 = jnp.concatenate([start[0], start[1][:, None]], axis=1) / unit_1F1
    end = minimize(value_and_grad, begin_CF1, stop)
    plain_CF1 = end.point * unit_1F1
    return _Fitted(plain_CF1[:, :-1], plain_CF1[:, -1], end.value, end.steps, end.converged)


def _loss_and_grad(
    tiles: tuple[jax.Array, ...], plain_CF1: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Compute the mean cross-entropy and its gradient, in one pass over the tiles of a device."""
    weight_CF, bias_C = plain_CF1[:, :-1], plain_CF1[:, -1]

    def add(total: tuple[jax.Array, jax.Array], tile: tuple[jax.Array, ...]):
        x_RF, hit_CR, weight_R = tile
        logits_CR = dot(weight_CF, x_RF.T) + bias_C[:, None]
        loss_R, residual_CR = _cross_entropy(logits_CR, hit_CR)
        residual_CR = residual_CR * weight_R[None, :]
        bias_grad_C1 = jnp.sum(residual_CR, axis=1, keepdims=True)
        grad_CF1 = jnp.concatenate([dot(residual_CR, x_RF), bias_grad_C1], axis=1)
        return (total[0] + jnp.vdot(loss_R, weight_R), total[1] + grad_CF1), None

    nothing = jnp.zeros((), jnp.float32), jnp.zeros_like(plain_CF1)
    return jax.lax.scan(add, nothing, tiles)[0]


def _cross_entropy(logits_CN: jax.Array, hit_CN: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Compute losses [N] and gradients [C, N], exact however small, for separable classes."""
    lead_CN = logits_CN - jnp.sum(logits_CN * hit_CN, axis=0, keepdims=True)
    top_N = jnp.max(lead_CN, axis=0)  # >= 0, the true class being at 0
    wrong_CN = (1 - hit_CN) * jnp.exp(lead_CN - top_N[None, :])
    wrong_N = jnp.sum(wrong_CN, axis=0)
    probability_CN = wrong_CN / (jnp.exp(-top_N) + wrong_N)[None, :]
    gradient_CN = probability_CN - hit_CN * jnp.sum(probability_CN, axis=0, keepdims=True)
    return top_N + jnp.log1p(jnp.expm1(-top_N) + wrong_N), gradient_CN


def _as_probe(table: _Table, found: _Fitted) -> LinearProbe:
    weight_FC = dot(table.axes_FF, found.weight_CF.T)
    ending = (found.objective, found.steps, found.converged)
    return LinearProbe(weight_FC, found.bias_C, table.mean_F, table.std_F, *ending)


def standardize(
    x_NF: jax.Array, real_N1: jax.Array | bool = True
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Scale features to mean 0 and deviation 1, [N, F]; returns what they were, [F], too.

    Rows that are not real count for nothing and become 0; the first is real.
    """
    x_NF = x_NF.astype(jnp.float32)
    # From the first row, which makes a constant feature exactly zero.
    shifted_NF = jnp.where(real_N1, x_NF - x_NF[:1], 0.0)
    mean_1F = jnp.mean(shifted_NF, axis=0, keepdims=True, where=real_N1)
    peak_1F = jnp.max(jnp.abs(shifted_NF), axis=0, keepdims=True)
    extreme = (peak_1F > 1e15) | (peak_1F < 1e-15)  # whose squares may leave float32
    scale_1F = jnp.where(extreme & (peak_1F > _CONSTANT), peak_1F, 1.0)
    std_1F = jnp.std(shifted_NF / scale_1F, axis=0, keepdims=True, where=real_N1) * scale_1F
    std_1F = jnp.where(std_1F > 0, std_1F, 1.0)
    standard_NF = jnp.where(real_N1, (shifted_NF - mean_1F) / std_1F, 0.0)
    return standard_NF, (x_NF[:1] + mean_1F)[0], std_1F[0]


def select(probes: LinearProbe, i: int) -> LinearProbe:
    """Select one of several stacked probes."""
    return jax.tree.map(lambda array: array[i], probes)


def strengths(l2: float | Sequence[float]) -> np.ndarray:
    """Convert `l2` to float32; ValueError unless all are positive and finite."""
    strength = np.asarray(l2, np.float32)
    if strength.size == 0 or not np.all((strength > 0) & np.isfinite(strength)):
        raise ValueError(f"l2 must be positive and finite, got {l2}; try 1e-6 for almost none")
    return strength


def as_set(
    name: str, x_NF: np.ndarray, y_N: np.ndarray, n_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Make arrays of lists; ValueError unless features are finite and labels in [0, n_classes)."""
    x_NF, y_N = as_numpy(name, x_NF), as_numpy(name, y_N)
    check_finite(name, x_NF)
    check_labels(name, x_NF, y_N)
    if y_N.max() >= n_classes:
        raise ValueError(f"{name}: label {y_N.max()} needs more than n_classes = {n_classes}")
    return x_NF, y_N
