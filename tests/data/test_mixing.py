"""Several sets mixed: their shares, that each is shown whole, and that a step is all it takes."""

import numpy as np
import pytest

from contrastive_jax.data import mixing
from contrastive_jax.data.examples import batch_rows

NAMES = ["faq", "forum", "manual"]
CASES = [
    ([40, 13, 9], None, "batch"),
    ([40, 13, 9], (1, 3, 2), "batch"),
    ([40, 13, 9], None, "example"),
    ([40, 13, 9], (7, 1, 2), "example"),
    ([3, 50, 2], (1, 1, 1), "example"),  # two sets that are shown several times a batch
]
B = 8


def sets_of(rows, sizes):
    return np.searchsorted(np.cumsum(sizes), rows, side="right")


@pytest.mark.parametrize(("sizes", "weights", "by"), CASES)
def test_shares_are_exact_and_an_epoch_of_a_set_shows_each_example_once(sizes, weights, by):
    mix = mixing.make(NAMES, sizes, B, weights, by)
    unit, cycle = mix.unit(B), sum(mix.weights)
    rows_at = mixing.rows_at(mix, B, seed=3)
    batches = [rows_at(step) for step in range(4 * cycle)]
    assert all(rows.shape == (B,) and rows.dtype == np.int32 for rows in batches)
    draws = np.concatenate(batches).reshape(-1, unit)
    of_draw = sets_of(draws[:, 0], sizes)
    if by == "batch":
        assert (sets_of(draws, sizes) == of_draw[:, None]).all()
    for start in range(0, len(of_draw) - cycle + 1, cycle):
        counted = np.bincount(of_draw[start : start + cycle], minlength=3)
        assert tuple(counted) == mix.weights
    for number, (first, size) in enumerate(zip(np.cumsum([0, *sizes]), sizes, strict=False)):
        shown = draws[of_draw == number].ravel()
        per_epoch = size // unit * unit
        epochs = shown[: len(shown) // per_epoch * per_epoch].reshape(-1, per_epoch)
        assert all(len(set(epoch)) == per_epoch for epoch in epochs.tolist())
        assert shown.min() >= first
        assert shown.max() < first + size
        if len(epochs) > 1 and size > 3:
            assert (epochs[0] != epochs[1]).any()


@pytest.mark.parametrize(("sizes", "weights", "by"), CASES)
def test_a_step_alone_decides_its_rows(sizes, weights, by):
    mix = mixing.make(NAMES, sizes, B, weights, by)
    rows_at = mixing.rows_at(mix, B, seed=5)
    whole = [rows_at(step).tolist() for step in range(60)]
    for step in (59, 17, 0, 33):
        assert mixing.rows_at(mix, B, seed=5)(step).tolist() == whole[step]
    assert [mixing.rows_at(mix, B, seed=6)(step).tolist() for step in range(60)] != whole


def test_without_weights_an_epoch_shows_every_example_once():
    mix = mixing.make(NAMES, [40, 16, 8], B)
    rows_at = mixing.rows_at(mix, B, seed=0)
    rows = [rows_at(step) for step in range(mix.steps_per_epoch(B))]
    assert sorted(np.concatenate(rows).tolist()) == list(range(64))
    assert mixing.make(NAMES, [15, 15, 15], B).steps_per_epoch(B) == 3  # 7 of each are left out
    assert mixing.make(NAMES, [15, 15, 15], B, by="example").steps_per_epoch(B) == 5


@pytest.mark.parametrize("weights", [None, (5,)])
def test_a_mix_of_one_set_is_that_set(weights):
    mix = mixing.make(["faq"], [30], B, weights)
    rows_at = mixing.rows_at(mix, B, seed=7)
    for step in range(12):
        np.testing.assert_array_equal(rows_at(step), batch_rows(step, 30, B, seed=7))


@pytest.mark.parametrize(
    ("sizes", "options", "message"),
    [
        ([9, 9, 9], {"weights": (1, 2)}, "2 numbers for 3 sets; give as many numbers, or 2 paths"),
        ([9, 9, 9], {"weights": (1, 0, 2)}, "whole numbers of 1 or more"),
        ([9, 9, 9], {"weights": (0.5, 0.25, 0.25)}, "whole numbers of 1 or more"),
        ([9, 9, 9], {"by": "row"}, "give one of"),
        ([9, 7, 9], {}, "forum has 7 training pairs of its own, and a draw takes 8"),
        ([9, 0, 9], {"by": "example"}, "all pairs of forum are in an earlier set"),
        ([9, 9, 9], {"weights": (10**9, 1, 1)}, "have the sum 1,000,000,002; give at most 10,000"),
    ],
)
def test_what_cannot_be_mixed_is_refused_by_name(sizes, options, message):
    with pytest.raises(ValueError, match=message):
        mixing.make(NAMES, sizes, B, **options)
