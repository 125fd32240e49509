"""Similarities of pairs: what sentence-transformers says of them, and loops over thresholds."""

import json
from pathlib import Path

import numpy as np
import pytest

from contrastive_jax.evaluation import intervals, sentence_pairs

FROZEN = Path(__file__).parents[1] / "golden" / "sentence_pairs.json"
CASES = json.loads(FROZEN.read_text())["cases"]  # of benchmarks.peers.sentence_pair_scores


@pytest.mark.parametrize("case", CASES, ids=["nearly all tied", "many ties", "few ties"])
def test_scores_are_those_of_sentence_transformers(case):
    first, second, third = np.split(np.array(case["x"]), 3)
    to_second, to_third = (sentence_pairs.cosines(first, x) for x in (second, third))
    columns = {"similarity": case["score"], "classes": case["label"], "triplets": to_third}
    found = {}
    for kind, column in columns.items():
        found |= sentence_pairs.score(kind, to_second, np.array(column), resamples=5)
    assert found.keys() == case["expected"].keys()
    for name, value in case["expected"].items():
        assert found[name].value == pytest.approx(value, abs=1e-9)


def by_loops(score_N, label_N):
    """AP and best F1 of their definitions: every similarity is tried as a threshold."""
    ap, recall_before, f1 = 0.0, 0.0, 0.0
    for threshold in sorted(set(score_N), reverse=True):
        alike = score_N >= threshold
        precision, recall = label_N[alike].mean(), label_N[alike].sum() / label_N.sum()
        ap, recall_before = ap + (recall - recall_before) * precision, recall
        f1 = max(f1, 2 * precision * recall / (precision + recall) if precision else 0.0)
    return ap, f1


@pytest.mark.parametrize("levels", [1, 2, 5, 1000])
def test_classes_equal_loops_over_thresholds(levels):
    rng = np.random.default_rng(levels)
    score_N, label_N = rng.integers(0, levels, 40) / 8, rng.integers(0, 2, 40)
    ap, f1 = by_loops(score_N, label_N)
    assert sentence_pairs.average_precision(score_N, label_N) == pytest.approx(ap, abs=1e-12)
    assert sentence_pairs.best_f1(score_N, label_N) == pytest.approx(f1, abs=1e-12)


def test_spearman_sees_only_the_order():
    rng = np.random.default_rng(0)
    score_N, label_N = rng.normal(size=30), rng.integers(0, 4, 30)
    changed = sentence_pairs.spearman(np.exp(score_N), label_N)
    assert changed == pytest.approx(sentence_pairs.spearman(score_N, label_N), abs=1e-12)
    assert sentence_pairs.spearman(score_N, np.exp(score_N)) == pytest.approx(1)
    assert sentence_pairs.spearman(score_N, -score_N) == pytest.approx(-1)
    assert sentence_pairs.pearson(score_N, 3 - 2 * score_N) == pytest.approx(-1)


def test_the_interval_of_a_mean_is_that_of_bootstrap():
    x_N = np.random.default_rng(0).normal(size=50)
    assert intervals.bootstrap_of(np.mean, x_N, resamples=200) == pytest.approx(
        intervals.bootstrap(x_N, resamples=200), abs=1e-12
    )


def test_intervals_hold_the_value_and_samples_without_a_value_are_left_out():
    rng = np.random.default_rng(0)
    label_N = np.array([1] + [0] * 9)  # a third of the samples have no 1
    found = sentence_pairs.score("classes", rng.normal(size=10), label_N, resamples=200)
    for value, interval, n in found.values():
        assert interval.low <= value <= interval.high
        assert n == 10
    wide, narrow = (
        sentence_pairs.score("triplets", x, np.zeros_like(x), resamples=500)["accuracy"].interval
        for x in (np.tile([1.0, -1, 1], 10), np.tile([1.0, -1, 1], 1000))
    )
    assert (wide.high - wide.low) > 5 * (narrow.high - narrow.low)


@pytest.mark.parametrize(
    ("kind", "columns", "message"),
    [
        ("clases", (np.zeros(3), np.arange(3)), "2 columns of 'clases'"),
        ("classes", (np.zeros(3),), "1 columns of 'classes'"),
        ("classes", (np.zeros(3), np.arange(2)), r"\(3,\) and \(2,\)"),
        ("classes", (np.full(3, np.nan), np.arange(3)), "must be finite"),
        ("similarity", (np.arange(3), np.ones(3)), "the labels are all the same"),
        ("triplets", (np.zeros(0), np.zeros(0)), "give both as"),
    ],
)
def test_what_has_no_score_is_refused(kind, columns, message):
    with pytest.raises(ValueError, match=message):
        sentence_pairs.score(kind, *columns)
