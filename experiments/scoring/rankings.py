"""Rankings of a collection by several systems: values by query, tests between systems, texts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from contrastive_jax.data.text.collection import Collection
from contrastive_jax.evaluation import bm25, intervals, neighbors
from contrastive_jax.evaluation.ranking import Comparison, Ranked, Results
from contrastive_jax.evaluation.results import Row

MOVED = 10  # queries that gained and lost most, of each comparison
PROTOCOL = {
    "ties": "larger document id first",
    "identical_ids": "taken out",
    "unanswered_queries": "count 0",
    "intervals": "percentile bootstrap over queries",
    "tests": "randomization, two-sided; Holm over all pairs",
}


def by_words(target: Collection, k: int) -> Results:
    """Rank by BM25."""
    ids, index = list(target.documents), bm25.Bm25(list(target.documents.values()))
    found = index.search(list(target.queries.values()), k)
    return {
        query: {ids[row]: float(value) for row, value in zip(*best, strict=True)}
        for query, best in zip(target.queries, found, strict=True)
    }


def by_cosine(target: Collection, query_QD: np.ndarray, document_ND: np.ndarray, k: int) -> Results:
    """Rank by the cosine of vectors in the order of the collection."""
    ids = list(target.documents)
    # equal similarities are in the order of the rows: the larger id first, as in a ranking
    larger_first = sorted(range(len(ids)), key=ids.__getitem__, reverse=True)
    near_QK, row_QK = neighbors.knn_neighbors(
        document_ND[larger_first], query_QD, k=min(k, len(ids))
    )
    return {
        query: {ids[larger_first[row]]: float(value) for row, value in zip(rows, near, strict=True)}
        for query, rows, near in zip(target.queries, row_QK.tolist(), near_QK, strict=True)
    }


def rows(
    target: Collection, scored: Ranked, measures: Sequence[str], *, representation: str, layer: str
) -> list[Row]:
    """Record the means of a system, each with its interval and how it was obtained."""
    about = {
        "name": "ranking",
        "task": "query to document",
        "queries": len(scored.query),
        "documents": len(target.documents),
        "metric": "BM25" if layer == "words" else "cosine",
        **{key: PROTOCOL[key] for key in ("ties", "identical_ids")},
    }
    found = []
    for measure in measures:
        row = {
            "representation": representation,
            "layer": layer,
            "protocol": {**about, "measure": measure},
            "split": target.split,
            "n": len(scored.query),
            "measure": measure,
            **_mean(scored.values[measure]),
        }
        found.append(row)
    return found


def by_group(
    target: Collection, scored: Mapping[str, Ranked], measures: Sequence[str]
) -> dict[str, Any]:
    """Record the means over the queries of each group, of all documents, with their intervals.

    Returns:
      group -> {"queries": n, "systems": system -> measure -> value with its interval}; {} where
      queries have no groups.
    """
    found: dict[str, Any] = {}
    for system, each in scored.items():
        group_Q = np.array([target.groups.get(query, "") for query in each.query])
        for group in dict.fromkeys(group_Q[group_Q != ""].tolist()):
            own_Q = group_Q == group
            about = found.setdefault(group, {"queries": int(own_Q.sum()), "systems": {}})
            about["systems"][system] = {
                measure: _mean(each.values[measure][own_Q]) for measure in measures
            }
    return found


def _mean(value_Q: np.ndarray) -> dict[str, Any]:
    interval = intervals.bootstrap(value_Q)
    drawn = f"{interval.resamples} resamples, seed {interval.seed}"
    return {
        "value": float(value_Q.mean()),
        "ci95": [interval.low, interval.high],
        "ci95_method": f"percentile bootstrap over queries, {drawn}",
    }


def said_of_group(found: Mapping[str, Any], measure: str, counted: str = "queries") -> str:
    """Say what each system has of a group, in a line."""
    values = [f"{name} {of[measure]['value']:.4f}" for name, of in found["systems"].items()]
    return f"{measure} of its {found[counted]:,} {counted}: {', '.join(values)}"


def said(test: Comparison) -> str:
    """Say a comparison in a line."""
    low, high = test.interval.low, test.interval.high
    return (
        f"{test.second} - {test.first}: {test.difference:+.4f} ({low:+.4f} to {high:+.4f}), "
        f"p = {test.p_value:.3g}, {test.p_holm:.3g} by Holm"
    )


def compared(
    target: Collection, scored: Mapping[str, Ranked], tests: Sequence[Comparison], chosen: str
) -> list[dict[str, Any]]:
    """Record comparisons of two systems, with the queries that moved most."""
    return [
        {
            **test._asdict(),
            "measure": chosen,
            "interval": test.interval._asdict(),
            **moved(target, scored[test.first], scored[test.second], chosen),
        }
        for test in tests
    ]


def moved(target: Collection, first: Ranked, second: Ranked, chosen: str) -> dict[str, Any]:
    """The queries that gained and lost most, with their texts."""
    gain_Q = second.values[chosen] - first.values[chosen]
    rising = np.argsort(gain_Q, kind="stable")

    def named(rows: Sequence[int]) -> list[dict[str, Any]]:
        return [
            {
                "query_id": first.query[row],
                "text": target.queries[first.query[row]],
                "first": float(first.values[chosen][row]),
                "second": float(second.values[chosen][row]),
            }
            for row in rows
        ]

    lost = [row for row in rising[:MOVED] if gain_Q[row] < 0]
    won = [row for row in rising[::-1][:MOVED] if gain_Q[row] > 0]
    return {"improved": named(won), "harmed": named(lost)}
