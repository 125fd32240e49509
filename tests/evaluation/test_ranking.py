"""Measures of rankings against trec_eval's frozen values and loops written from the definitions."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contrastive_jax.evaluation import bm25, intervals, ranking

FROZEN = json.loads((Path(__file__).parents[1] / "golden" / "ranking.json").read_text())


@pytest.mark.parametrize("measure", FROZEN["expected"])
def test_measures_are_those_of_trec_eval(measure):
    name, _, k = measure.partition("@")
    found = ranking.score(
        FROZEN["results"], FROZEN["grades"], at=(int(k),), measures=(name,), drop_identical=False
    )
    np.testing.assert_allclose(found.values[measure], FROZEN["expected"][measure], atol=1e-12)


def oracle(scores, judged, k, query):
    """Every measure of one query by loops; the ranking is found by comparing pairs."""
    ranked = [d for d in scores if d != query]
    for i, j in itertools.product(range(len(ranked)), repeat=2):
        if i < j and (scores[ranked[i]], ranked[i]) < (scores[ranked[j]], ranked[j]):
            ranked[i], ranked[j] = ranked[j], ranked[i]
    best = sorted((g for g in judged.values() if g > 0), reverse=True)
    gains, hits, first, precisions, hole = [], 0, 0.0, 0.0, 0
    for rank, document in enumerate(ranked[:k], 1):
        gains.append(max(judged.get(document, 0), 0))
        hole += document not in judged
        if gains[-1] > 0:
            hits += 1
            first = first or 1 / rank
            precisions += hits / rank

    def dcg(values):
        return sum(v / math.log2(i + 2) for i, v in enumerate(values[:k]))

    few = min(k, len(best))
    return {
        "nDCG": dcg(gains) / dcg(best),
        "nDCG_binary": dcg([g > 0 for g in gains]) / dcg([1] * len(best)),
        "MRR": first,
        "MAP": precisions / len(best),
        "MAP_capped": precisions / few,
        "recall": hits / len(best),
        "recall_capped": hits / few,
        "precision": hits / k,
        "accuracy": float(hits > 0),
        "hole": hole / k,
    }


IDS = st.sampled_from([f"d{i}" for i in range(8)] + ["q"])


@settings(max_examples=60, deadline=None)
@given(
    scores=st.dictionaries(IDS, st.integers(0, 2).map(float), max_size=9),
    judged=st.dictionaries(IDS, st.integers(-1, 3), max_size=9),
    k=st.integers(1, 10),
)
def test_measures_are_those_of_loops_with_ties_and_identical_ids(scores, judged, k):
    judged = {**judged, "d0": 2}
    found = ranking.score({"q": scores}, {"q": judged}, at=(k,))
    expected = oracle(scores, judged, k, "q")
    assert set(expected) == set(ranking.MEASURES)
    for name, value in expected.items():
        np.testing.assert_allclose(found.values[f"{name}@{k}"], value, atol=1e-12, err_msg=name)


def test_queries_without_a_value_are_counted_and_unanswered_ones_are_zero():
    grades = {"a": {"x": 1}, "b": {"x": 0}, "c": {"x": 1}}
    found = ranking.score({"a": {"x": 1.0}}, grades, at=(5,))
    assert (found.query, found.left_out, found.unanswered) == (("a", "c"), 1, 1)
    assert found.values["nDCG@5"].tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"at": (0,)}, "k >= 1"),
        ({"at": ()}, "k >= 1"),
        ({"measures": ("ndcg",)}, "ndcg"),
        ({"grades": {"q": {"a": 0}}}, "none of 1 judged"),
        ({"results": {"q": {"a": float("nan")}}}, "'a' is not a number"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        ranking.score(**{"results": {"q": {"a": 1.0}}, "grades": {"q": {"a": 1}}, **options})


def test_all_pairs_are_compared_and_corrected():
    rng = np.random.default_rng(0)
    base = rng.random(80)
    values = {"a": base, "b": base + 0.1 * rng.random(80), "c": base.copy()}
    tests = {(t.first, t.second): t for t in ranking.compare(values)}
    assert list(tests) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert tests["a", "b"].interval.low > 0 > tests["b", "c"].interval.high
    assert tests["a", "c"].p_value == tests["a", "c"].p_holm == 1.0
    assert tests["a", "b"].p_holm == pytest.approx(3 * tests["a", "b"].p_value)


def test_the_randomization_test_approaches_the_count_over_all_signs():
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=9), rng.normal(0.5, size=9)
    d = second - first
    signs = np.array(list(itertools.product([-1, 1], repeat=9)))
    exact = np.mean(np.abs(signs @ d) >= abs(d.sum()) - 1e-12)
    sampled = intervals.randomization_test(first, second, resamples=20_000)
    assert sampled == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 20_000))
    with pytest.raises(ValueError, match="equal shapes"):
        intervals.randomization_test(first, second[1:])


def test_holm_is_its_definition_step_by_step():
    p_values = [0.01, 0.2, 0.005, 0.04, 0.04]
    expected = [0.0] * 5
    largest = 0.0
    for step, i in enumerate(sorted(range(5), key=p_values.__getitem__)):
        largest = expected[i] = min(1.0, max(largest, (5 - step) * p_values[i]))
    np.testing.assert_allclose(intervals.holm(p_values), expected)


def bm25_by_loops(documents, query, k1=1.2, b=0.75):
    split = [bm25.words(text) for text in documents]
    mean = sum(map(len, split)) / len(split)
    scores = []
    for words in split:
        total = 0.0
        for word in bm25.words(query):
            n = sum(word in other for other in split)
            idf = math.log(1 + (len(split) - n + 0.5) / (n + 0.5))
            f = words.count(word)
            total += idf * f * (k1 + 1) / (f + k1 * (1 - b + b * len(words) / mean))
        scores.append(total)
    return scores


@pytest.mark.parametrize("queries_at_once", [2, 100])
def test_bm25_is_its_formula(queries_at_once):
    rng = np.random.default_rng(2)
    vocabulary = [f"w{i}" for i in range(20)]
    texts = [" ".join(rng.choice(vocabulary, size=rng.integers(1, 15))) for _ in range(30)]
    queries = [*(" ".join(rng.choice(vocabulary, size=4)) for _ in range(4)), "unknown", ""]
    index = bm25.Bm25(texts)
    for query, (rows, scores) in zip(
        queries, index.search(queries, 7, queries_at_once=queries_at_once), strict=True
    ):
        expected = bm25_by_loops(texts, query)
        best = sorted((-s, row) for row, s in enumerate(expected) if s > 0)[:7]
        np.testing.assert_allclose(scores, [-s for s, _ in best], rtol=1e-12)
        np.testing.assert_allclose(np.array(expected)[rows], scores, rtol=1e-12)


@pytest.mark.parametrize("options", [{"documents": []}, {"k1": -1.0}, {"b": 1.5}])
def test_bm25_refuses_what_it_cannot_index(options):
    with pytest.raises(ValueError, match="need documents"):
        bm25.Bm25(**{"documents": ["a"], **options})


def test_documents_without_words_can_be_indexed():
    assert [rows.tolist() for rows, _ in bm25.Bm25(["", "..."]).search(["a"], 3)] == [[]]
