"""Samples for the fuzzing tests: rows of every size and degeneracy, temperatures, labels.

Hypothesis samples recipes, and many recipes are built into arrays that run through one compiled
function: a shape is compiled once, however many examples it is given.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import strategies as st

BATCH = 128  # recipes in one call of a compiled function
EXAMPLES = 10_000  # of the slow run

PATTERNS = (
    "normal",
    "zeros",
    "constant",
    "one-hot",
    "antipodal",
    "duplicates",
    "one zero row",
    "one row is another size",
    "one entry is another size",
)
SIZES = (1.0, 1e-4, 1e4, 1e-18, 1e18, 1e-30, 1e30, 1e-37, 1e-40, 1e-45)
LABELS = ("equal", "different", "random", "pairs", "extreme")


class Recipe(NamedTuple):
    """One example, small enough to read in a report."""

    pattern: str
    size: float
    other_size: float  # of the row or entry that differs
    log_temperature: float  # to the base of 10
    labels: str
    seed: int


recipes = st.builds(
    Recipe,
    st.sampled_from(PATTERNS),
    st.sampled_from(SIZES),
    st.sampled_from(SIZES),
    st.floats(-3, 2, width=16),
    st.sampled_from(LABELS),
    st.integers(0, 2**16 - 1),
)


def each_of(strategy: Any, check: Callable, examples: int, batch: int = BATCH) -> None:
    """Call check(list of `batch` sampled values) until `examples` were seen.

    The check names the value that it refuses, so a long list is not worth shrinking.
    """

    @_always_the_same(-(-examples // batch), phases=[Phase.generate], verbosity=Verbosity.quiet)
    @given(st.lists(strategy, min_size=batch, max_size=batch))
    def fuzz(values: list[Any]) -> None:
        check(values)

    fuzz()


def each(check: Callable, examples: int) -> None:
    """Call check(sample), where sample(strategy) is a sampled value, `examples` times."""

    @_always_the_same(examples)
    @given(st.data())
    def fuzz(data: st.DataObject) -> None:
        check(data.draw)

    fuzz()


def _always_the_same(examples: int, **options: Any) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        **options,
    )


def rows(recipe: Recipe, n: int, dim: int, dtype: Any = np.float32) -> np.ndarray:
    """[n, dim] finite numbers of the dtype."""
    rng = np.random.default_rng(recipe.seed)
    x = rng.normal(size=(n, dim))
    match recipe.pattern:
        case "zeros":
            x = np.zeros((n, dim))
        case "constant":
            x = np.ones((n, dim))
        case "one-hot":
            x = np.eye(dim)[rng.integers(dim, size=n)]
        case "antipodal":
            x = np.where(rng.random((n, 1)) < 0.5, -x[:1], x[:1])
        case "duplicates":
            x = x[rng.integers(2, size=n) % n]
        case "one zero row":
            x[rng.integers(n)] = 0.0
    x = x * recipe.size
    if recipe.pattern == "one row is another size":
        x[rng.integers(n)] *= recipe.other_size / recipe.size
    if recipe.pattern == "one entry is another size":
        x[rng.integers(n), rng.integers(dim)] *= recipe.other_size / recipe.size
    limit = 0.9 * float(jnp.finfo(dtype).max)
    return np.clip(x, -limit, limit).astype(dtype)


def labels(recipe: Recipe, n: int, dtype: Any = np.int32) -> np.ndarray:
    rng = np.random.default_rng(recipe.seed + 1)
    match recipe.labels:
        case "equal":
            label = np.full(n, rng.integers(-3, 3))
        case "different":
            label = rng.permutation(n)
        case "random":
            label = rng.integers(3, size=n)
        case "pairs":
            label = np.arange(n) // 2
        case _:
            least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
            label = rng.choice(np.array([least, most, -1], dtype), size=n)
    return label.astype(dtype)


def temperature(recipe: Recipe) -> np.ndarray:
    return np.float32(10.0**recipe.log_temperature)
