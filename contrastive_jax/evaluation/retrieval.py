"""Score retrieval by label: how much of an example's neighborhood is of its class.

For a query whose class has R other examples among the references, ranked by similarity:

    P@1          the nearest is of the class
    R-precision  fraction of the class among the nearest R
    MAP@R        1/R sum_{i <= R} P(i) [the i-th is of the class], P(i) the precision of the first i
    recall@k     at least one of the nearest k is of the class

Musgrave, Belongie & Lim 2020 (A Metric Learning Reality Check, arXiv 2003.08505) for the first
three; recall@k as in Oh Song et al. 2016 (arXiv 1511.06452). Queries without another example of
their class have no defined value: they are left out, and counted.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from contrastive_jax.evaluation import intervals, neighbors
from contrastive_jax.evaluation.results import Row, accuracy_row, as_labeled

RECALL_AT = (1, 2, 4, 8)


class Retrieval(NamedTuple):
    """One number for each query that has a value, and what they were measured on."""

    values: dict[str, np.ndarray]  # measure -> [Q] float64
    query: np.ndarray  # [Q], the rows of the queries that have a value
    left_out: int  # queries without another example of their class
    references: int
    metric: str
    leave_one_out: bool


def retrieve(
    query: tuple[np.ndarray, np.ndarray],
    references: tuple[np.ndarray, np.ndarray] | None = None,
    *,
    recall_at: Sequence[int] = RECALL_AT,
    metric: str = "cosine",
) -> Retrieval:
    """Compute the measures of this module, from one tiled search for the largest R and k.

    Neither the similarity matrix nor the neighbors of all queries are held at once. Of equal
    similarities the lower reference comes first.

    Args:
      query: (features [N, F], labels [N] integer >= 0).
      references: the same of the examples to search; None: the queries, each without itself.
      recall_at: the k of recall@k.
      metric: "cosine" or "euclidean".

    Raises:
      ValueError: as `neighbors.knn_neighbors`, labels missing, a k < 1, or no query with a value.

    >>> x, y = np.array([[0.0, 1.0], [0.1, 1.0], [1.0, 0.0], [1.0, 0.1]]), np.array([0, 0, 0, 1])
    >>> found = retrieve((x, y), recall_at=(1,))
    >>> {name: value.tolist() for name, value in found.values.items()}
    {'P@1': [1.0, 1.0, 0.0], 'R-precision': [0.5, 0.5, 0.5], 'MAP@R': [0.5, 0.5, 0.25],
     'recall@1': [1.0, 1.0, 0.0]}
    """
    query = as_labeled("query", query)
    bank = query if references is None else as_labeled("references", references)
    if not recall_at or min(recall_at) < 1:
        raise ValueError(f"recall_at is {tuple(recall_at)}; give numbers of 1 or more")
    alone = references is None
    _, class_N = np.unique(np.concatenate([query[1], bank[1]]), return_inverse=True)
    of_query_N, of_bank_M = np.split(class_N, [len(query[1])])
    relevant_N = np.bincount(of_bank_M, minlength=len(class_N))[of_query_N] - alone
    valued_N = relevant_N > 0
    if not valued_N.any():
        raise ValueError("no query has another example of its class among the references")
    width = max(int(relevant_N.max()), *recall_at)
    parts, start = [], 0
    for found in neighbors.blocks(bank[0], query[0], width, (metric,), leave_one_out=alone):
        rows = slice(start, start + len(found[metric][1]))
        hit_QK = of_bank_M[found[metric][1]] == of_query_N[rows, None]
        kept_Q = valued_N[rows]
        parts.append(_measure(hit_QK[kept_Q], relevant_N[rows][kept_Q], recall_at))
        start = rows.stop
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    left_out = int(np.sum(~valued_N))
    return Retrieval(values, np.flatnonzero(valued_N), left_out, len(bank[0]), metric, alone)


def _measure(
    hit_QK: np.ndarray, relevant_Q: np.ndarray, recall_at: Sequence[int]
) -> dict[str, Any]:
    """Compute all measures of some queries, from whether each neighbor is of the class."""
    rank_K = np.arange(1, hit_QK.shape[1] + 1)
    inside_QK = hit_QK & (rank_K[None, :] <= relevant_Q[:, None])
    precision_QK = np.cumsum(hit_QK, axis=1) / rank_K[None, :]
    measures = {
        "P@1": hit_QK[:, 0].astype(np.float64),
        "R-precision": inside_QK.sum(axis=1) / relevant_Q,
        "MAP@R": (precision_QK * inside_QK).sum(axis=1) / relevant_Q,
    }
    recalls = {f"recall@{k}": hit_QK[:, :k].any(axis=1).astype(np.float64) for k in recall_at}
    return measures | recalls


def retrieval_rows(
    found: Retrieval, *, representation: str, layer: str, split: str = "test", seed: int = 0
) -> list[Row]:
    """Record a result for each measure, whose `value` is the mean; see `results.accuracy_row`.

    Fractions of hits have Wilson intervals, the others bootstrap ones.
    """
    return [
        _row(found, measure, value_Q, representation, layer, split, seed)
        for measure, value_Q in found.values.items()
    ]


def _row(
    found: Retrieval,
    measure: str,
    value_Q: np.ndarray,
    representation: str,
    layer: str,
    split: str,
    seed: int,
) -> Row:
    protocol = {
        "name": "retrieval",
        "measure": measure,
        "metric": found.metric,
        "normalized": found.metric == "cosine",
        "ties": "lower reference index",
        "references": "the other queries" if found.leave_one_out else "train",
        "reference_size": found.references,
        "queries_left_out": found.left_out,
    }
    row = accuracy_row(value_Q, protocol, representation, layer, split) | {"measure": measure}
    if measure in ("R-precision", "MAP@R"):
        interval = intervals.bootstrap(value_Q, seed=seed)
        method = f"percentile bootstrap, {interval.resamples} resamples, seed {seed}"
        row |= {"ci95": [interval.low, interval.high], "ci95_method": method}
    return row
