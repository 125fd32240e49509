"""What decays, what adapts, how the rate scales: by hand on two small parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax.training import optim

PARAMS = {
    "encoder": {"kernel": jnp.full((2, 2), 2.0), "bias": jnp.full((2,), 2.0)},
    "probe": {"kernel": jnp.full((2, 2), 2.0)},
}
GRADS = jax.tree.map(lambda p: jnp.full_like(p, 0.5), PARAMS)
LENGTH = {"batch_size": 512, "steps": 100, "steps_per_epoch": 10, "auxiliary": ("probe",)}


def first_update(**settings):
    optimizer, _ = optim.make(**settings, **LENGTH)
    updates, _ = optimizer.update(GRADS, optimizer.init(PARAMS), PARAMS)
    return jax.tree.map(lambda u: float(u.ravel()[0]), updates)


def test_sgd_decays_weights_only_and_never_the_probe():
    update = first_update(name="sgd", learning_rate=0.1, weight_decay=0.01)
    np.testing.assert_allclose(update["encoder"]["kernel"], -0.1 * (0.5 + 0.01 * 2), rtol=1e-6)
    np.testing.assert_allclose(update["encoder"]["bias"], -0.1 * 0.5, rtol=1e-6)
    np.testing.assert_allclose(update["probe"]["kernel"], -0.1 * 0.5, rtol=1e-6)


def test_decay_norm_and_bias_reaches_them_but_not_the_probe():
    update = first_update(learning_rate=0.1, weight_decay=0.01, decay_norm_and_bias=True)
    np.testing.assert_allclose(update["encoder"]["bias"], -0.1 * (0.5 + 0.01 * 2), rtol=1e-6)
    np.testing.assert_allclose(update["probe"]["kernel"], -0.1 * 0.5, rtol=1e-6)


def test_lars_decays_then_adapts_then_scales():
    update = first_update(name="lars", learning_rate=0.1, weight_decay=0.01)
    decayed = 0.5 + 0.01 * 2.0
    trust = 0.001 * np.linalg.norm(np.full(4, 2.0)) / np.linalg.norm(np.full(4, decayed))
    np.testing.assert_allclose(update["encoder"]["kernel"], -0.1 * trust * decayed, rtol=1e-5)
    np.testing.assert_allclose(update["encoder"]["bias"], -0.1 * 0.5, rtol=1e-6)
    np.testing.assert_allclose(update["probe"]["kernel"], -0.1 * 0.5, rtol=1e-6)


def test_lars_momentum_accumulates_the_scaled_update():
    optimizer, schedule = optim.make(name="lars", learning_rate=0.1, weight_decay=0.0, **LENGTH)
    state = optimizer.init(PARAMS)
    first, state = optimizer.update(GRADS, state, PARAMS)
    second, _ = optimizer.update(GRADS, state, PARAMS)
    bias = lambda update: float(update["encoder"]["bias"][0])  # noqa: E731
    later = float(schedule(1)) / float(schedule(0)) * bias(first)
    np.testing.assert_allclose(bias(second), 0.9 * bias(first) + later, rtol=1e-5)


def test_muon_makes_filters_orthogonal_as_matrices_and_leaves_the_rest_to_adam():
    """Newton and Schulz's five steps leave singular values between about 0.7 and 1.2."""
    params = {
        "encoder": {"kernel": jnp.ones((3, 3, 2, 4)), "bias": jnp.ones((4,))},
        "probe": {"kernel": jnp.ones((2, 4))},
    }
    grads = jax.tree.map(lambda p: jax.random.normal(jax.random.key(p.size), p.shape), params)
    optimizer, _ = optim.make("muon", learning_rate=0.1, weight_decay=0.5, **LENGTH)
    updates, _ = jax.jit(optimizer.update)(grads, optimizer.init(params), params)
    decayed = np.asarray(updates["encoder"]["kernel"]).reshape(-1, 4)
    matrix = (decayed + 0.1 * 0.5 * 1.0) / -0.1
    assert (np.abs(np.linalg.svd(matrix, compute_uv=False) - 1.0) < 0.35).all()
    for update, grad in (
        (updates["encoder"]["bias"], grads["encoder"]["bias"]),
        (updates["probe"]["kernel"], grads["probe"]["kernel"]),
    ):  # Adam's first step is the sign of the gradient
        np.testing.assert_allclose(update, -0.1 * np.sign(grad), rtol=1e-3)


@pytest.mark.parametrize(("scaling", "peak"), [("none", 0.1), ("linear", 0.2), ("sqrt", 2.2627417)])
def test_scaling_by_the_batch(scaling, peak):
    _, schedule = optim.make(learning_rate=0.1, scaling=scaling, warmup_epochs=1, **LENGTH)
    np.testing.assert_allclose(float(schedule(10)), peak, rtol=1e-6)
    np.testing.assert_allclose(float(schedule(5)), peak / 2, rtol=1e-6)
    np.testing.assert_allclose(float(schedule(55)), peak / 2, rtol=1e-5)
    np.testing.assert_allclose(float(schedule(100)), 0.0, atol=1e-7)


def test_linear_annealing_is_a_line_from_the_end_of_the_warm_up_to_zero():
    _, schedule = optim.make(learning_rate=0.1, warmup_epochs=1, annealing="linear", **LENGTH)
    np.testing.assert_allclose([schedule(t) for t in (5, 10, 55, 100)], [0.05, 0.1, 0.05, 0])
    _, at_once = optim.make(learning_rate=0.1, annealing="linear", **LENGTH)
    np.testing.assert_allclose([at_once(t) for t in (0, 25, 100)], [0.1, 0.075, 0])


def test_bad_settings_name_the_key_and_the_remedy():
    with pytest.raises(ValueError, match="annealing is 'cos'; give one of"):
        optim.make(annealing="cos", **LENGTH)
    with pytest.raises(ValueError, match="optimizer name is 'sdg'; give one of"):
        optim.make("sdg", **LENGTH)
    with pytest.raises(ValueError, match="warmup_epochs is 10, 100 steps of the 100"):
        optim.make(warmup_epochs=10, **LENGTH)
    with pytest.raises(ValueError, match="muon decays matrices and filters"):
        optim.make("muon", decay_norm_and_bias=True, **LENGTH)
    with pytest.raises(ValueError, match="learning_rate is -1"):
        optim.make(learning_rate=-1.0, **LENGTH)


@pytest.mark.parametrize("name", optim.NAMES)
def test_a_constant_rate_stays_at_the_peak_while_the_others_fall(name):
    """After the last step nothing moves but what keeps its rate, as it did in the first step."""
    params = {"encoder": PARAMS["encoder"], "predictor": PARAMS["encoder"]}
    grads = jax.tree.map(lambda p: jnp.full_like(p, 0.5), params)
    settings = {"learning_rate": 0.1, "weight_decay": 0.0, "momentum": 0.0}
    length = {**LENGTH, "steps": 1, "steps_per_epoch": 1}
    optimizer, _ = optim.make(name, **settings, **length, constant_rate=("predictor",))
    state = optimizer.init(params)
    first, state = optimizer.update(grads, state, params)
    second, _ = optimizer.update(grads, state, params)
    bias = lambda update, part: float(update[part]["bias"][0])  # noqa: E731
    np.testing.assert_allclose(bias(first, "encoder"), bias(first, "predictor"), rtol=1e-6)
    np.testing.assert_allclose(bias(second, "encoder"), 0.0, atol=1e-8)
    np.testing.assert_allclose(bias(second, "predictor"), bias(first, "predictor"), rtol=1e-4)
