"""Score linear classifiers of a few labels, over random samples of the labeled examples."""

from typing import NamedTuple

import numpy as np

from contrastive_jax.evaluation.logistic import as_set, fit_each, predict, select
from contrastive_jax.evaluation.probes import OBJECTIVES
from contrastive_jax.evaluation.results import Row


class FewLabelResult(NamedTuple):
    """Probes on several random samples of a few labels a class, all scored on one test set."""

    mean: float
    std: float  # over samples, with n - 1
    accuracies: tuple[float, ...]
    per_class: int | None
    fraction: float | None
    train_size: int  # examples in a sample
    l2: float
    seed: int
    test_size: int
    max_steps: int
    converged: bool  # every fit


def few_label_probe(
    train_x: np.ndarray,
    train_y: np.ndarray,
    test_x: np.ndarray,
    test_y: np.ndarray,
    *,
    n_classes: int,
    per_class: int = 10,
    fraction: float | None = None,
    draws: int = 10,
    l2: float = 0.1,
    max_steps: int = 500,
    seed: int = 0,
) -> FewLabelResult:
    """Measure the test accuracy of linear probes on random samples of a few labels a class.

    The l2 is fixed beforehand, since so few labels leave none to choose it by. Sample i depends on
    (seed, i) only.

    Args:
      train_x: [N, F] features to sample from.
      train_y: [N] classes, integers in [0, n_classes).
      test_x: [M, F] features.
      test_y: [M] classes.
      n_classes: C.
      per_class: labeled examples of each class in a sample.
      fraction: or this fraction of each class, rounded, at least one example; in (0, 1).
      draws: samples, at least 2.
      l2: weight of the penalty.
      max_steps: evaluations of the objective at most.
      seed: of the samples.

    Raises:
      ValueError: as `fit_logistic`, or if a class has fewer than `per_class` examples.

    >>> x = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    >>> y = (x[:, 0] > 0).astype(np.int32)
    >>> result = few_label_probe(x, y, x, y, n_classes=2, draws=3)
    >>> len(result.accuracies), result.mean > 0.8
    (3, True)
    """
    train_x, train_y = as_set("train", train_x, train_y, n_classes)
    test_x, test_y = as_set("test", test_x, test_y, n_classes)
    count_C = _class_counts(train_y, n_classes, per_class, fraction, draws)
    chosen_RN = np.stack([_sampled_rows(train_y, count_C, (seed, i)) for i in range(draws)])
    sampled = train_x[chosen_RN], train_y[chosen_RN]
    probes = fit_each(*sampled, n_classes=n_classes, l2=l2, max_steps=max_steps)
    accuracies = [
        float(np.mean(predict(select(probes, i), test_x) == test_y)) for i in range(draws)
    ]
    return FewLabelResult(
        mean=float(np.mean(accuracies)),
        std=float(np.std(accuracies, ddof=1)),
        accuracies=tuple(accuracies),
        per_class=None if fraction else per_class,
        fraction=fraction,
        train_size=chosen_RN.shape[1],
        l2=l2,
        seed=seed,
        test_size=len(test_y),
        max_steps=max_steps,
        converged=bool(probes.converged.all()),
    )


def few_label_row(
    result: FewLabelResult, *, representation: str, layer: str, split: str = "test"
) -> Row:
    """Record a few-label probe; its interval is Student's t over samples, on one test set."""
    from scipy.special import stdtrit  # Student's t by its quantile; scipy is slow to import

    draws = len(result.accuracies)
    half = float(stdtrit(draws - 1, 0.975)) * result.std / draws**0.5
    return {
        "representation": representation,
        "layer": layer,
        "protocol": {
            "name": "few-label",
            "solver": "lbfgs",
            "objective": OBJECTIVES["lbfgs"],
            "labels_per_class": result.per_class,
            "fraction": result.fraction,
            "train_size": result.train_size,
            "draws": draws,
            "seed": result.seed,
            "draw": "stratified, without replacement",
            "l2": result.l2,
            "selection": "fixed beforehand",
            "standardized": True,
            "max_steps": result.max_steps,
            "converged": result.converged,
        },
        "split": split,
        "n": result.test_size,
        "measure": "accuracy",
        "value": result.mean,
        "ci95": [max(0.0, result.mean - half), min(1.0, result.mean + half)],
        "ci95_method": "student-t over draws",
        "std": result.std,
        "values": list(result.accuracies),
    }


def _class_counts(
    y_N: np.ndarray, n_classes: int, per_class: int, fraction: float | None, draws: int
) -> np.ndarray:
    """Count the examples of each class in a sample, [C]."""
    has_C = np.bincount(y_N, minlength=n_classes)
    if fraction is not None and draws >= 2 and 0 < fraction < 1:
        return np.where(has_C > 0, np.maximum(1, np.round(fraction * has_C)), 0).astype(int)
    if fraction is not None or has_C.min() < per_class or per_class < 1 or draws < 2:
        wanted = (
            f"{per_class} labels" if fraction is None else f"a fraction {fraction} of the labels"
        )
        raise ValueError(
            f"need draws >= 2 samples of at least 1 label a class, got {draws} of {wanted}; "
            f"the rarest class, {has_C.argmin()}, has {has_C.min()} examples"
        )
    return np.full(n_classes, per_class)


def _sampled_rows(y_N: np.ndarray, count_C: np.ndarray, seed: tuple[int, int]) -> np.ndarray:
    """Sample so many rows of each class without replacement, [P]."""
    rng = np.random.default_rng(seed)
    members = ((np.flatnonzero(y_N == label), count) for label, count in enumerate(count_C))
    return np.concatenate([rng.choice(rows, count, replace=False) for rows, count in members])
