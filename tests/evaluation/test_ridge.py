"""Ridge probes equal scikit-learn's for every strength, from one eigendecomposition."""

import jax
import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from contrastive_jax.evaluation import logistic, probes, ridge

GRID = (1e-4, 1e-2, 1.0, 100.0)


@pytest.fixture(scope="module")
def blobs():
    """300 examples of 4 classes in 12 dimensions, one constant and one a copy of another."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, size=300)
    x = rng.normal(size=(4, 12))[y] + rng.normal(size=(300, 12))
    x[:, 3], x[:, 5] = 7.0, x[:, 4]
    return x.astype(np.float32), y


@pytest.fixture(scope="module")
def fits(blobs):
    with jax.transfer_guard("disallow"):
        return ridge.fit_ridge(*blobs, n_classes=4, l2_grid=GRID)


@pytest.mark.parametrize("i", range(len(GRID)))
def test_every_strength_reaches_the_optimum_that_sklearn_finds(blobs, fits, i):
    x, y = blobs
    fitted = logistic.select(fits, i)
    scaled = StandardScaler().fit_transform(x.astype(np.float64))
    model = Ridge(alpha=GRID[i] * len(y)).fit(scaled, np.eye(4)[y])
    np.testing.assert_allclose(fitted.weight.T, model.coef_, atol=2e-5)
    np.testing.assert_allclose(fitted.bias, model.intercept_, atol=1e-6)
    residual = model.predict(scaled) - np.eye(4)[y]
    objective = (residual**2).sum() / 600 + GRID[i] / 2 * (model.coef_**2).sum()
    np.testing.assert_allclose(fitted.objective, objective, rtol=1e-5)
    expected = model.predict(scaled).argmax(axis=1)
    assert np.mean(logistic.predict(fitted, x) == expected) >= 1 - 1e-3


def test_what_has_no_variance_gets_no_weight_and_copies_share_theirs(fits):
    np.testing.assert_allclose(fits.weight[:, 3], 0.0, atol=1e-7)
    np.testing.assert_allclose(fits.weight[:, 4], fits.weight[:, 5], atol=2e-5)


def test_the_probe_chooses_on_held_out_examples_and_names_its_solver(blobs):
    x, y = blobs
    halves = x[:200], y[:200], x[200:], y[200:]
    result = probes.ridge_probe(*halves, n_classes=4, l2_grid=GRID)
    other = probes.ridge_probe(*halves[:2], x[200:], (y[200:] + 1) % 4, n_classes=4, l2_grid=GRID)
    assert (other.l2, other.validation_accuracy) == (result.l2, result.validation_accuracy)
    assert result.accuracy > 0.7 > other.accuracy
    fit, held = probes.stratified_split(halves[1], 0.1, 0)
    fitted = ridge.fit_ridge(x[fit], y[fit], n_classes=4, l2_grid=GRID)
    slow = [
        np.mean(logistic.predict(logistic.select(fitted, i), x[held]) == y[held]) for i in range(4)
    ]
    assert result.validation_accuracy == tuple(slow)
    protocol = probes.linear_row(result, representation="blobs", layer="x")["protocol"]
    assert (protocol["name"], protocol["solver"]) == ("ridge", "eigendecomposition")
    assert protocol["refit"] == "on all of train"


def test_a_strength_of_zero_is_refused(blobs):
    with pytest.raises(ValueError, match="positive"):
        ridge.fit_ridge(*blobs, n_classes=4, l2_grid=(1.0, 0.0))
