"""Text similarity, non-contrastive losses and wrappers: slow loops, gradients, extremes."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from jax.test_util import check_grads

from contrastive_jax import losses
from tests.losses import oracles
from tests.losses.test_sharded import QUICK_COMPILE

B, D = 8, 4
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(2, B, D)).astype(np.float32)
SCORE = np.array([0.1, 0.9, 0.5, 0.5, 0.0, 1.0, 0.3, 0.7], np.float32)
UX, UY = oracles.normalized(X), oracles.normalized(Y)
COSINE = np.sum(UX * UY, axis=1)


def ranked(similarity, temperature):
    total = 1.0
    for i in range(B):
        for j in range(B):
            if SCORE[i] > SCORE[j]:
                total += math.exp((similarity[j] - similarity[i]) / temperature)
    return math.log(total)


def angles():
    z = (UX[:, : D // 2] + 1j * UX[:, D // 2 :]) * np.conj(UY[:, : D // 2] + 1j * UY[:, D // 2 :])
    return np.abs(z.real.sum(1) + z.imag.sum(1))


def uniformity(t):
    pairs = [
        math.exp(-t * math.dist(UX[i], UX[j]) ** 2) for i in range(B) for j in range(B) if i != j
    ]
    return math.log(np.mean(pairs))


def barlow_twins(weight, epsilon):
    x, y = (np.float64(z) - np.mean(np.float64(z), axis=0) for z in (X, Y))
    spread = np.sqrt((np.var(x, axis=0) + epsilon)[:, None] * (np.var(y, axis=0) + epsilon)[None])
    correlation = x.T @ y / B / spread
    return sum(
        (1 - correlation[a, b]) ** 2 if a == b else weight * correlation[a, b] ** 2
        for a in range(D)
        for b in range(D)
    )


def vicreg(weights, epsilon):
    x, y = np.float64(X), np.float64(Y)
    loss = weights[0] * np.mean((x - y) ** 2)
    for z in (x, y):
        covariance = np.cov(z.T)
        loss += weights[1] / 2 * np.mean(np.maximum(0, 1 - np.sqrt(np.diag(covariance) + epsilon)))
        loss += weights[2] * np.sum(covariance[~np.eye(D, dtype=bool)] ** 2) / D
    return loss


def spread_out():
    s = [UX[i] @ UY[j] for i in range(B) for j in range(B) if i != j]
    return np.mean(s) ** 2 + max(0.0, np.mean(np.square(s)) - 1 / D)


# name: (loss(x, y), what it should be)
CASES = {
    "cosine_regression": (
        lambda x, y: losses.cosine_regression(x, y, SCORE),
        (COSINE - np.float64(SCORE)) ** 2,
    ),
    "cosent": (lambda x, y: losses.cosent(x, y, SCORE, 0.3), ranked(COSINE, 0.3)),
    "angle": (lambda x, y: losses.angle(x, y, SCORE, 0.3), ranked(angles(), 0.3)),
    "alignment": (losses.alignment, np.linalg.norm(UX - UY, axis=1) ** 2),
    "alignment 1": (
        lambda x, y: losses.alignment(x, y, 1.0),
        np.linalg.norm(UX - UY, axis=1),
    ),
    "uniformity": (lambda x, y, **kw: losses.uniformity(x, 1.5, **kw), uniformity(1.5)),
    "barlow_twins": (
        lambda x, y, **kw: losses.barlow_twins(x, y, 0.1, epsilon=0.2, **kw),
        barlow_twins(0.1, 0.2),
    ),
    "vicreg": (losses.vicreg, vicreg((25.0, 25.0, 1.0), 1e-4)),
    "spread_out": (losses.spread_out, spread_out()),
    "negative_cosine": (losses.negative_cosine, -COSINE),
}
WHOLE = ("uniformity", "barlow_twins", "vicreg", "spread_out")


def values_and_grads(x, y, names=tuple(CASES), wrap=lambda loss: loss):
    def total(x, y):
        out = {name: wrap(CASES[name][0])(x, y) for name in names}
        return sum(jnp.sum(value) for value in out.values()), out

    fn = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)
    (_, values), grads = jax.jit(fn, compiler_options=QUICK_COMPILE)(x, y)
    return values, grads


@functools.cache
def on_one_device():
    return values_and_grads(X, Y)


@pytest.mark.parametrize("name", CASES)
def test_losses_equal_the_papers_loops(name):
    value = on_one_device()[0][name]
    np.testing.assert_allclose(value, CASES[name][1], rtol=1e-4, atol=1e-5)
    assert value.dtype == jnp.float32


@pytest.mark.parametrize("name", [name for name in CASES if name != "negative_cosine"])
def test_losses_have_right_gradients(name):
    loss = jax.jit(CASES[name][0])
    check_grads(loss, (X, Y), 1, modes=("rev",), rtol=0.03, atol=0.03, eps=1e-3)


def test_no_gradient_reaches_the_target_of_negative_cosine():
    dx, dy = jax.grad(lambda x, y: losses.negative_cosine(x, y).sum(), argnums=(0, 1))(X, Y)
    assert dx.any()
    assert not dy.any()


@pytest.mark.parametrize("x", [np.zeros_like(X), np.ones_like(X)])
def test_losses_stay_finite_where_embeddings_collapse(x):
    for tree in values_and_grads(x, x):
        assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


def test_sharding_changes_neither_the_losses_of_a_batch_nor_their_gradients():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])

    def wrap(loss):
        return jax.shard_map(
            functools.partial(loss, axis_name="data"),
            mesh=mesh,
            in_specs=P("data"),
            out_specs=P(),
        )

    jax.tree.map(
        lambda g, e: np.testing.assert_allclose(g, e, rtol=1e-4, atol=1e-5),
        values_and_grads(X, Y, WHOLE, wrap),
        values_and_grads(X, Y, WHOLE),
    )


def test_equal_scores_have_nothing_to_rank():
    same = jnp.ones(B)
    for loss in (losses.cosent, losses.angle):
        value, grad = jax.value_and_grad(loss)(jnp.asarray(X), jnp.asarray(Y), same)
        assert value == 0
        assert not grad.any()


def test_matryoshka_is_the_weighted_sum_over_prefixes():
    loss = functools.partial(losses.info_nce, temperature=0.5)
    got = losses.matryoshka(loss, X, Y, dims=(2, 4), weights=(0.5, 2.0))
    expected = 0.5 * loss(X[:, :2], Y[:, :2]) + 2.0 * loss(X, Y)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_a_learned_temperature_is_free_below_its_limit_and_can_leave_it():
    limit = math.log(100.0)
    slope = jax.grad(lambda x, sign: sign * losses.learned_temperature(x), argnums=0)
    assert losses.learned_temperature(jnp.float32(2.0)) == pytest.approx(math.exp(-2.0))
    assert slope(jnp.float32(2.0), 1.0) == pytest.approx(-math.exp(-2.0))
    assert slope(jnp.float32(limit + 1), 1.0) == 0
    assert slope(jnp.float32(limit + 1), -1.0) == pytest.approx(0.01)


def test_bad_input_is_refused():
    for call, message in [
        (lambda: losses.cosent(X, Y, SCORE[:3]), r"\(3,\), .*\(8,\)"),
        (lambda: losses.angle(X[:, :3], Y[:, :3], SCORE), "D is 3, expected an even number"),
        (lambda: losses.uniformity(X[:1]), r"1 row\(s\), expected at least 2"),
        (lambda: losses.alignment(X, Y[:2]), r"\(2, 4\), .*\(8, 4\)"),
        (lambda: losses.matryoshka(losses.info_nce, X, Y, dims=(2, 5)), r"\(2, 5\), expected .* 4"),
        (
            lambda: losses.matryoshka(losses.info_nce, X, Y, dims=(2,), weights=(1.0, 1.0)),
            "2 weights for 1 dims",
        ),
        (lambda: losses.learned_temperature(jnp.ones(2)), r"shape \(2,\), expected a scalar"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
