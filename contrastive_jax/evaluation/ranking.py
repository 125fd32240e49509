"""Score rankings of documents: what the best k of each query hold of what is relevant to it.

With g_i the grade of the document at rank i (0 where it was not judged), h_i = [g_i > 0], R the
number of relevant documents of the query and g*_i the grades of its judged ones in falling order:

    nDCG@k         sum_{i <= k} g_i / log2(i + 1)  /  sum_{i <= k} g*_i / log2(i + 1)
    nDCG_binary@k  the same of h in place of g
    MRR@k          1 / rank of the first relevant document, 0 beyond k
    MAP@k          1/R sum_{i <= k} h_i P_i, P_i the precision of the first i
    MAP_capped@k   the same over min(R, k) in place of R
    recall@k       sum_{i <= k} h_i / R;    recall_capped@k  over min(R, k)
    precision@k    sum_{i <= k} h_i / k;    accuracy@k  whether any of h_1..h_k is 1
    hole@k         the fraction of ranks 1..k with a document that nobody judged for the query

nDCG, MAP, recall and precision are those of trec_eval (`ndcg_cut`, `map_cut`, `recall`, `P`);
nDCG_binary and MAP_capped are what sentence-transformers calls nDCG and MAP.

A ranking is in falling order of score; of equal scores the larger document id, as a string, comes
first, which is the rule of trec_eval. A document with the id of its query is taken out (BEIR).
Queries without a relevant document have no value: they are left out, and counted. A query that a
system did not answer counts 0.

Jarvelin & Kekalainen 2002 (ACM TOIS 20); Thakur et al. 2021 (BEIR, arXiv 2104.08663).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from contrastive_jax.evaluation import intervals

Grades = Mapping[str, Mapping[str, int]]  # query -> document -> grade; above 0 is relevant
Results = Mapping[str, Mapping[str, float]]  # query -> document -> score


class Ranked(NamedTuple):
    """One number for each query that has a value."""

    values: dict[str, np.ndarray]  # "nDCG@10" -> [Q] float64
    query: tuple[str, ...]  # ids [Q]
    left_out: int  # judged queries without a relevant document
    unanswered: int  # queries that the results lack; they count 0


class _Top(NamedTuple):
    """Grades along the best K ranks of each query."""

    grade_QK: np.ndarray  # 0 where not judged, or where the ranking is shorter
    unjudged_QK: np.ndarray  # bool
    ideal_QK: np.ndarray  # the best grades that there are
    relevant_Q: np.ndarray  # R


def _ndcg(top: _Top, k: int, binary: bool = False) -> np.ndarray:
    grade_QK, ideal_QK = top.grade_QK[:, :k], top.ideal_QK[:, :k]
    if binary:
        grade_QK, ideal_QK = grade_QK > 0, ideal_QK > 0
    discount_K = 1 / np.log2(np.arange(2, grade_QK.shape[1] + 2))
    return (grade_QK * discount_K).sum(axis=1) / (ideal_QK * discount_K).sum(axis=1)


def _precision_sum(top: _Top, k: int) -> np.ndarray:
    hit_QK = top.grade_QK[:, :k] > 0
    precision_QK = np.cumsum(hit_QK, axis=1) / np.arange(1, hit_QK.shape[1] + 1)
    return (precision_QK * hit_QK).sum(axis=1)


def _mrr(top: _Top, k: int) -> np.ndarray:
    hit_QK = top.grade_QK[:, :k] > 0
    return np.where(hit_QK.any(axis=1), 1 / (1 + hit_QK.argmax(axis=1)), 0.0)


def _hits(top: _Top, k: int) -> np.ndarray:
    return (top.grade_QK[:, :k] > 0).sum(axis=1)


MEASURES: Mapping[str, Callable[[_Top, int], np.ndarray]] = {
    "nDCG": _ndcg,
    "nDCG_binary": lambda top, k: _ndcg(top, k, binary=True),
    "MRR": _mrr,
    "MAP": lambda top, k: _precision_sum(top, k) / top.relevant_Q,
    "MAP_capped": lambda top, k: _precision_sum(top, k) / np.minimum(top.relevant_Q, k),
    "recall": lambda top, k: _hits(top, k) / top.relevant_Q,
    "recall_capped": lambda top, k: _hits(top, k) / np.minimum(top.relevant_Q, k),
    "precision": lambda top, k: _hits(top, k) / k,
    "accuracy": lambda top, k: (_hits(top, k) > 0).astype(np.float64),
    "hole": lambda top, k: top.unjudged_QK[:, :k].sum(axis=1) / k,
}


def score(
    results: Results,
    grades: Grades,
    *,
    at: Sequence[int] = (10,),
    measures: Sequence[str] = tuple(MEASURES),
    drop_identical: bool = True,
) -> Ranked:
    """Compute the measures of this module for each judged query.

    Args:
      results: scores of the documents that a system found, by query.
      grades: judgements by query. Grades below 0 count as 0.
      at: the k of every measure.
      measures: of `MEASURES`.
      drop_identical: take out a document whose id is that of its query.

    Raises:
      ValueError: an unknown measure, a k < 1, a score that is not a number, or no query that has a
        relevant document.

    >>> found = score({"q": {"a": 3.0, "b": 2.0, "c": 1.0}}, {"q": {"b": 1, "d": 2}}, at=(2,))
    >>> round(float(found.values["nDCG@2"][0]), 4), float(found.values["recall@2"][0])
    (0.2398, 0.5)
    """
    unknown = sorted(set(measures) - set(MEASURES))
    if unknown or not at or min(at) < 1:
        raise ValueError(f"need measures of {', '.join(MEASURES)} at k >= 1, got {unknown}, {at}")
    kept = tuple(query for query, judged in grades.items() if max(judged.values(), default=0) > 0)
    if not kept:
        raise ValueError(f"none of {len(grades)} judged queries has a relevant document")
    top = _top(results, grades, kept, max(at), drop_identical)
    values = {f"{name}@{k}": MEASURES[name](top, k) for name in measures for k in at}
    unanswered = sum(query not in results for query in kept)
    return Ranked(values, kept, len(grades) - len(kept), unanswered)


def _top(
    results: Results, grades: Grades, queries: Sequence[str], depth: int, drop_identical: bool
) -> _Top:
    shape = len(queries), depth
    grade_QK, ideal_QK = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    unjudged_QK, relevant_Q = np.zeros(shape, bool), np.zeros(len(queries), np.int64)
    for row, query in enumerate(queries):
        judged = grades[query]
        ranked = order(results.get(query, {}), depth, query if drop_identical else None)
        grade_QK[row, : len(ranked)] = [max(judged.get(document, 0), 0) for document in ranked]
        unjudged_QK[row, : len(ranked)] = [document not in judged for document in ranked]
        best = sorted((grade for grade in judged.values() if grade > 0), reverse=True)
        ideal_QK[row, : len(best[:depth])] = best[:depth]
        relevant_Q[row] = len(best)
    return _Top(grade_QK, unjudged_QK, ideal_QK, relevant_Q)


def order(scores: Mapping[str, float], k: int, without: str | None = None) -> list[str]:
    """Rank the ids of the best k documents; of equal scores the larger id comes first.

    >>> order({"a": 1.0, "b": 1.0, "c": 2.0}, k=2)
    ['c', 'b']

    Raises:
      ValueError: a score that is not a number.
    """
    for document, value in scores.items():
        if math.isnan(value):
            raise ValueError(f"the score of document {document!r} is not a number")
    ranked = sorted(scores.items(), key=lambda item: (item[1], item[0]), reverse=True)
    return [document for document, _ in ranked[: k + 1] if document != without][:k]


class Comparison(NamedTuple):
    """Two systems on the same queries."""

    first: str
    second: str
    difference: float  # mean of the second minus mean of the first
    interval: intervals.Interval  # of the difference, paired bootstrap
    p_value: float  # two-sided, randomization test
    p_holm: float  # corrected for all the pairs that were compared


def compare(values: Mapping[str, np.ndarray], *, seed: int = 0) -> list[Comparison]:
    """Test every pair of systems on the same queries, with Holm's correction.

    Args:
      values: one measure of each system, [Q], by name.
      seed: of the resamples.

    Raises:
      ValueError: different numbers of queries.

    >>> better = compare({"a": np.arange(50) % 2, "b": np.ones(50)})[0]
    >>> better.difference, better.p_holm < 0.001
    (0.5, True)
    """
    names = list(values)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    tests = [intervals.paired(values[a], values[b], seed=seed) for a, b in pairs]
    p_values = [intervals.randomization_test(values[a], values[b], seed=seed) for a, b in pairs]
    return [
        Comparison(*pair, test.difference, test.interval, p_value, corrected)
        for pair, test, p_value, corrected in zip(
            pairs, tests, p_values, intervals.holm(p_values), strict=True
        )
    ]
