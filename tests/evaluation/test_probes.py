"""Probes reach scikit-learn's optimum, and nothing about the test set influences the probe."""

import json
import re
import warnings

import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from contrastive_jax import parallel
from contrastive_jax.evaluation import few_labels, logistic, probes, results

GRID = (1e-4, 1e-2, 1.0)
QUICK_COMPILE = {"xla_backend_optimization_level": 0}


@pytest.fixture(scope="module")
def digits():
    """Train and test halves; three of the 64 pixels are constant."""
    x, y = load_digits(return_X_y=True)
    x, order = x.astype(np.float32), np.random.default_rng(0).permutation(len(y))
    return x[order[:600]], y[order[:600]], x[order[600:]], y[order[600:]]


@pytest.fixture(scope="module")
def result(digits):
    return probes.linear_probe(*digits, n_classes=10, l2_grid=GRID)


@pytest.fixture(scope="module")
def few(digits):
    return few_labels.few_label_probe(*digits, n_classes=10, per_class=10, draws=3)


def objective(fitted, x, y, l2):
    x = (x.astype(np.float64) - fitted.mean) / fitted.std
    logits = x @ fitted.weight.astype(np.float64) + fitted.bias
    picked = logits[np.arange(len(y)), y]
    loss = np.log(np.exp(logits - picked[:, None]).sum(axis=1)).mean()
    return loss + l2 / 2 * (fitted.weight.astype(np.float64) ** 2).sum()


def sklearn_fit(x, y, l2):
    scaler = StandardScaler().fit(x)
    model = LogisticRegression(C=1 / (len(y) * l2), tol=1e-8, max_iter=5000)
    return scaler, model.fit(scaler.transform(x), y)


@pytest.mark.parametrize("l2", [*GRID, 1e-5])  # at 1e-5 the digits are nearly separable
def test_a_fit_reaches_the_optimum_that_sklearn_finds(digits, l2):
    x, y, test_x, test_y = digits
    with jax.transfer_guard("disallow"):
        fitted = logistic.fit_logistic(x, y, n_classes=10, l2=l2, max_steps=5000)
    scaler, model = sklearn_fit(x, y, l2)
    theirs = fitted._replace(weight=model.coef_.T, bias=model.intercept_)
    best = objective(theirs, x, y, l2)
    assert fitted.converged
    np.testing.assert_allclose(fitted.mean, scaler.mean_, rtol=1e-5)
    np.testing.assert_allclose(fitted.objective, objective(fitted, x, y, l2), rtol=1e-4)
    np.testing.assert_allclose(fitted.objective, best, rtol=1e-4)
    their_accuracy = model.score(scaler.transform(test_x), test_y)
    assert abs(np.mean(logistic.predict(fitted, test_x) == test_y) - their_accuracy) <= 1e-3


def test_the_penalty_spares_the_bias(digits):
    rare = np.where(digits[1] > 2, digits[1], 0)  # class 0 is frequent, 1 and 2 are absent
    fitted = logistic.fit_logistic(digits[0], rare, n_classes=10, l2=100.0)
    logits = (digits[0] - fitted.mean) / fitted.std @ fitted.weight + fitted.bias
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(p.mean(axis=0), np.bincount(rare, minlength=10) / 600, atol=1e-3)


def test_fitting_strengths_jointly_is_fitting_each_alone(digits, result):
    x, y = digits[:2]
    alone = logistic.fit_logistic(x, y, n_classes=10, l2=result.l2)
    np.testing.assert_array_equal(logistic.predict(alone, digits[2]), result.predictions)
    jointly = logistic.fit_grid(x, y, 10, GRID, 500)
    for i, l2 in enumerate(GRID):
        one = logistic.fit_logistic(x, y, n_classes=10, l2=l2)
        np.testing.assert_allclose(jointly.objective[i], one.objective, rtol=1e-4)


def test_a_path_in_any_order_and_in_any_tiles_reaches_the_same_optima(digits, monkeypatch):
    x, y = digits[:2]
    grid = tuple(np.logspace(-3, 2, 11)[[4, 0, 9, 2, 10, 1, 3, 8, 5, 7, 6]])
    path = logistic.fit_grid(x, y, 10, grid, 500)  # two groups of fits, the second not full
    assert path.converged.all()
    monkeypatch.setattr(logistic, "_TILE_ROWS", 256)  # 600 rows do not fill the last tile
    monkeypatch.setattr(logistic, "_FITS_PER_PASS", 1)
    one = logistic.fit_grid(x[:, ::-1], y, 10, grid[2:5], 500)
    np.testing.assert_allclose(one.objective, path.objective[2:5], rtol=1e-4)
    np.testing.assert_allclose(one.weight[:, ::-1], path.weight[2:5], atol=2e-3)
    for i, l2 in enumerate(grid):
        np.testing.assert_allclose(
            path.objective[i], objective(logistic.select(path, i), x, y, l2), rtol=1e-4
        )


def test_memory_does_not_grow_with_the_number_of_strengths():
    n, features = 20_000, 32
    stop = logistic.Stop(np.int32(9), np.float32(1e-3))
    specs = jax.ShapeDtypeStruct((n, features), np.float32), jax.ShapeDtypeStruct((n,), np.int32)

    def temporary(strengths: int) -> int:
        l2 = jax.ShapeDtypeStruct((strengths,), np.float32)
        known = {"n_classes": 10, "n": n, "mesh": parallel.mesh_of_parts(1)}
        lowered = logistic._fit_strengths.lower(*specs, l2, stop, **known)
        return lowered.compile(QUICK_COMPILE).memory_analysis().temp_size_in_bytes

    logits_of_all = 4 * 45 * 10 * n
    assert temporary(45) < temporary(9) + logits_of_all / 20


def test_any_number_of_devices_fits_and_chooses_as_one(digits, result, monkeypatch):
    monkeypatch.setattr(logistic, "_TILE_ROWS", 64)  # 600 rows: no device has but padding
    x, y = digits[0][:597], digits[1][:597]  # which no number of devices below divides
    grid = (1e-2,)
    one = logistic.fit_grid(x, y, 10, grid, 500, devices=jax.devices()[:1])
    for count in (2, 8):
        many = logistic.fit_grid(x, y, 10, grid, 500, devices=jax.devices()[:count])
        np.testing.assert_allclose(many.mean, one.mean, rtol=1e-6)
        np.testing.assert_allclose(many.std, one.std, rtol=1e-6)
        np.testing.assert_allclose(many.objective, one.objective, rtol=1e-5)
        np.testing.assert_allclose(many.weight, one.weight, atol=2e-3)
    split = probes.linear_probe(*digits, n_classes=10, l2_grid=GRID)  # on all devices by default
    assert split.l2 == result.l2
    np.testing.assert_array_equal(split.predictions, result.predictions)


def test_devices_exchange_gradients_once_a_pass_and_no_features():
    n, features = 40_000, 32
    mesh = parallel.make_mesh()
    split, whole = parallel.batched(mesh), parallel.replicated(mesh)

    def spec(shape, dtype, sharding):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    examples = spec((n, features), np.float32, split), spec((n,), np.int32, split)
    stop = logistic.Stop(spec((), np.int32, whole), spec((), np.float32, whole))
    l2, known = spec((2,), np.float32, whole), {"n_classes": 10, "n": n, "mesh": mesh}
    lowered = logistic._fit_strengths.lower(*examples, l2, stop, **known)
    program = lowered.compile(QUICK_COMPILE).as_text()
    assert program.count("f32[2,10,33]{2,1,0}) all-reduce(") == 1
    assert not re.search(r" (all-gather|all-to-all|collective-permute)\(", program)


def test_constant_features_get_no_weight_and_scale_and_shift_change_nothing(digits):
    x, y = digits[:2]
    constant = np.where(np.arange(64) < 5, np.float32(0.1), x)
    fitted = logistic.fit_logistic(constant, y, n_classes=10, l2=1e-2)
    moved = logistic.fit_logistic(constant * 1000 + 7, y, n_classes=10, l2=1e-2)
    np.testing.assert_array_equal(fitted.weight[:5], 0.0)
    np.testing.assert_array_equal(fitted.std[:5], 1.0)
    np.testing.assert_allclose(fitted.weight, moved.weight, atol=2e-3)
    np.testing.assert_allclose(fitted.objective, moved.objective, rtol=1e-4)


def test_the_test_set_does_not_influence_the_choice(digits, result):
    x, y, test_x, test_y = digits
    shuffled = np.random.default_rng(1).permutation(test_y)
    other = probes.linear_probe(x, y, test_x[::-1], shuffled, n_classes=10, l2_grid=GRID)
    assert other.l2 == result.l2
    assert other.validation_accuracy == result.validation_accuracy
    np.testing.assert_array_equal(other.predictions[::-1], result.predictions)
    assert result.accuracy > 0.9
    assert other.accuracy < 0.3


def test_equal_validation_accuracies_go_to_the_larger_penalty(digits):
    x, y, test_x, test_y = digits
    x, test_x = (np.eye(64, dtype=np.float32)[labels] for labels in (y, test_y))  # always right
    chosen = probes.linear_probe(x, y, test_x, test_y, n_classes=10, l2_grid=(1e-1, 1.0, 1e-2))
    assert chosen.validation_accuracy == (1.0, 1.0, 1.0)
    assert chosen.l2 == 1.0


@pytest.mark.parametrize("seed", [0, 1])
def test_the_split_is_stratified_seeded_and_spares_single_examples(seed):
    y = np.array([0] * 40 + [1] * 20 + [2])
    fit, held = results.stratified_split(y, 0.1, seed)
    assert sorted([*fit, *held]) == list(range(61))
    np.testing.assert_array_equal(np.bincount(y[held], minlength=3), [4, 2, 0])
    np.testing.assert_array_equal(held, results.stratified_split(y, 0.1, seed)[1])
    assert set(held) != set(results.stratified_split(y, 0.1, seed + 1)[1])


def test_an_absent_class_is_never_predicted_and_one_class_always(digits):
    x, y, test_x, _ = digits
    without = logistic.fit_logistic(x, np.where(y == 3, 4, y), n_classes=10, l2=1e-2)
    assert without.converged
    assert 3 not in logistic.predict(without, test_x)
    single = logistic.fit_logistic(x, np.full(600, 3), n_classes=10, l2=1e-2)
    assert set(logistic.predict(single, test_x)) == {3}


def test_a_fit_that_runs_out_of_steps_says_so(digits):
    fitted = logistic.fit_logistic(*digits[:2], n_classes=10, l2=1e-4, max_steps=3)
    assert not fitted.converged
    assert fitted.steps == 3


def test_few_label_probes_equal_separate_fits_on_ten_labels_a_class(digits, few):
    x, y, test_x, test_y = digits
    for i, accuracy in enumerate(few.accuracies):
        chosen = few_labels._sampled_rows(y, np.full(10, 10), (0, i))
        assert len(set(chosen)) == 100
        np.testing.assert_array_equal(np.bincount(y[chosen]), 10)
        scaler, model = sklearn_fit(x[chosen], y[chosen], few.l2)
        assert abs(model.score(scaler.transform(test_x), test_y) - accuracy) <= 1e-3
    assert few.converged
    assert 0.7 < few.mean < 0.95
    np.testing.assert_allclose(few.std, np.std(few.accuracies, ddof=1), rtol=1e-9)
    assert len(set(few.accuracies)) > 1


def test_a_fraction_of_the_labels_is_stratified_and_has_every_class(digits):
    x, y, test_x, test_y = digits
    assert set(few_labels._class_counts(y, 10, 10, 0.001, 2)) == {1}
    fraction, settings = 0.1, {"n_classes": 10, "draws": 2, "max_steps": 50}
    tenth = few_labels.few_label_probe(*digits, fraction=fraction, **settings)
    counts = np.maximum(1, np.round(fraction * np.bincount(y))).astype(int)
    assert tenth.train_size == counts.sum()
    chosen = few_labels._sampled_rows(y, counts, (0, 1))
    np.testing.assert_array_equal(np.bincount(y[chosen]), counts)
    scaler, model = sklearn_fit(x[chosen], y[chosen], tenth.l2)
    assert abs(model.score(scaler.transform(test_x), test_y) - tenth.accuracies[1]) <= 2e-3
    protocol = few_labels.few_label_row(tenth, representation="pixels", layer="raw")["protocol"]
    assert (protocol["fraction"], protocol["labels_per_class"]) == (fraction, None)


def test_rows_hold_their_whole_protocol_as_json(digits, result, few):
    linear = probes.linear_row(result, representation="pixels", layer="raw")
    scarce = few_labels.few_label_row(few, representation="pixels", layer="raw")
    for row in (linear, scarce):
        assert json.loads(json.dumps(row)) == row
        assert row["ci95"][0] < row["value"] < row["ci95"][1]
        assert row["n"] == len(digits[3])
    assert linear["protocol"]["selection"] == (
        "held-out 10 % of train, stratified, seed 0, the larger of equals"
    )
    assert "l2/2 |W|^2" in linear["protocol"]["objective"]
    assert linear["protocol"]["train_size"] == 600
    assert scarce["protocol"]["labels_per_class"] == 10


def test_what_cannot_be_fitted_is_refused(digits):
    x, y = digits[:2]
    holes = np.where(np.arange(600)[:, None] == 8, np.nan, x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for match, call in {
            "row 8": lambda: logistic.fit_logistic(holes, y, n_classes=10, l2=1.0),
            "unlabeled": lambda: logistic.fit_logistic(x, y - 1, n_classes=10, l2=1.0),
            "label 9": lambda: logistic.fit_logistic(x, y, n_classes=9, l2=1.0),
            "positive": lambda: logistic.fit_logistic(x, y, n_classes=10, l2=0.0),
            "test: 1 rows": lambda: probes.linear_probe(x, y, holes, y, n_classes=10),
            "holds out 0": lambda: probes.linear_probe(
                x[:9], y[:9], x, y, n_classes=10, validation_fraction=0.01
            ),
            "a fraction 1.5": lambda: few_labels.few_label_probe(
                x, y, x, y, n_classes=10, fraction=1.5
            ),
            "rarest class": lambda: few_labels.few_label_probe(
                x, y, x, y, n_classes=10, per_class=99
            ),
        }.items():
            with pytest.raises(ValueError, match=match):
                call()
