"""Score linear classifiers of cached features (linear probes) and record their protocols."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from contrastive_jax.evaluation.logistic import (
    LinearProbe,
    as_set,
    fit_grid,
    predict,
    select,
)
from contrastive_jax.evaluation.results import Row, accuracy_row, stratified_split
from contrastive_jax.evaluation.ridge import fit_ridge

L2_GRID = tuple(10.0**power for power in range(-6, 3))
# 45 log-spaced strengths, as in SimCLR (arXiv 2002.05709), section B.8.
FINE_L2_GRID = tuple(float(l2) for l2 in np.logspace(-6, 5, 45))
OBJECTIVES = {  # by solver; the bias is free
    "lbfgs": "mean cross-entropy + l2/2 |W|^2",
    "eigendecomposition": "half the mean squared error on one-hot classes + l2/2 |W|^2",
}


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
    solver: str = "lbfgs"
    max_steps: int | None = None  # allowed to each fit, where the solver takes steps


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
    """Measure the test accuracy of a linear classifier on frozen features.

    A stratified part of the training set is held out, one probe for each l2 is fitted on the rest,
    the l2 that does best on the held-out part is kept (the larger of equals), and a probe with it
    is fitted on all training examples. The test set does not influence the choice.

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

    Chen et al. 2020 (SimCLR, arXiv 2002.05709), section B.8, whose solver and selection these are.
    """
    fit = partial(fit_grid, n_classes=n_classes, max_steps=max_steps)
    sets = (train_x, train_y, test_x, test_y)
    choice = n_classes, l2_grid, validation_fraction, seed
    return _choose_and_refit(fit, "lbfgs", sets, *choice)._replace(max_steps=max_steps)


def ridge_probe(
    train_x: np.ndarray,
    train_y: np.ndarray,
    test_x: np.ndarray,
    test_y: np.ndarray,
    *,
    n_classes: int,
    l2_grid: Sequence[float] = FINE_L2_GRID,
    validation_fraction: float = 0.1,
    seed: int = 0,
) -> ProbeResult:
    """Measure the test accuracy of ridge regression on one-hot classes, chosen as `linear_probe`.

    Two eigendecompositions in all, one for the choice and one for the refit, whatever the number of
    strengths.

    Args:
      train_x, train_y, test_x, test_y, n_classes: as `linear_probe`.
      l2_grid: penalties to choose from; see `ridge`.
      validation_fraction: of each class that is held out, in (0, 1).
      seed: of the split.

    Raises:
      ValueError: as `ridge.fit_ridge`, or if nothing can be held out.

    >>> x = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    >>> y = (x[:, 0] > 0).astype(np.int32)
    >>> ridge_probe(x[:150], y[:150], x[150:], y[150:], n_classes=2, l2_grid=(0.1,)).accuracy >= 0.9
    True
    """
    fit = partial(fit_ridge, n_classes=n_classes)
    sets = (train_x, train_y, test_x, test_y)
    solver = "eigendecomposition"
    return _choose_and_refit(fit, solver, sets, n_classes, l2_grid, validation_fraction, seed)


def _choose_and_refit(
    fit: Callable[..., LinearProbe],
    solver: str,
    sets: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    n_classes: int,
    l2_grid: Sequence[float],
    fraction: float,
    seed: int,
) -> ProbeResult:
    """Fit on a part of train to choose the l2, and on all of it for the result."""
    train_x, train_y, test_x, test_y = sets
    train_x, train_y = as_set("train", train_x, train_y, n_classes)
    test_x, test_y = as_set("test", test_x, test_y, n_classes)
    fit_N, held_N = stratified_split(train_y, fraction, seed)
    probes = fit(train_x[fit_N], train_y[fit_N], l2_grid=l2_grid)
    accuracy = tuple(
        float(np.mean(predict(select(probes, i), train_x[held_N]) == train_y[held_N]))
        for i in range(len(l2_grid))
    )
    _, l2 = max(zip(accuracy, l2_grid, strict=True))
    final = select(fit(train_x, train_y, l2_grid=(l2,)), 0)
    predictions = predict(final, test_x)
    hits = predictions == test_y
    return ProbeResult(
        accuracy=float(np.mean(hits)),
        hits=hits,
        predictions=predictions,
        l2=l2,
        l2_grid=tuple(l2_grid),
        validation_accuracy=accuracy,
        validation_fraction=fraction,
        seed=seed,
        train_size=len(train_y),
        steps=int(final.steps),
        converged=bool(final.converged),
        solver=solver,
    )


def linear_row(result: ProbeResult, *, representation: str, layer: str, split: str = "test") -> Row:
    """Record a linear or ridge probe with its protocol; see `results.accuracy_row`."""
    held = f"held-out {100 * result.validation_fraction:g} % of train"
    protocol = {
        "name": "linear" if result.solver == "lbfgs" else "ridge",
        "solver": result.solver,
        "objective": OBJECTIVES[result.solver],
        "l2": result.l2,
        "l2_grid": list(result.l2_grid),
        "selection": f"{held}, stratified, seed {result.seed}, the larger of equals",
        "validation_accuracy": list(result.validation_accuracy),
        "refit": "on all of train",
        "standardized": True,
        "train_size": result.train_size,
        "steps": result.steps,
        "max_steps": result.max_steps,
        "converged": result.converged,
    }
    return accuracy_row(result.hits, protocol, representation, layer, split)
