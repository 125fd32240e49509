"""Verdicts: the sign beyond two standard errors, in either direction, or undecided."""

import numpy as np
import pytest
from scipy import stats

from contrastive_jax.evaluation import claims


def test_standard_error_is_scipys():
    values = [0.81, 0.79, 0.84, 0.80]
    measured = claims.sample(values)
    np.testing.assert_allclose(measured.mean, np.mean(values))
    np.testing.assert_allclose(measured.error, stats.sem(values))


@pytest.mark.parametrize(
    ("high", "low", "by", "outcome"),
    [
        ([0.80, 0.82], [0.70, 0.71], 0.0, "reproduced"),
        ([0.70, 0.71], [0.80, 0.82], 0.0, "not reproduced"),
        ([0.80, 0.82], [0.70, 0.71], 0.2, "not reproduced"),
        ([0.80, 0.82], [0.70, 0.71], 0.1, "undecided"),
        ([0.80, 0.82], [0.795, 0.815], 0.0, "undecided"),
        ([0.8, 0.8], [0.8, 0.8], 0.0, "undecided"),
        ([0.9], [0.1, 0.1], 0.0, "undecided"),
    ],
)
def test_above_needs_two_standard_errors(high, low, by, outcome):
    assert claims.above(high, low, by).outcome == outcome


def test_the_boundary_is_two_standard_errors_of_the_difference():
    low, spread = np.array([0.49, 0.51]), np.array([-0.01, 0.01])
    error = np.hypot(stats.sem(low), stats.sem(spread))
    for factor, outcome in ((1.99, "undecided"), (2.01, "reproduced")):
        high = low.mean() + factor * error + spread
        assert claims.above(high, low).outcome == outcome


def test_close_is_symmetric_and_refuses_what_is_far():
    near, far = ([0.80, 0.801], [0.79, 0.791]), ([0.80, 0.801], [0.70, 0.701])
    for pair, outcome in ((near, "reproduced"), (far, "not reproduced")):
        assert claims.close(*pair, within=0.05).outcome == outcome
        assert claims.close(*pair[::-1], within=0.05).outcome == outcome
    with pytest.raises(ValueError, match="within is 0"):
        claims.close(*near, within=0)


def test_a_claim_of_parts_falls_with_any_and_waits_for_any():
    yes, no, open_ = (
        claims.Verdict(o, ("why",)) for o in ("reproduced", "not reproduced", "undecided")
    )
    assert claims.all_of(yes, yes).outcome == "reproduced"
    assert claims.all_of(yes, open_).outcome == "undecided"
    assert claims.all_of(yes, open_, no).outcome == "not reproduced"
    assert claims.all_of(yes, no).reasons == ("why: reproduced", "why: not reproduced")


@pytest.mark.parametrize("values", [[], [0.5, float("nan")]])
def test_no_mean_of_nothing_or_nan(values):
    with pytest.raises(ValueError, match="give at least one, all finite"):
        claims.sample(values)
