"""Losses that choose or weigh pairs of a labeled batch, and NT-margin, against slow loops."""

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

N, D = 8, 3
LABELS = np.array([0, 1, 0, 2, 1, 0, 2, 3], np.int32)
X = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
Z = np.random.default_rng(1).normal(size=(4, 3, D)).astype(np.float32)


def others(i):
    positives = [j for j in range(N) if j != i and LABELS[j] == LABELS[i]]
    return positives, [j for j in range(N) if LABELS[j] != LABELS[i]]


def mean(values):
    return np.mean(values) if len(values) else 0.0


def hinge(gap, margin):
    return oracles.softplus(gap) if margin is None else max(0.0, gap + margin)


def per_anchor(loss):
    return lambda *args: np.array([loss(i, *others(i), *args) for i in range(N)])


@per_anchor
def batch_all(i, positives, negatives, d, margin):
    return mean([hinge(d[i, p] - d[i, n], margin) for p in positives for n in negatives])


@per_anchor
def batch_hard(i, positives, negatives, d, margin):
    if not positives or not negatives:
        return 0.0
    return hinge(max(d[i, p] for p in positives) - min(d[i, n] for n in negatives), margin)


@per_anchor
def batch_semi_hard(i, positives, negatives, d, margin):
    terms = []
    for p in positives:
        farther = [d[i, n] for n in negatives if d[i, n] > d[i, p]]
        chosen = min(farther) if farther else max(d[i, n] for n in negatives)
        terms.append(hinge(d[i, p] - chosen, margin))
    return mean(terms)


@per_anchor
def lifted_structure(i, positives, negatives, d, margin):
    terms = []
    for j in positives:
        total = sum(math.exp(margin - d[i, k]) for k in negatives)
        total += sum(math.exp(margin - d[j, k]) for k in others(j)[1])
        terms.append(max(0.0, math.log(total) + d[i, j]) ** 2 / 2)
    return mean(terms)


@per_anchor
def multi_similarity(i, positives, negatives, s, alpha, beta, threshold, epsilon):
    if epsilon is not None:
        least = min((s[i, p] for p in positives), default=math.inf)
        most = max(s[i, n] for n in negatives)
        negatives = [n for n in negatives if s[i, n] > least - epsilon]
        positives = [p for p in positives if s[i, p] < most + epsilon]
    pull = math.log(1 + sum(math.exp(-alpha * (s[i, p] - threshold)) for p in positives)) / alpha
    return (
        pull + math.log(1 + sum(math.exp(beta * (s[i, n] - threshold)) for n in negatives)) / beta
    )


@per_anchor
def circle(i, positives, negatives, s, m, scale):
    push = sum(math.exp(scale * max(0, s[i, n] + m) * (s[i, n] - m)) for n in negatives)
    pull = sum(math.exp(-scale * max(0, 1 + m - s[i, p]) * (s[i, p] - 1 + m)) for p in positives)
    return math.log(1 + push * pull)


@per_anchor
def ranked_list(i, positives, negatives, d, alpha, m, t):
    pull = mean([d[i, p] - (alpha - m) for p in positives if d[i, p] > alpha - m])
    close = [alpha - d[i, n] for n in negatives if d[i, n] < alpha]
    weights = [math.exp(t * x) for x in close]
    push = sum(w / sum(weights) * x for w, x in zip(weights, close, strict=True))
    return (pull + push) / 2


def distances(kind="euclidean", x=X):
    return np.array([[oracles.distance(a, b, kind) for b in np.float64(x)] for a in np.float64(x)])


def nt_margin(margin, semi_hard):
    loss = np.zeros(Z.shape[:2])
    for at, positives, other in oracles.positives_and_negatives(Z, 1.0):
        for p in positives:
            n = other[(other > p - margin) & (other < p)] if semi_hard else other
            loss[at] += mean([max(0.0, x - p + margin) for x in n]) / len(positives)
    return loss


UNIT = X / np.linalg.norm(X, axis=1, keepdims=True)
COSINES = np.float64(UNIT) @ np.float64(UNIT).T
TRIPLETS = {
    f"{name} {kind} {margin}": (
        functools.partial(loss, margin=margin, distance=kind),
        functools.partial(oracle, distances(kind), margin),
    )
    for name, loss, oracle in (
        ("batch_all", losses.batch_all_triplet, batch_all),
        ("batch_hard", losses.batch_hard_triplet, batch_hard),
        ("batch_semi_hard", losses.batch_semi_hard_triplet, batch_semi_hard),
    )
    for kind, margin in (("euclidean", 0.7), ("squared", None), ("cosine", 0.3))
}
# name: (loss(x, labels), oracle())
CASES = TRIPLETS | {
    "lifted_structure": (losses.lifted_structure, lambda: lifted_structure(distances(), 1.0)),
    "multi_similarity": (
        lambda x, y, **kw: losses.multi_similarity(x, y, 2.0, 10.0, 0.4, **kw),
        lambda: multi_similarity(COSINES, 2.0, 10.0, 0.4, 0.1),
    ),
    "multi_similarity all": (
        lambda x, y, **kw: losses.multi_similarity(x, y, 2.0, 10.0, 0.4, epsilon=None, **kw),
        lambda: multi_similarity(COSINES, 2.0, 10.0, 0.4, None),
    ),
    "circle": (
        lambda x, y, **kw: losses.circle(x, y, 0.25, 8.0, **kw),
        lambda: circle(COSINES, 0.25, 8.0),
    ),
    "ranked_list": (losses.ranked_list, lambda: ranked_list(distances(x=UNIT), 1.2, 0.4, 10.0)),
}


def values_and_grads(x, wrap=lambda loss: loss):
    def total(x):
        out = {name: wrap(loss)(x, jnp.asarray(LABELS)) for name, (loss, _) in CASES.items()}
        weights = jnp.cos(jnp.arange(N, dtype=jnp.float32))
        return sum(jnp.sum(weights * y) for y in out.values()), out

    fn = jax.value_and_grad(total, has_aux=True)
    (_, values), grad = jax.jit(fn, compiler_options=QUICK_COMPILE)(x)
    return values, grad


@functools.cache
def on_one_device():
    return values_and_grads(X)


@pytest.mark.parametrize("name", CASES)
def test_labeled_losses_equal_the_papers_loops(name):
    value = on_one_device()[0][name]
    np.testing.assert_allclose(value, CASES[name][1](), rtol=1e-4, atol=1e-5)
    assert value.dtype == jnp.float32


@pytest.mark.parametrize(
    "name",
    [name for name in CASES if name not in ("circle", "ranked_list") and "cosine" not in name],
)
def test_labeled_losses_have_right_gradients(name):
    loss = jax.jit(lambda x: CASES[name][0](x, jnp.asarray(LABELS)))
    check_grads(loss, (X,), 1, modes=("rev",), rtol=0.03, atol=0.03, eps=1e-3)


def test_the_pace_of_the_circle_loss_carries_no_gradient():
    def by_hand(x):
        s = x @ x.T / jnp.linalg.norm(x, axis=1)[:, None] / jnp.linalg.norm(x, axis=1)[None, :]
        same = jnp.asarray(LABELS[:, None] == LABELS[None, :])
        positive, negative = same & ~jnp.eye(N, dtype=bool), ~same
        pace_n, pace_p = jax.lax.stop_gradient((jax.nn.relu(s + 0.25), jax.nn.relu(1.25 - s)))
        push = jnp.sum(jnp.where(negative, jnp.exp(8 * pace_n * (s - 0.25)), 0), 1)
        pull = jnp.sum(jnp.where(positive, jnp.exp(-8 * pace_p * (s - 0.75)), 0), 1)
        return jnp.log1p(push * pull).sum()

    def ours(x):
        return losses.circle(x, jnp.asarray(LABELS), 0.25, 8.0).sum()

    got, expected = jax.jit(jax.grad(ours))(X), jax.jit(jax.grad(by_hand))(X)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5)


def test_sharding_changes_neither_values_nor_gradients():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])

    def wrap(loss):
        return jax.shard_map(
            functools.partial(loss, axis_name="data"),
            mesh=mesh,
            in_specs=P("data"),
            out_specs=P("data"),
        )

    jax.tree.map(
        lambda g, e: np.testing.assert_allclose(g, e, rtol=2e-4, atol=2e-5),
        values_and_grads(X, wrap),
        on_one_device(),
    )


@pytest.mark.parametrize("x", [np.zeros_like(X), np.ones_like(X), 1e4 + X])
def test_labeled_losses_stay_finite_where_points_coincide_or_are_far_out(x):
    for tree in values_and_grads(x):
        assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("semi_hard", [False, True])
def test_nt_margin_equals_its_loop_dense_and_in_tiles(semi_hard):
    loss = functools.partial(losses.nt_margin, margin=0.6, semi_hard=semi_hard)
    expected = nt_margin(0.6, semi_hard)

    def value_and_grad(block_size):
        def total(z):
            out = loss(z, block_size=block_size)
            return jnp.sum(jnp.cos(jnp.arange(out.size)).reshape(out.shape) * out), out

        fn = jax.value_and_grad(total, has_aux=True)
        (_, value), grad = jax.jit(fn, compiler_options=QUICK_COMPILE)(Z)
        return value, grad

    value, grad = value_and_grad(None)
    np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)
    tiled, grad_tiled = value_and_grad(5)
    np.testing.assert_allclose(tiled, value, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(grad_tiled, grad, rtol=1e-4, atol=1e-6)
    check_grads(jax.jit(loss), (Z,), 1, modes=("rev",), rtol=0.03, atol=0.03, eps=1e-4)


def test_a_positive_margin_forgives_similar_pairs_within_it():
    x, y = jnp.zeros((2, 1)), jnp.array([[0.5], [2.0]])
    loss = losses.margin_contrastive(x, y, jnp.zeros(2), positive_margin=1.0)
    np.testing.assert_allclose(loss, [0.0, 0.5])


def test_the_triplet_loss_without_a_margin_is_soft():
    x, near, far = jnp.zeros((1, 1)), jnp.ones((1, 1)), jnp.full((1, 1), 3.0)
    np.testing.assert_allclose(
        losses.triplet(x, near, far, None), [oracles.softplus(-2.0)], rtol=1e-6
    )


def test_bad_input_is_refused():
    labels = jnp.asarray(LABELS)
    for call, message in [
        (lambda: losses.batch_hard_triplet(X, labels, -1.0), "margin is -1.0, expected"),
        (lambda: losses.batch_hard_triplet(X, labels, distance="l1"), "'l1', expected one of"),
        (lambda: losses.batch_all_triplet(X, labels[:3]), r"\(3,\), .*\(8,\)"),
        (lambda: losses.circle(X, labels, scale=0.0), "scale is 0.0, expected"),
        (lambda: losses.nt_margin(Z, 0.0), "margin is 0.0, expected"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
