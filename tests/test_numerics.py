"""Shared numerics: right values, and finite ones with finite gradients at zero and infinity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import _numerics

HUGE, TINY = 1e30, 1e-29


def test_unit_vectors_have_length_one_at_any_scale_and_zero_stays_zero():
    x = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    for scale in (1.0, HUGE, TINY):
        y = _numerics.unit(jnp.asarray(x) * scale)
        np.testing.assert_allclose(jnp.sum(y * y, axis=-1), 1.0, rtol=1e-6)
        np.testing.assert_allclose(y, _numerics.unit(x), rtol=1e-5)
    assert not _numerics.unit(jnp.zeros((2, 3))).any()


def test_the_gradient_of_unit_is_the_projection_on_the_tangent():
    x, g = np.random.default_rng(1).normal(size=(2, 6)).astype(np.float32)
    length = np.linalg.norm(x)
    expected = (g - x * (x @ g) / length**2) / length
    (got,) = jax.vjp(_numerics.unit, jnp.asarray(x))[1](jnp.asarray(g))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_unit_is_float32_whatever_comes_in(dtype):
    assert _numerics.unit(jnp.ones((2, 3), dtype)).dtype == jnp.float32


def test_values_and_gradients_are_finite_at_the_points_where_textbook_forms_are_not():
    same = jnp.ones(3)
    cases = [
        (_numerics.unit, jnp.zeros(3)),
        (_numerics.safe_sqrt, jnp.array([0.0, -1.0, 1e-40])),
        (lambda x: _numerics.euclidean(x, same), same),
        (lambda x: _numerics.euclidean(x, -x), jnp.full(3, HUGE)),
        (_numerics.softplus, jnp.array([-jnp.inf, 0.0, 100.0])),
    ]
    for function, x in cases:
        value, pull = jax.vjp(function, x)
        assert jnp.isfinite(value).all()
        assert jnp.isfinite(pull(jnp.ones_like(value))[0]).all()


def test_log_sum_exp_is_that_of_scipy_and_has_no_gradient_over_nothing():
    x = jnp.array([[1.0, 2.0, -jnp.inf], [-jnp.inf] * 3, [1000.0, 1000.0, 0.0]])
    np.testing.assert_allclose(_numerics.log_sum_exp(x), jax.nn.logsumexp(x, axis=-1), rtol=1e-6)
    gradient = jax.grad(lambda x: jnp.where(jnp.isinf(s := _numerics.log_sum_exp(x)), 0, s).sum())
    np.testing.assert_allclose(gradient(x)[0], jax.nn.softmax(x[0]), rtol=1e-6)
    assert not gradient(x)[1].any()


def test_products_do_not_round_their_factors():
    a = jax.ShapeDtypeStruct((4, 4), jnp.float32)
    text = jax.jit(_numerics.dot).lower(a, a).as_text()
    assert "HIGHEST" in text
    half = jnp.ones((2, 3), jnp.bfloat16)
    assert _numerics.dot(half, half.T, jnp.float32).dtype == jnp.float32
