"""Judge claims: verdicts from means and standard errors over seeds, as pure functions."""

import math
from collections.abc import Sequence
from typing import NamedTuple

REPRODUCED, NOT_REPRODUCED, UNDECIDED = "reproduced", "not reproduced", "undecided"
ERRORS = 2.0  # how many standard errors a difference must exceed


class Sample(NamedTuple):
    """The mean of a number over n seeds and its standard error, None for fewer than two."""

    mean: float
    error: float | None
    n: int


class Verdict(NamedTuple):
    """The outcome for a claim, and the numbers that it follows from."""

    outcome: str
    reasons: tuple[str, ...]


def sample(values: Sequence[float]) -> Sample:
    """Compute a mean and its standard error.

        s / sqrt(n),   s^2 = sum (x - mean)^2 / (n - 1)

    Args:
      values: one number a seed.

    Raises:
      ValueError: no value, or one that is not finite.

    >>> sample([0.0, 0.5])
    Sample(mean=0.25, error=0.25, n=2)
    """
    n = len(values)
    if n == 0 or not all(math.isfinite(value) for value in values):
        raise ValueError(f"the values are {tuple(values)}; give at least one, all finite")
    mean = math.fsum(values) / n
    if n == 1:
        return Sample(mean, None, n)
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    return Sample(mean, math.sqrt(variance / n), n)


def above(
    high: Sequence[float],
    low: Sequence[float],
    by: float = 0.0,
    *,
    names: tuple[str, str] = ("the first", "the second"),
) -> Verdict:
    """Judge whether one number is larger than another by more than a given amount.

        d = mean(high) - mean(low) - by,   se^2 = se(high)^2 + se(low)^2

    reproduced where d > 2 se, not reproduced where d < -2 se, else undecided; undecided too where
    one of them has a single seed.

    Args:
      high, low: one number a seed each, as fractions of 1; seeds are independent runs.
      by: the least difference.
      names: of the two, for the reason.

    >>> above([0.80, 0.82], [0.70, 0.71]).outcome
    'reproduced'
    >>> above([0.80], [0.70], names=("SimCLR", "the pixels")).reasons
    ('SimCLR is 10.0 points (one seed) above the pixels',)
    """
    difference, error = _difference(high, low)
    claimed = f" (claimed: by more than {100 * by:.1f})" if by else ""
    return Verdict(_sign(difference - by, error), (_sentence(names, difference, error) + claimed,))


def close(
    first: Sequence[float],
    second: Sequence[float],
    within: float,
    *,
    names: tuple[str, str] = ("the first", "the second"),
) -> Verdict:
    """Judge whether two numbers differ by less than a given amount.

    reproduced where |d| + 2 se < within, not reproduced where |d| - 2 se > within, else undecided.

    Args:
      first, second: one number a seed each, as fractions of 1.
      within: the largest difference, positive.
      names: of the two, for the reason.

    Raises:
      ValueError: within <= 0.

    >>> close([0.80, 0.81], [0.80, 0.80], within=0.05).outcome
    'reproduced'
    """
    if within <= 0:
        raise ValueError(f"within is {within}; give a difference above 0")
    difference, error = _difference(first, second)
    outcome = _sign(within - abs(difference), error)
    claimed = f" (claimed: by less than {100 * within:.1f})"
    return Verdict(outcome, (_sentence(names, difference, error) + claimed,))


def all_of(*verdicts: Verdict) -> Verdict:
    """Combine the parts of a claim: it fails with any part, and is undecided where one is.

    >>> all_of(Verdict("reproduced", ("a",)), Verdict("undecided", ("b",)))
    Verdict(outcome='undecided', reasons=('a: reproduced', 'b: undecided'))
    """
    outcomes = [verdict.outcome for verdict in verdicts]
    order = (NOT_REPRODUCED, UNDECIDED, REPRODUCED)
    outcome = next(name for name in order if name in outcomes)
    reasons = (
        (f"{reason}: {verdict.outcome}" if len(verdict.reasons) == 1 else reason)
        for verdict in verdicts
        for reason in verdict.reasons
    )
    return Verdict(outcome, tuple(reasons))


def _difference(first: Sequence[float], second: Sequence[float]) -> tuple[float, float | None]:
    a, b = sample(first), sample(second)
    known = a.error is not None and b.error is not None
    return a.mean - b.mean, math.hypot(a.error, b.error) if known else None  # type: ignore


def _sign(difference: float, error: float | None) -> str:
    if error is None or abs(difference) <= ERRORS * error:
        return UNDECIDED
    return REPRODUCED if difference > 0 else NOT_REPRODUCED


def _sentence(names: tuple[str, str], difference: float, error: float | None) -> str:
    """Write a difference in percentage points, with two standard errors."""
    spread = f" ± {100 * ERRORS * error:.1f} points" if error is not None else " points (one seed)"
    side = "above" if difference >= 0 else "below"
    return f"{names[0]} is {100 * abs(difference):.1f}{spread} {side} {names[1]}"
