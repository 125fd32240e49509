"""Intervals and paired tests against closed forms, scipy and enumeration."""

import math

import numpy as np
import pytest
from scipy.stats import bootstrap as scipy_bootstrap

from contrastive_jax.evaluation import intervals


@pytest.fixture(scope="module")
def values():
    return np.random.default_rng(0).exponential(size=400)


def test_the_interval_is_that_of_scipy_and_of_the_normal_law(values):
    ours = intervals.bootstrap(values, resamples=4000)
    theirs = scipy_bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile"
    ).confidence_interval
    spread = values.std(ddof=1) / 20
    np.testing.assert_allclose([ours.low, ours.high], [theirs.low, theirs.high], atol=0.15 * spread)
    half = 1.96 * spread
    np.testing.assert_allclose(
        [ours.low, ours.high], [values.mean() - half, values.mean() + half], atol=0.3 * spread
    )


def test_equal_seeds_give_equal_intervals_however_many_fit_at_once(values, monkeypatch):
    whole = intervals.bootstrap(values, resamples=50, seed=3)
    monkeypatch.setattr(intervals, "_AT_ONCE", 7 * 400)
    assert intervals.bootstrap(values, resamples=50, seed=3) == whole
    assert intervals.bootstrap(values, resamples=50, seed=4) != whole


@pytest.mark.parametrize(("hits", "n"), [(0, 7), (7, 7), (913, 1000), (1, 2)])
def test_wilson_bounds_are_where_the_score_test_turns(hits, n):
    for bound in intervals.wilson_interval(hits, n):
        error = abs(hits / n - bound) - 1.959963984540054 * np.sqrt(bound * (1 - bound) / n)
        assert min(bound, 1 - bound) < 1e-12 or abs(error) < 1e-9


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (3, 3), (1, 8), (20, 5)])
def test_mcnemar_sums_the_binomial_by_hand(only_first, only_second):
    n = only_first + only_second
    first = np.array([True] * only_first + [False] * only_second + [True, False])
    second = np.array([False] * only_first + [True] * only_second + [True, False])
    far = abs(only_first - n / 2)
    by_hand = sum(math.comb(n, x) for x in range(n + 1) if abs(x - n / 2) >= far) / 2**n
    test = intervals.mcnemar(first, second)
    assert (test.only_first, test.only_second) == (only_first, only_second)
    np.testing.assert_allclose(test.p_value, by_hand, rtol=1e-12)


def test_a_paired_interval_is_narrower_than_two_unpaired_ones():
    rng = np.random.default_rng(1)
    first = rng.random(500) < 0.7
    second = np.where(rng.random(500) < 0.05, True, first)  # right where the first is, and more
    test = intervals.paired(first, second)
    assert test.difference == pytest.approx(second.mean() - first.mean())
    assert test.interval.low > 0
    assert test.mcnemar is not None
    assert test.mcnemar.p_value < 0.05
    alone = intervals.bootstrap(first), intervals.bootstrap(second)
    assert alone[1].low < alone[0].high  # unpaired, the two do not differ significantly
    assert intervals.paired(first, first).difference == 0.0
    assert intervals.paired(first * 0.5, second * 0.5).mcnemar is None


def test_what_cannot_be_compared_is_refused(values):
    for match, call in {
        "finite": lambda: intervals.bootstrap(np.array([1.0, np.nan])),
        "level": lambda: intervals.bootstrap(values, level=1.0),
        "same examples": lambda: intervals.paired(values, values[1:]),
        "booleans": lambda: intervals.mcnemar(values, values),
    }.items():
        with pytest.raises(ValueError, match=match):
            call()


def test_runs_are_compared_on_what_the_trained_encoders_of_both_predicted():
    rng = np.random.default_rng(0)
    label, mine, theirs = rng.integers(3, size=(3, 200))
    kept = {"trained/features/ridge": mine, "trained/z/ridge": mine, "pixels/pixels/ridge": mine}
    other = {"trained/features/ridge": theirs, "pixels/pixels/ridge": theirs, "label": label}
    tests = intervals.compare({**kept, "label": label}, other)
    assert list(tests) == ["trained/features/ridge"]
    test = tests["trained/features/ridge"]
    points = [int(a == y) - int(b == y) for a, b, y in zip(mine, theirs, label, strict=True)]
    assert test["difference"] == pytest.approx(np.mean(points))
    assert test["mcnemar"]["only_second"] == points.count(1)  # the second is the run itself
    assert test["mcnemar"]["only_first"] == points.count(-1)
