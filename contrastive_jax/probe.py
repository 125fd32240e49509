"""Linear probes on cached features: multinomial logistic regression, fitted to its optimum.

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
from scipy.stats import t as student_t

from contrastive_jax.evaluate import Row, accuracy_row, check_finite, check_labels

L2_GRID = tuple(10.0**power for power in range(-6, 3))
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


class ProbeResult(NamedTuple):
    """A linear probe whose l2 was chosen on a part of the training set."""

    accuracy: float  # on the test set
    hits: np.ndarray  # [N] bool
    predictions: np.ndarray  # [N]
    l2: float  # the chosen one
    l2_grid: tuple[float, ...]
    validation_accuracy: tuple[float, ...]  # for each l2
    validation_fraction: float
    seed: int
    train_size: int  # examples in the final fit, validation included
    steps: int  # of the final fit
    converged: bool  # of the final fit


class FewLabelResult(NamedTuple):
    """Probes on several random draws of a few labels a class, all judged on one test set."""

    mean: float
    std: float  # over draws, with n - 1
    accuracies: tuple[float, ...]
    per_class: int
    l2: float
    seed: int
    test_size: int
    converged: bool  # every draw


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
    return _lane(_fit_grid(x_NF, y_N, n_classes, (l2,), max_steps, tolerance), 0)


def predict(probe: LinearProbe, x_NF: np.ndarray) -> np.ndarray:
    """The most probable class of each row, [N] int64; ties go to the lowest class.

    argmax_c (W (x - mean) / std + b)_c

    >>> x, y = np.array([[-2.0], [-1.0], [1.0], [2.0]]), np.array([0, 0, 1, 1])
    >>> predict(fit_logistic(x, y, n_classes=2, l2=1.0), x)
    array([0, 0, 1, 1])
    """
    weight_FC = probe.weight / probe.std[:, None]
    return (x_NF @ weight_FC + (probe.bias - probe.mean @ weight_FC)).argmax(axis=1)


def linear_probe(
    train_x: np.ndarray,
    train_y: np.ndarray,
    test_x: np.ndarray,
    test_y: np.ndarray,
    *,
    n_classes: int,
    l2_grid: Sequence[float] = L2_GRID,
    validation_fraction: float = 0.1,
    max_steps: int = 500,
    seed: int = 0,
) -> ProbeResult:
    """Test accuracy of a linear classifier on frozen features.

    A stratified part of the training set is held out, one probe for each l2 is fitted on the rest,
    the l2 that does best on the held-out part is kept (the larger of equals), and a probe with it
    is fitted on all training examples. The test set has no part in the choice.

    Args:
      train_x: [N, F] features.
      train_y: [N] classes, integers in [0, n_classes).
      test_x: [M, F] features.
      test_y: [M] classes.
      n_classes: C.
      l2_grid: penalties to choose from.
      validation_fraction: of each class that is held out, in (0, 1).
      max_steps: evaluations of the objective at most, in each fit.
      seed: of the split.

    Raises:
      ValueError: as `fit_logistic`, or if nothing can be held out.

    >>> x = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    >>> y = (x[:, 0] > 0).astype(np.int32)
    >>> result = linear_probe(x[:150], y[:150], x[150:], y[150:], n_classes=2, l2_grid=(1e-3, 1e-1))
    >>> result.accuracy > 0.9, result.converged
    (True, True)

    Chen et al. 2020 (SimCLR, arXiv:2002.05709), section B.8, whose solver and selection these are.
    """
    _check_set("train", train_x, train_y, n_classes)
    _check_set("test", test_x, test_y, n_classes)
    fit_N, held_N = _stratified_split(train_y, validation_fraction, seed)
    probes = _fit_grid(train_x[fit_N], train_y[fit_N], n_classes, l2_grid, max_steps)
    accuracy = tuple(
        float(np.mean(predict(_lane(probes, i), train_x[held_N]) == train_y[held_N]))
        for i in range(len(l2_grid))
    )
    _, l2 = max(zip(accuracy, l2_grid, strict=True))
    final = fit_logistic(train_x, train_y, n_classes=n_classes, l2=l2, max_steps=max_steps)
    predictions = predict(final, test_x)
    hits = predictions == test_y
    return ProbeResult(
        accuracy=float(np.mean(hits)),
        hits=hits,
        predictions=predictions,
        l2=l2,
        l2_grid=tuple(l2_grid),
        validation_accuracy=accuracy,
        validation_fraction=validation_fraction,
        seed=seed,
        train_size=len(train_y),
        steps=int(final.steps),
        converged=bool(final.converged),
    )


def linear_row(result: ProbeResult, *, representation: str, layer: str, split: str = "test") -> Row:
    """A linear probe as a result with its protocol; see `evaluate.accuracy_row`."""
    held = f"held-out {100 * result.validation_fraction:g} % of train"
    protocol = {
        "name": "linear",
        "solver": "lbfgs",
        "l2": result.l2,
        "l2_grid": list(result.l2_grid),
        "selection": f"{held}, stratified, seed {result.seed}",
        "validation_accuracy": list(result.validation_accuracy),
        "standardised": True,
        "train_size": result.train_size,
        "steps": result.steps,
        "converged": result.converged,
    }
    return accuracy_row(result.hits, protocol, representation, layer, split)


def few_label_probe(
    train_x: np.ndarray,
    train_y: np.ndarray,
    test_x: np.ndarray,
    test_y: np.ndarray,
    *,
    n_classes: int,
    per_class: int = 10,
    draws: int = 10,
    l2: float = 0.1,
    max_steps: int = 500,
    seed: int = 0,
) -> FewLabelResult:
    """Test accuracy of linear probes on a few labelled examples a class, over random draws.

    The l2 is fixed beforehand, since so few labels leave none to choose it by. Draw i depends on
    (seed, i) only.

    Args:
      train_x: [N, F] features to draw from.
      train_y: [N] classes, integers in [0, n_classes).
      test_x: [M, F] features.
      test_y: [M] classes.
      n_classes: C.
      per_class: labelled examples of each class in a draw.
      draws: at least 2.
      l2: weight of the penalty.
      max_steps: evaluations of the objective at most.
      seed: of the draws.

    Raises:
      ValueError: as `fit_logistic`, or if a class has fewer than `per_class` examples.

    >>> x = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    >>> y = (x[:, 0] > 0).astype(np.int32)
    >>> result = few_label_probe(x, y, x, y, n_classes=2, draws=3)
    >>> len(result.accuracies), result.mean > 0.8
    (3, True)
    """
    _check_set("train", train_x, train_y, n_classes)
    _check_set("test", test_x, test_y, n_classes)
    counts = np.bincount(train_y, minlength=n_classes)
    if counts.min() < per_class or per_class < 1 or draws < 2:
        raise ValueError(
            f"need draws >= 2 of per_class >= 1 labels, got {draws} of {per_class}; "
            f"the rarest class, {counts.argmin()}, has {counts.min()} examples"
        )
    chosen_RN = np.stack([_draw(train_y, n_classes, per_class, (seed, i)) for i in range(draws)])
    stop = _Stop(np.int32(max_steps), np.float32(_TOLERANCE))
    data = train_x[chosen_RN], train_y[chosen_RN].astype(np.int32), _strength(l2), stop
    probes = jax.device_get(_fit_draws(*jax.device_put(data), n_classes=n_classes))
    accuracies = [float(np.mean(predict(_lane(probes, i), test_x) == test_y)) for i in range(draws)]
    return FewLabelResult(
        mean=float(np.mean(accuracies)),
        std=float(np.std(accuracies, ddof=1)),
        accuracies=tuple(accuracies),
        per_class=per_class,
        l2=l2,
        seed=seed,
        test_size=len(test_y),
        converged=bool(probes.converged.all()),
    )


def few_label_row(
    result: FewLabelResult, *, representation: str, layer: str, split: str = "test"
) -> Row:
    """A few-label probe as a result; its interval is Student's t over draws, on one test set."""
    draws = len(result.accuracies)
    half = float(student_t.ppf(0.975, draws - 1)) * result.std / draws**0.5
    return {
        "representation": representation,
        "layer": layer,
        "protocol": {
            "name": "few-label",
            "solver": "lbfgs",
            "labels_per_class": result.per_class,
            "draws": draws,
            "seed": result.seed,
            "l2": result.l2,
            "selection": "fixed beforehand",
            "standardised": True,
            "converged": result.converged,
        },
        "split": split,
        "n": result.test_size,
        "accuracy": result.mean,
        "ci95": [result.mean - half, result.mean + half],
        "ci95_method": "student-t over draws",
        "std": result.std,
        "accuracies": list(result.accuracies),
    }


def _fit_grid(
    x_NF: np.ndarray,
    y_N: np.ndarray,
    n_classes: int,
    l2_grid: Sequence[float],
    max_steps: int,
    tolerance: float = _TOLERANCE,
) -> LinearProbe:
    """One probe for each l2, stacked on a leading axis."""
    _check_set("train", x_NF, y_N, n_classes)
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


def _lane(probes: LinearProbe, i: int) -> LinearProbe:
    return jax.tree.map(lambda array: array[i], probes)


def _stratified_split(y_N: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices to fit on and indices held out; a class keeps at least one example to fit on."""
    rng = np.random.default_rng(seed)
    held_N = np.zeros(len(y_N), bool)
    for label in np.unique(y_N):
        members = rng.permutation(np.flatnonzero(y_N == label))
        held_N[members[: min(round(fraction * len(members)), len(members) - 1)]] = True
    if not 0 < fraction < 1 or not held_N.any():
        raise ValueError(
            f"validation_fraction {fraction} holds out {held_N.sum()} of {len(y_N)} examples: "
            "it must lie in (0, 1) and leave some to choose l2 by"
        )
    return np.flatnonzero(~held_N), np.flatnonzero(held_N)


def _draw(y_N: np.ndarray, n_classes: int, per_class: int, seed: tuple[int, int]) -> np.ndarray:
    rng = np.random.default_rng(seed)
    members = (np.flatnonzero(y_N == label) for label in range(n_classes))
    return np.concatenate([rng.choice(own, per_class, replace=False) for own in members])


def _strength(l2: float | Sequence[float]) -> np.ndarray:
    strength = np.asarray(l2, np.float32)
    if strength.size == 0 or not np.all((strength > 0) & np.isfinite(strength)):
        raise ValueError(f"l2 must be positive and finite, got {l2}; try 1e-6 for almost none")
    return strength


def _check_set(name: str, x_NF: np.ndarray, y_N: np.ndarray, n_classes: int) -> None:
    check_finite(name, x_NF)
    check_labels(name, x_NF, y_N)
    if y_N.max() >= n_classes:
        raise ValueError(f"{name}: label {y_N.max()} needs more than n_classes = {n_classes}")
