"""Record results with protocol and interval; split and check labels for all protocols."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from contrastive_jax._numerics import as_numpy
from contrastive_jax.evaluation.intervals import wilson_interval

Row = dict[str, Any]  # one result, ready for JSON
LabeledFeatures = tuple[np.ndarray, np.ndarray]  # features [N, F] and classes [N]


class Scored(NamedTuple):
    """A result and the predictions that it was computed from."""

    row: Row
    predictions: np.ndarray | None  # [N], the class given to each example, where there is one


def value_of(row: Mapping[str, Any]) -> float:
    """Read the number of a result; files of schema 1 call it "accuracy", whatever it measures.

    >>> value_of({"measure": "NMI", "value": 0.5}), value_of({"accuracy": 0.25})
    (0.5, 0.25)
    """
    return row["value"] if "value" in row else row["accuracy"]


def accuracy_row(
    hit_N: np.ndarray, protocol: Row, representation: str, layer: str, split: str
) -> Row:
    """Record an accuracy with its 95 % Wilson score interval and how it was obtained.

    >>> accuracy_row(np.array([True, True, False, True]), {"name": "knn"}, "pixels", "raw", "test")
    {'representation': 'pixels', 'layer': 'raw', 'protocol': {'name': 'knn'}, 'split': 'test',
     'n': 4, 'measure': 'accuracy', 'value': 0.75, 'ci95': [0.30064..., 0.95441...],
     'ci95_method': 'wilson'}
    """
    return {
        "representation": representation,
        "layer": layer,
        "protocol": protocol,
        "split": split,
        "n": len(hit_N),
        "measure": "accuracy",
        "value": float(np.mean(hit_N)),
        "ci95": list(wilson_interval(int(np.sum(hit_N)), len(hit_N))),
        "ci95_method": "wilson",
    }


def stratified_split(y_N: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split indices into those to fit on and those held out; each class keeps one to fit on.

    >>> fit, held = stratified_split(np.array([0] * 10 + [1] * 10), 0.1, seed=0)
    >>> len(fit), len(held)
    (18, 2)
    """
    rng = np.random.default_rng(seed)
    held_N = np.zeros(len(y_N), bool)
    for label in np.unique(y_N):
        members = rng.permutation(np.flatnonzero(y_N == label))
        held_N[members[: min(round(fraction * len(members)), len(members) - 1)]] = True
    if not 0 < fraction < 1 or not held_N.any():
        raise ValueError(
            f"validation_fraction {fraction} holds out {held_N.sum()} of {len(y_N)} examples: "
            "it must lie in (0, 1) and leave some to choose by"
        )
    return np.flatnonzero(~held_N), np.flatnonzero(held_N)


def as_labeled(name: str, examples: Any) -> LabeledFeatures:
    """Make arrays of features and classes that may be lists; ValueError as `check_labels`."""
    features_NF, label_N = (as_numpy(name, part) for part in examples)
    check_labels(name, features_NF, label_N)
    if label_N.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name}: label {label_N.max()} is beyond int64; number the classes")
    return features_NF, label_N.astype(np.int64)


def check_labels(name: str, features_NF: np.ndarray, label_N: np.ndarray) -> None:
    """Raise ValueError unless there is one class number >= 0 for each row of the features."""
    if label_N.shape != features_NF.shape[:1] or not np.issubdtype(label_N.dtype, np.integer):
        raise ValueError(
            f"{name}: features {features_NF.shape} need one integer label a row, "
            f"got {label_N.dtype} {label_N.shape}"
        )
    if label_N.size == 0 or label_N.min() < 0:
        unlabeled = int(np.sum(label_N < 0))
        raise ValueError(f"{name}: {unlabeled} of {label_N.size} examples are unlabeled (< 0)")
