"""Compute intervals and paired tests of scores on one test set.

They describe the sampling of test examples, not the variation between training seeds: for that,
train several times.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

_AT_ONCE = 2**23  # indices sampled at a time
_Z95 = 1.959963984540054  # standard normal quantile of 0.975


class Interval(NamedTuple):
    """A confidence interval and how to repeat it."""

    low: float
    high: float
    level: float
    resamples: int
    seed: int


class McNemar(NamedTuple):
    """Counts of examples on which two classifiers differ, and the p-value of the exact test."""

    only_first: int  # examples that only the first has right
    only_second: int
    p_value: float  # two-sided, exact


class Paired(NamedTuple):
    """Two runs on the same test examples."""

    n: int
    difference: float  # mean of the second minus mean of the first
    interval: Interval  # of the difference, paired bootstrap
    mcnemar: McNemar | None  # for values that are all 0 or 1


def wilson_interval(hits: int, n: int) -> tuple[float, float]:
    """Compute the 95 % score interval of a proportion, sound near 0 and 1 and for small n.

    (p + z^2/2n ± z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n), p = hits / n, z = 1.96. It describes
    the sampling of test examples, not training seeds.

    >>> low, high = wilson_interval(0, 10)
    >>> low, round(high, 4)
    (0.0, 0.2775)

    Wilson 1927 (JASA 22), equation 6.
    """
    fraction, spread = hits / n, _Z95**2 / n
    center = fraction + spread / 2
    half = _Z95 * float(np.sqrt(fraction * (1 - fraction) / n + spread / (4 * n)))
    return max(0.0, (center - half) / (1 + spread)), min(1.0, (center + half) / (1 + spread))


def bootstrap(
    values_N: np.ndarray, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Compute the percentile interval of a mean, from means of N values sampled with replacement.

    Args:
      values_N: one finite number an example: hits, or average precisions.
      level: of confidence, in (0, 1).
      resamples: how many means are sampled.
      seed: of the samples; equal seeds and sizes sample the same examples.

    Raises:
      ValueError: values that are not a vector of finite numbers, a level or a count out of range.

    >>> interval = bootstrap(np.arange(100) % 2)
    >>> 0.38 < interval.low < 0.44, 0.56 < interval.high < 0.62
    (True, True)

    Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.
    """
    values_N = _checked(values_N)
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"need a level in (0, 1) and resamples >= 1, got {level}, {resamples}")
    means = [
        values_N[index_RN].mean(axis=1) for index_RN in _resampled(len(values_N), resamples, seed)
    ]
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(np.concatenate(means), [tail, 100 - tail])
    return Interval(float(low), float(high), level, resamples, seed)


def bootstrap_of(
    statistic: Callable[..., float],
    *columns: np.ndarray,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Compute the percentile interval of any statistic of N examples, sampled with replacement.

    Samples without a value (nan), as of one class alone, are left out.

    Args:
      statistic: of the columns of a sample.
      columns: [N] each, sampled together.
      level, resamples, seed: as of `bootstrap`.

    Raises:
      ValueError: columns of different lengths, or a level or a count out of range.

    >>> interval = bootstrap_of(np.median, np.arange(101.0))
    >>> 35 < interval.low < 50 < interval.high < 65
    True
    """
    n = len(columns[0])
    if not 0 < level < 1 or resamples < 1 or any(len(column) != n for column in columns):
        raise ValueError(
            f"need a level in (0, 1), resamples >= 1 and equal lengths, got {level}, {resamples}, "
            f"{[len(column) for column in columns]}"
        )
    found = [
        statistic(*(column[index_N] for column in columns))
        for index_RN in _resampled(n, resamples, seed)
        for index_N in index_RN
    ]
    tail = 100 * (1 - level) / 2
    low, high = np.nanpercentile(found, [tail, 100 - tail])
    return Interval(float(low), float(high), level, resamples, seed)


def _resampled(n: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Sample indices in blocks [R, N]; they do not depend on the size of the blocks."""
    rng = np.random.default_rng(seed)
    rows = max(1, _AT_ONCE // n)
    for start in range(0, resamples, rows):
        yield rng.integers(n, size=(min(rows, resamples - start), n))


def mcnemar(first_N: np.ndarray, second_N: np.ndarray) -> McNemar:
    """Test exactly whether two classifiers are right equally often, on the same examples.

    Of the examples that only one of them has right, the number x of the first is binomial with
    p = 1/2 under the hypothesis: p_value = P(|X - n/2| >= |x - n/2|), X ~ Binomial(n, 1/2).

    Args:
      first_N, second_N: bool, whether each has example n right.

    Raises:
      ValueError: if they are not booleans of one shape [N].

    >>> mcnemar(np.array([True] * 6 + [False]), np.array([False] * 6 + [True])).p_value
    0.125

    McNemar 1947 (Psychometrika 12).
    """
    from scipy.stats import binomtest

    first_N, second_N = np.asarray(first_N), np.asarray(second_N)
    if first_N.shape != second_N.shape or {first_N.dtype, second_N.dtype} != {np.dtype(bool)}:
        raise ValueError(
            f"need two vectors of booleans on the same examples, got {first_N.dtype} "
            f"{first_N.shape} and {second_N.dtype} {second_N.shape}"
        )
    only_first, only_second = int(np.sum(first_N & ~second_N)), int(np.sum(second_N & ~first_N))
    differ = only_first + only_second
    p_value = float(binomtest(only_first, differ).pvalue) if differ else 1.0
    return McNemar(only_first, only_second, p_value)


def paired(first_N: np.ndarray, second_N: np.ndarray, **settings: float | int) -> Paired:
    """Compare two runs on the same examples: the difference, its interval and an exact test.

    Args:
      first_N, second_N: one number an example, in the same order: hits, or average precisions.
      settings: `level`, `resamples` and `seed` of `bootstrap`.

    Raises:
      ValueError: different shapes, or as `bootstrap`.

    >>> better = paired(np.arange(100) % 2 == 0, np.arange(100) % 4 != 1)
    >>> better.difference, better.interval.low > 0, better.mcnemar.only_second
    (0.25, True, 25)
    """
    first_N, second_N = np.asarray(first_N), np.asarray(second_N)
    if first_N.shape != second_N.shape:
        raise ValueError(
            f"a paired test needs the same examples, got {first_N.shape} and {second_N.shape}"
        )
    difference_N = _checked(second_N) - _checked(first_N)
    hits = first_N.dtype == second_N.dtype == bool
    return Paired(
        n=len(difference_N),
        difference=float(difference_N.mean()),
        interval=bootstrap(difference_N, **settings),  # type: ignore
        mcnemar=mcnemar(first_N, second_N) if hits else None,
    )


def randomization_test(
    first_N: np.ndarray, second_N: np.ndarray, *, resamples: int = 10_000, seed: int = 0
) -> float:
    """Test whether two means on the same examples are equal, by swapping the two at random.

    d = second - first, s_rn = 1 or -1:   p = (1 + #{r: |sum_n s_rn d_n| >= |sum_n d_n|}) / (1 + R)

    Args:
      first_N, second_N: one finite number an example, in the same order.
      resamples: how many swaps are sampled; p is at least 1 / (1 + resamples).
      seed: of the samples.

    Raises:
      ValueError: different shapes, values that are not finite, or resamples < 1.

    >>> randomization_test(np.zeros(20), np.ones(20), resamples=999)
    0.001

    Smucker, Allan & Carterette 2007 (CIKM), section 3.1.
    """
    first_N, second_N = _checked(first_N), _checked(second_N)
    if first_N.shape != second_N.shape or resamples < 1:
        shapes = f"{first_N.shape}, {second_N.shape}"
        raise ValueError(f"need equal shapes and resamples >= 1, got {shapes}, {resamples}")
    d_N = second_N - first_N
    d_N = d_N[d_N != 0]  # equal pairs change no sum
    if not len(d_N):
        return 1.0
    observed, rng, extreme = abs(d_N.sum()), np.random.default_rng(seed), 0
    rows = max(1, _AT_ONCE // len(d_N))
    for start in range(0, resamples, rows):
        sign_RN = 2.0 * rng.integers(2, size=(min(rows, resamples - start), len(d_N))) - 1
        # sums of the same numbers in another order are equal but for rounding
        extreme += int(np.sum(np.abs(sign_RN @ d_N) >= observed * (1 - 1e-12)))
    return (1 + extreme) / (1 + resamples)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number; the chance of one false finding among all is bounded.

    The i-th smallest of m becomes the largest of (m - j + 1) p_(j) over j <= i, at most 1.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]

    Holm 1979 (Scandinavian Journal of Statistics 6).
    """
    p_M = np.asarray(p_values, np.float64)
    rank_M = np.argsort(p_M, kind="stable")
    corrected_M = np.empty_like(p_M)
    grown_M = p_M[rank_M] * np.arange(len(p_M), 0, -1)
    corrected_M[rank_M] = np.minimum(np.maximum.accumulate(grown_M), 1.0)
    return corrected_M.tolist()


def compare(
    predictions: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]
) -> dict[str, dict[str, Any]]:
    """Test the predictions of one run against another's, for each protocol that both have.

    Args:
      predictions: those of this run by name, and the "label" of the test examples. Names that begin
        with "trained/" are compared.
      other: the same of another run, on the same test examples.

    Returns:
      By name, `Paired` as nested dicts ready for JSON: this run minus the other.

    >>> label = np.array([0, 1, 1, 0])
    >>> compare({"label": label, "trained/h": label}, {"trained/h": 1 - label})["trained/h"]["n"]
    4
    """
    label_N = predictions["label"]
    shared = [key for key in predictions if key in other and key.startswith("trained/")]
    return {k: record(paired(other[k] == label_N, predictions[k] == label_N)) for k in shared}


def record(test: Paired) -> dict[str, Any]:
    """Nest a paired test as dicts, ready for JSON.

    >>> record(paired(np.zeros(4, bool), np.ones(4, bool)))["mcnemar"]["p_value"]
    0.125
    """
    return {
        **test._asdict(),
        "interval": test.interval._asdict(),
        "mcnemar": test.mcnemar._asdict() if test.mcnemar else None,
    }


def _checked(values_N: np.ndarray) -> np.ndarray:
    values_N = np.asarray(values_N, np.float64)
    if values_N.ndim != 1 or len(values_N) == 0 or not np.isfinite(values_N).all():
        raise ValueError(f"need finite values [N] with N >= 1, got shape {values_N.shape}")
    return values_N
