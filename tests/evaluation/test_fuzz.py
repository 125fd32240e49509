"""Fuzzing: miners choose what they may; all that measures is finite, else ValueError."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from contrastive_jax import mining
from contrastive_jax.evaluation import (
    diagnostics,
    few_labels,
    intervals,
    logistic,
    neighbors,
    probes,
    ridge,
)
from tests import sampled

N, D, Q, M, K, CLASSES = 6, 4, 3, 10, 3, 3
QUICK_COMPILE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
BALANCED = np.tile(np.arange(CLASSES), 4)  # a split of it has the same shape in any order


def examples(quick, slow):
    return pytest.mark.parametrize("examples", [quick, pytest.param(slow, marks=pytest.mark.slow)])


def of_each(fn):
    """Jitted, over many examples."""
    return jax.jit(jax.vmap(fn), compiler_options=QUICK_COMPILE)


def stack(build, recipes):
    return jax.tree.map(lambda *x: np.stack(x), *[build(recipe) for recipe in recipes])


def distances_and_labels(recipe):
    x = sampled.rows(recipe, N, D).astype(np.float64)
    d = np.linalg.norm(x[:, None] - x[None], axis=-1)
    d = np.where(d < 1e-37, 0.0, d)  # where XLA begins to take a number for zero
    return d.astype(np.float32), sampled.labels(recipe, N), np.uint32(recipe.seed)


@of_each
def mine_batch(d, labels, seed):
    key = jax.random.key(seed)
    return {
        "hardest": mining.hardest_negative(d, labels),
        "easy": mining.easy_positive(d, labels),
        "semi-hard": mining.semi_hard_negative(d, labels),
        "weighted": mining.distance_weighted_negative(key, d, labels, D),
    }


def check_mined(recipes):
    d, labels, seed = stack(distances_and_labels, recipes)
    mined = jax.device_get(mine_batch(d, labels, seed))
    same = labels[:, :, None] == labels[:, None, :]
    positive, negative = same & ~np.eye(N, dtype=bool), ~same
    rules = {"hardest": negative, "easy": positive, "weighted": negative & (d < 1.4)}
    for name, allowed in rules.items():
        index, valid = mined[name]
        chosen = np.take_along_axis(allowed, index[..., None], axis=2)[..., 0]
        np.testing.assert_array_equal(valid, allowed.any(axis=2), err_msg=name)
        assert chosen[valid].all(), name
    index, valid = mined["semi-hard"]
    farther = negative[:, :, None, :] & (d[:, :, None, :] > d[:, :, :, None])  # [R, i, p, n]
    np.testing.assert_array_equal(valid, positive & farther.any(axis=3))
    assert np.take_along_axis(farther, index[..., None], axis=3)[..., 0][valid].all()


@examples(2 * sampled.BATCH, sampled.EXAMPLES)
def test_miners_of_a_batch_choose_what_they_may_and_find_what_there_is(examples):
    sampled.each_of(sampled.recipes, check_mined, examples)


def queries_and_corpus(recipe):
    rng = np.random.default_rng(recipe.seed)
    x = sampled.rows(recipe, Q + M, D)
    return x[:Q], x[Q:], rng.integers(-1, M, size=(Q, 2)).astype(np.int32), np.uint32(recipe.seed)


@of_each
def mine_corpora(query, corpus, positives, seed):
    mine = functools.partial(mining.mine_corpus, query, corpus, positives, K, block_size=4)
    return {"best": mine(), "below": mine(margin=0.1, key=jax.random.key(seed))}


def check_corpus_mined(recipes):
    query, corpus, positives, seed = stack(queries_and_corpus, recipes)
    for mined in jax.device_get(mine_corpora(query, corpus, positives, seed)).values():
        assert not np.isnan(mined.score).any()
        assert ((mined.index >= 0) & (mined.index < M)).all()
        banned = (mined.index[..., None] == positives[:, :, None, :]).any(axis=3)
        assert not (banned & mined.valid).any()
        twice = mined.index[..., None] == mined.index[..., None, :]
        both = mined.valid[..., None] & mined.valid[..., None, :] & ~np.eye(K, dtype=bool)
        assert not (twice & both).any()


@examples(sampled.BATCH, sampled.EXAMPLES)
def test_negatives_of_a_corpus_are_others_and_once_each(examples):
    sampled.each_of(sampled.recipes, check_corpus_mined, examples)


@of_each
def diagnosed(z_BVD, temperature):
    z_ND = z_BVD.reshape(-1, D)
    alone = {
        "rankme": diagnostics.rankme(z_ND),
        "entropy rank": diagnostics.effective_rank(z_ND),
        "spectrum": diagnostics.dimension_spectrum(z_ND),
        "separation": diagnostics.class_separation(z_ND, np.arange(len(z_ND)) % 3),
        "uniformity alone": diagnostics.uniformity(z_ND),
    }
    return diagnostics.summary(z_BVD, temperature) | alone


def check_diagnostics(recipes):
    def build(recipe):
        return sampled.rows(recipe, N, D).reshape(N // 2, 2, D), sampled.temperature(recipe)

    for name, values in jax.device_get(diagnosed(*stack(build, recipes))).items():
        bad = np.flatnonzero(~np.isfinite(values.reshape(len(recipes), -1)).all(axis=1))
        assert len(bad) == 0, f"{name} is not finite for {recipes[bad[0]]}"


@pytest.mark.slow
def test_diagnostics_are_finite_numbers():
    sampled.each_of(sampled.recipes, check_diagnostics, sampled.EXAMPLES)


def unit(x):
    x = x.astype(np.float64)
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(norm > 0, norm, 1.0)


def check_neighbors(draw):
    recipe = draw(sampled.recipes)
    x = sampled.rows(recipe, Q + M, D)
    x[np.abs(x).max(axis=1) < 1e-28] = 0.0  # where a direction begins to be none
    for metric in neighbors.METRICS:
        similarity, index = neighbors.knn_neighbors(x[Q:], x[:Q], k=99, metric=metric)
        assert similarity.shape == index.shape == (Q, M)
        assert similarity.dtype == np.float32
        assert np.isfinite(similarity).all()
        assert (np.diff(similarity, axis=1) <= 0).all()
        assert (np.sort(index, axis=1)[:, 1:] != np.sort(index, axis=1)[:, :-1]).all()
        if metric == "cosine":
            slow = np.take_along_axis(unit(x[:Q]) @ unit(x[Q:]).T, index, axis=1)
            np.testing.assert_allclose(similarity, slow, atol=1e-5)


@examples(40, 2000)
def test_neighbors_are_finite_distinct_and_in_order_at_any_scale(examples):
    sampled.each(check_neighbors, examples)


def check_probes(draw):
    recipe, l2 = draw(sampled.recipes), 10.0 ** draw(st.integers(-6, 2))
    y = np.random.default_rng(recipe.seed).permutation(BALANCED)
    x = sampled.rows(recipe, len(y), D)
    fitted = {
        "logistic": logistic.fit_logistic(x, y, n_classes=CLASSES, l2=l2, max_steps=60),
        "ridge": logistic.select(ridge.fit_ridge(x, y, n_classes=CLASSES, l2_grid=(l2,)), 0),
    }
    for name, found in fitted.items():
        numbers = (found.weight, found.bias, found.mean, found.std, found.objective)
        assert all(np.isfinite(part).all() for part in numbers), name
        predicted = logistic.predict(found, x)
        assert ((predicted >= 0) & (predicted < CLASSES)).all()


@pytest.mark.slow
def test_probes_are_finite_numbers():
    sampled.each(check_probes, 2000)


def check_protocols(draw):
    recipe = draw(sampled.recipes)
    y = np.random.default_rng(recipe.seed).permutation(BALANCED)
    x = sampled.rows(recipe, len(y), D)
    settings = {"n_classes": CLASSES, "max_steps": 30}
    linear = probes.linear_probe(
        x, y, x, y, l2_grid=(1e-3, 1.0), validation_fraction=0.25, **settings
    )
    few = few_labels.few_label_probe(x, y, x, y, per_class=2, draws=2, **settings)
    assert 0 <= linear.accuracy <= 1
    assert 0 <= few.mean <= 1
    assert few.std >= 0


@pytest.mark.slow
def test_protocols_of_probes_give_an_accuracy():
    sampled.each(check_protocols, 300)


@pytest.mark.parametrize("size", [1e-25, 1.0, 1e30])
def test_a_probe_does_not_depend_on_the_scale_of_a_feature(size):
    x = np.random.default_rng(0).normal(size=(len(BALANCED), D)).astype(np.float32)
    x[:, 0] += 3 * BALANCED
    plain = logistic.fit_logistic(x, BALANCED, n_classes=CLASSES, l2=0.1)
    x[:, 0] *= np.float32(size)
    scaled = logistic.fit_logistic(x, BALANCED, n_classes=CLASSES, l2=0.1)
    np.testing.assert_allclose(scaled.objective, plain.objective, rtol=1e-3)


def check_statistics(draw):
    recipe = draw(sampled.recipes)
    values = sampled.rows(recipe, N, 1)[:, 0]
    interval = intervals.bootstrap(values.astype(np.float64), resamples=50)
    assert np.isfinite([interval.low, interval.high]).all()
    assert interval.low <= interval.high


@examples(10, 1000)
def test_intervals_are_finite_numbers(examples):
    sampled.each(check_statistics, examples)


d, y, x = np.ones((N, N), np.float32), np.zeros(N, np.int32), np.ones((N, D), np.float32)
rows = np.zeros((N, 1), np.int32)
key = functools.partial(jax.random.key, 0)
fit = functools.partial(logistic.fit_logistic, n_classes=CLASSES, l2=1.0)
BAD_INPUT = {
    "float labels": lambda: mining.hardest_negative(d, y.astype(np.float32)),
    "one label": lambda: mining.easy_positive(d, y[0]),
    "labels of others": lambda: mining.semi_hard_negative(d, y[:3]),
    "distances of others": lambda: mining.hardest_negative(d[:3], y),
    "integer distances": lambda: mining.hardest_negative(d.astype(np.int32), y),
    "no rows": lambda: mining.easy_positive(d[:0, :0], y[:0]),
    "a circle": lambda: mining.distance_weighted_negative(key(), d, y, 2),
    "no corpus": lambda: mining.mine_corpus(x, x[:0], rows, 1),
    "another dimension": lambda: mining.mine_corpus(x, x[:, :2], rows, 1),
    "positives of others": lambda: mining.mine_corpus(x, x, rows[:2], 1),
    "float positives": lambda: mining.mine_corpus(x, x, rows.astype(np.float32), 1),
    "excluded of others": lambda: mining.mine_corpus(x, x, rows, 1, excluded_QE=rows[:2]),
    "no negatives": lambda: mining.mine_corpus(x, x, rows, 0),
    "narrow ranks": lambda: mining.mine_corpus(x, x, rows, 3, ranks=(0, 2)),
    "features of one": lambda: neighbors.knn_neighbors(x[0], x, k=1),
    "an empty bank": lambda: neighbors.knn_neighbors(x[:0], x, k=1),
    "a query of NaN": lambda: neighbors.knn_neighbors(x, x * np.nan, k=1),
    "beyond float32": lambda: neighbors.knn_neighbors(x, x * np.float64(1e300), k=1),
    "no neighbors": lambda: neighbors.knn_neighbors(x, x, k=0),
    "unknown metric": lambda: neighbors.knn_neighbors(x, x, k=1, metric="dot"),
    "float classes": lambda: fit(x, y.astype(np.float32)),
    "a class below zero": lambda: fit(x, y - 1),
    "a class too many": lambda: fit(x, y + CLASSES),
    "infinite features": lambda: fit(x * np.inf, y),
    "no penalty": lambda: fit(x, y, l2=0.0),
    "nothing to fit": lambda: fit(x[:0], y[:0]),
    "float classes to separate": lambda: diagnostics.class_separation(x, y.astype(np.float32)),
    "one view": lambda: diagnostics.summary(jnp.ones((3, 1, D)), 0.5),
    "a temperature of zero": lambda: diagnostics.summary(jnp.ones((3, 2, D)), 0.0),
    "one row": lambda: diagnostics.rankme(jnp.ones((1, D))),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_is_refused_with_a_value_error(name):
    with pytest.raises(ValueError, match=".") as caught:
        BAD_INPUT[name]()
    assert str(caught.value).count("\n") < 3
