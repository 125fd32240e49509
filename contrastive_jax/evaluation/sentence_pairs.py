"""Score similarities of pairs of texts: against graded labels, against classes, within triplets.

With s_i the similarity of pair i, y_i its label, and cos the cosine of two vectors:

    Pearson      correlation of s and y;  Spearman: of their ranks, equal values sharing the mean
    AP           sum_t (R_t - R_{t-1}) P_t over the distinct similarities t from above, with P_t and
                 R_t precision and recall of "pairs with s_i >= t are alike"
    best F1      max_t 2 P_t R_t / (P_t + R_t)
    triplets     the fraction with cos(anchor, positive) > cos(anchor, negative); equal is wrong

They are those of sentence-transformers' EmbeddingSimilarityEvaluator, BinaryClassificationEvaluator
and TripletEvaluator. The threshold of the best F1 is chosen on the very pairs that it is scored on.

Cer et al. 2017 (SemEval STS, arXiv 1708.00055); Reimers & Gurevych 2019 (arXiv 1908.10084).
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from contrastive_jax.evaluation import intervals


class Score(NamedTuple):
    """A value on N pairs or triplets, with the interval of other samples of them."""

    value: float
    interval: intervals.Interval
    n: int


def cosines(first_ND: np.ndarray, second_ND: np.ndarray) -> np.ndarray:
    """Compute the cosine of each row of the first with that of the second, float64 [N]; 0 of zeros.

    >>> cosines(np.array([[3.0, 0], [0, 0]]), np.array([[3.0, 4], [1, 0]])).round(6).tolist()
    [0.6, 0.0]
    """
    first_ND, second_ND = (np.asarray(x, np.float64) for x in (first_ND, second_ND))
    lengths_N = np.linalg.norm(first_ND, axis=1) * np.linalg.norm(second_ND, axis=1)
    return np.einsum("nd,nd->n", first_ND, second_ND) / np.maximum(lengths_N, 1e-12)


def pearson(score_N: np.ndarray, label_N: np.ndarray) -> float:
    """Correlate similarities with labels; nan where either is constant.

    >>> round(pearson(np.array([1.0, 2, 3]), np.array([1.0, 3, 2])), 6)
    0.5
    """
    x_N, y_N = score_N - np.mean(score_N), label_N - np.mean(label_N)
    if not x_N.any() or not y_N.any():
        return float("nan")
    return float(x_N @ y_N / (np.linalg.norm(x_N) * np.linalg.norm(y_N)))


def spearman(score_N: np.ndarray, label_N: np.ndarray) -> float:
    """Correlate the ranks of similarities with those of labels; nan where either is constant.

    >>> round(spearman(np.array([0.1, 0.2, 0.9]), np.array([1, 2, 3])), 6)
    1.0
    """
    from scipy.stats import rankdata

    return pearson(rankdata(score_N), rankdata(label_N))


def average_precision(score_N: np.ndarray, label_N: np.ndarray) -> float:
    """Compute the AP of labels 0 and 1; nan without a 1.

    >>> average_precision(np.array([0.9, 0.5, 0.5, 0.1]), np.array([1, 1, 0, 0]))
    0.8333333333333333
    """
    precision_T, recall_T = _by_threshold(score_N, label_N)
    return float(np.diff(recall_T, prepend=0.0) @ precision_T)


def best_f1(score_N: np.ndarray, label_N: np.ndarray) -> float:
    """Compute the F1 of the best threshold for labels 0 and 1; nan without a 1.

    >>> best_f1(np.array([0.9, 0.5, 0.5, 0.1]), np.array([1, 1, 0, 0]))
    0.8
    """
    precision_T, recall_T = _by_threshold(score_N, label_N)
    return float(np.max(2 * precision_T * recall_T / np.maximum(precision_T + recall_T, 1e-300)))


def triplet_accuracy(positive_N: np.ndarray, negative_N: np.ndarray) -> float:
    """Compute the fraction of triplets whose positive is more similar than the negative.

    >>> triplet_accuracy(np.array([0.9, 0.5]), np.array([0.1, 0.5]))
    0.5
    """
    return float(np.mean(positive_N > negative_N))


def _by_threshold(score_N: np.ndarray, label_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall at each distinct similarity, the largest first."""
    order = np.argsort(-score_N, kind="stable")
    last_T = np.append(np.flatnonzero(np.diff(score_N[order])), len(order) - 1)
    hits_T = np.cumsum(label_N[order])[last_T]
    total = hits_T[-1] if hits_T[-1] else np.nan
    return hits_T / (last_T + 1), hits_T / total


MEASURES: Mapping[str, Mapping[str, Callable[..., float]]] = {  # of arrays [N], by kind of data
    "similarity": {"Spearman": spearman, "Pearson": pearson},
    "classes": {"AP": average_precision, "best F1": best_f1},
    "triplets": {"accuracy": triplet_accuracy},
}


def score(
    kind: str, *columns: np.ndarray, resamples: int = 2000, seed: int = 0
) -> dict[str, Score]:
    """Compute the measures of a kind of data, with 95 % intervals over its rows.

    Args:
      kind: "similarity" of similarities [N] and graded labels [N]; "classes" of similarities [N]
        and labels 0 and 1 [N]; "triplets" of similarities to the positives [N] and the
        negatives [N].
      columns: those two.
      resamples, seed: of the bootstrap.

    Raises:
      ValueError: another kind, columns that are not two vectors of finite numbers, or labels that
        are all the same.

    >>> found = score("triplets", np.array([0.9, 0.8, 0.1]), np.array([0.1, 0.2, 0.3]))
    >>> round(found["accuracy"].value, 4), found["accuracy"].n
    (0.6667, 3)
    """
    if kind not in MEASURES or len(columns) != 2:
        raise ValueError(f"{len(columns)} columns of {kind!r}; give two of one of {[*MEASURES]}")
    first_N, second_N = (np.asarray(x, np.float64) for x in columns)
    if first_N.ndim != 1 or first_N.shape != second_N.shape or not len(first_N):
        raise ValueError(f"columns are {first_N.shape} and {second_N.shape}; give both as [N]")
    if not np.isfinite([first_N, second_N]).all():
        raise ValueError("similarities and labels must be finite")
    if kind != "triplets" and len(np.unique(second_N)) < 2:
        raise ValueError("the labels are all the same; give at least two values")
    return {
        name: Score(
            measure(first_N, second_N),
            intervals.bootstrap_of(measure, first_N, second_N, resamples=resamples, seed=seed),
            len(first_N),
        )
        for name, measure in MEASURES[kind].items()
    }
