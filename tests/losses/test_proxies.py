"""Losses to class weights, from teachers, of hard pairs and of nearest neighbors: slow loops."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from contrastive_jax import losses
from tests.losses import oracles
from tests.losses.test_sharded import QUICK_COMPILE

B, D, K = 8, 3, 4
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(2, B, D)).astype(np.float32)
W = RNG.normal(size=(K, D)).astype(np.float32)
CENTERS = RNG.normal(size=(K, 2, D)).astype(np.float32)
NEGATIVES = RNG.normal(size=(B, 3, D)).astype(np.float32)
TEACHER = RNG.normal(size=(B, 4)).astype(np.float32)
MASK = np.array([[k < b % 4 for k in range(3)] for b in range(B)])
LABELS = np.array([0, 1, 0, 2, -1, 0, 2, 1], np.int32)  # none of class 3, one of no class
FLAGS = np.array([0, 1, 0, 1, 1, 0, 0, 1], np.int32)
COSINE = oracles.normalized(X) @ oracles.normalized(W).T


def each_labeled(loss):
    """The loss of each row from its class, 0 for a row without one."""
    return np.array([loss(i, y) if y >= 0 else 0.0 for i, y in enumerate(LABELS)])


def softmax_loss(logits, true, y):
    """-log of the true class's share, whose logit is given apart."""
    return oracles.log_sum([true] + [s for j, s in enumerate(logits) if j != y]) - true


def arc_face(i, y, margin, scale):
    angle = math.acos(COSINE[i, y]) + margin
    true = math.cos(angle) if angle < math.pi else COSINE[i, y] - margin * math.sin(margin)
    return softmax_loss(scale * COSINE[i], scale * true, y)


def proxy_nca(i, y, temperature, everyone):
    near = [
        -(math.dist(oracles.normalized(X[i]), oracles.normalized(w)) ** 2) / temperature for w in W
    ]
    return oracles.log_sum([s for j, s in enumerate(near) if everyone or j != y]) - near[y]


def soft_triple(i, y, margin, scale, gamma, tau):
    x, centers = oracles.normalized(X[i]), oracles.normalized(CENTERS)
    s = []
    for of_class in centers:
        weights = [math.exp(x @ c / gamma) for c in of_class]
        s.append(sum(w * (x @ c) for w, c in zip(weights, of_class, strict=True)) / sum(weights))
    spread = sum(math.dist(*pair) for pair in centers) / (K * 2 * 1)
    return softmax_loss(scale * np.array(s), scale * (s[y] - margin), y) + tau * spread


def proxy_anchor(margin, scale):
    pull, push = [], []
    for p in range(K):
        own = [COSINE[i, p] for i in range(B) if LABELS[i] == p]
        other = [COSINE[i, p] for i in range(B) if LABELS[i] not in (p, -1)]
        push.append(math.log(1 + sum(math.exp(scale * (s + margin)) for s in other)))
        if own:
            pull.append(math.log(1 + sum(math.exp(-scale * (s - margin)) for s in own)))
    return np.mean(pull) + np.mean(push)


def student(i, x=lambda x: np.float64(x)):
    return [x(X[i]) @ x(c) for c in (Y[i], *NEGATIVES[i])]


def margin_mse(i):
    s, t = student(i), np.float64(TEACHER[i])
    terms = [((s[0] - s[k]) - (t[0] - t[k])) ** 2 for k in range(1, 4) if MASK[i, k - 1]]
    return np.mean(terms) if terms else 0.0


def kl_distillation(i, t_student, t_teacher):
    real = [0] + [k for k in range(1, 4) if MASK[i, k - 1]]
    s = [student(i, oracles.normalized)[k] / t_student for k in real]
    t = [np.float64(TEACHER[i, k]) / t_teacher for k in real]
    log_p, log_q = np.array(t) - oracles.log_sum(t), np.array(s) - oracles.log_sum(s)
    return np.sum(np.exp(log_p) * (log_p - log_q))


def online_contrastive(margin, kind, flags=FLAGS):
    d = [oracles.distance(x, y, kind) for x, y in zip(np.float64(X), np.float64(Y), strict=True)]
    away = [x for x, flag in zip(d, flags, strict=True) if flag]
    close = [x for x, flag in zip(d, flags, strict=True) if not flag]
    far = max(close) if len(close) > 1 else np.mean(away)
    near = min(away) if len(away) > 1 else np.mean(close)
    loss = [
        (max(0.0, margin - x) ** 2 if x < far else 0.0) if flag else (x**2 if x > near else 0.0)
        for x, flag in zip(d, flags, strict=True)
    ]
    return np.array(loss)


def margin_contrastive(kind, hinge):
    d = [oracles.distance(x, y, kind) for x, y in zip(np.float64(X), np.float64(Y), strict=True)]
    gaps = [max(0, 1.5 - x) if flag else max(0, x - 0.1) for x, flag in zip(d, FLAGS, strict=True)]
    return np.array(gaps) if hinge == "linear" else np.square(gaps) / 2


def koleo():
    x = oracles.normalized(X)
    return [-math.log(min(math.dist(x[i], x[j]) for j in range(B) if j != i)) for i in range(B)]


def ranked(similarity, score, temperature):
    s, score = similarity.reshape(-1), score.reshape(-1)
    wrong = [(s[j] - s[i]) / temperature for i in range(len(s)) for j in range(len(s))
             if score[i] > score[j]]  # fmt: skip
    return oracles.log_sum([0.0, *wrong])


def angles():
    x, y = oracles.normalized(X[:, None, :2]), oracles.normalized(NEGATIVES[:, :, :2])
    z = (x[..., 0] + 1j * x[..., 1]) * np.conj(y[..., 0] + 1j * y[..., 1])
    return np.abs(z.real + z.imag)


DISTILLED = {"negatives_mask_BK": MASK}
# name: (loss(x, second), oracle, second)
CASES = {
    "arc_face": (
        lambda x, w: losses.arc_face(x, LABELS, w, 0.9, 4.0),
        lambda: each_labeled(lambda i, y: arc_face(i, y, 0.9, 4.0)),
        W,
    ),
    "cos_face": (
        lambda x, w: losses.cos_face(x, LABELS, w, 0.35, 4.0),
        lambda: each_labeled(
            lambda i, y: softmax_loss(4 * COSINE[i], 4 * (COSINE[i, y] - 0.35), y)
        ),
        W,
    ),
    "proxy_nca": (
        lambda x, w: losses.proxy_nca(x, LABELS, w, 0.7),
        lambda: each_labeled(lambda i, y: proxy_nca(i, y, 0.7, False)),
        W,
    ),
    "proxy_nca all": (
        lambda x, w: losses.proxy_nca(x, LABELS, w, 0.7, denominator="all"),
        lambda: each_labeled(lambda i, y: proxy_nca(i, y, 0.7, True)),
        W,
    ),
    "soft_triple": (
        lambda x, w: losses.soft_triple(x, LABELS, w, 0.1, 5.0, gamma=0.5, tau=0.3),
        lambda: each_labeled(lambda i, y: soft_triple(i, y, 0.1, 5.0, 0.5, 0.3)),
        CENTERS,
    ),
    "proxy_anchor": (
        lambda x, w: losses.proxy_anchor(x, LABELS, w, 0.1, 4.0),
        lambda: proxy_anchor(0.1, 4.0),
        W,
    ),
    "margin_mse": (
        lambda x, y: losses.margin_mse(x, y, NEGATIVES, TEACHER, **DISTILLED),
        lambda: [margin_mse(i) for i in range(B)],
        Y,
    ),
    "kl_distillation": (
        lambda x, y: losses.kl_distillation(
            x, y, NEGATIVES, TEACHER, 0.5, teacher_temperature=2.0, normalize=True, **DISTILLED
        ),
        lambda: [kl_distillation(i, 0.5, 2.0) for i in range(B)],
        Y,
    ),
    "koleo": (lambda x, y, **kw: losses.koleo(x, **kw) + 0 * y[:, 0], koleo, Y),
    "cosent tuples": (
        lambda x, n: losses.cosent(x, n, TEACHER[:, 1:], 0.3),
        lambda: ranked(
            np.einsum("bd,bnd->bn", oracles.normalized(X), oracles.normalized(NEGATIVES)),
            TEACHER[:, 1:],
            0.3,
        ),
        NEGATIVES,
    ),
    "angle tuples": (
        lambda x, n: losses.angle(x[:, :2], n[..., :2], TEACHER[:, 1:], 0.3),
        lambda: ranked(angles(), TEACHER[:, 1:], 0.3),
        NEGATIVES,
    ),
    **{
        f"online_contrastive {kind}": (
            lambda x, y, kind=kind, **kw: losses.online_contrastive(
                x, y, jnp.asarray(kw.pop("flags", FLAGS)), 1.2, distance=kind, **kw
            ),
            lambda kind=kind: online_contrastive(1.2, kind),
            Y,
        )
        for kind in ("cosine", "euclidean")
    },
    **{
        f"margin_contrastive {kind} {hinge}": (
            lambda x, y, kind=kind, hinge=hinge: losses.margin_contrastive(
                x, y, FLAGS, 1.5, positive_margin=0.1, distance=kind, hinge=hinge
            ),
            lambda kind=kind, hinge=hinge: margin_contrastive(kind, hinge),
            Y,
        )
        for kind, hinge in (("cosine", "squared"), ("cosine", "linear"), ("euclidean", "linear"))
    },
}


def weighted(y):
    return (jnp.cos(jnp.arange(y.size)) * y.ravel()).sum()


@functools.cache
def compiled():
    def total(inputs):
        out = {name: loss(*inputs[name]) for name, (loss, _, _) in CASES.items()}
        return sum(map(weighted, out.values())), out

    return jax.jit(jax.value_and_grad(total, has_aux=True), compiler_options=QUICK_COMPILE)


def values_and_grads(change=lambda x: x):
    inputs = {name: (change(X), change(second)) for name, (_, _, second) in CASES.items()}
    (_, values), grads = compiled()(inputs)
    return values, grads


@functools.cache
def usual():
    return values_and_grads()


@pytest.mark.parametrize("name", CASES)
def test_losses_equal_the_papers_loops(name):
    value = usual()[0][name]
    np.testing.assert_allclose(value, CASES[name][1](), rtol=2e-5, atol=1e-5)
    assert value.dtype == jnp.float32


def test_losses_have_right_gradients():
    step = 1e-3
    direction = lambda x: np.sin(np.arange(x.size, dtype=np.float32)).reshape(x.shape)  # noqa: E731
    ahead, _ = values_and_grads(lambda x: x + step * direction(x))
    back, _ = values_and_grads(lambda x: x - step * direction(x))
    for name, grads in usual()[1].items():
        got = sum(np.sum(g * direction(g)) for g in grads)
        expected = (weighted(ahead[name]) - weighted(back[name])) / (2 * step)
        np.testing.assert_allclose(got, expected, rtol=0.01, atol=0.01, err_msg=name)
        assert all(g.any() for g in grads[: 1 if name == "koleo" else 2]), name


def test_zero_vectors_give_finite_values_and_gradients():
    tree = values_and_grads(lambda x: 0 * x)
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", ["koleo", "online_contrastive euclidean"])
def test_sharding_changes_neither_values_nor_gradients(name):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])
    wrapped = jax.shard_map(
        lambda x, y, flags: CASES[name][0](
            x, y, axis_name="data", **({"flags": flags} if "online" in name else {})
        ),
        mesh=mesh,
        in_specs=P("data"),
        out_specs=P("data"),
    )

    def total(x):
        out = wrapped(x, Y, FLAGS)
        return weighted(out), out

    fn = jax.value_and_grad(total, has_aux=True)
    (_, value), grad = jax.jit(fn, compiler_options=QUICK_COMPILE)(X)
    values, grads = usual()
    np.testing.assert_allclose(value, values[name], rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(grad, grads[name][0], rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("flags", [[0] * B, [1] * B, [0] + [1] * (B - 1)])
def test_hard_pairs_where_one_kind_is_rare(flags):
    got = losses.online_contrastive(X, Y, np.array(flags), 1.2)
    with np.errstate(invalid="ignore"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "mean", lambda x: sum(x) / max(len(x), 1))
        np.testing.assert_allclose(
            got, online_contrastive(1.2, "cosine", flags), rtol=1e-5, atol=1e-6
        )


def test_a_single_row_or_class_or_candidate_has_no_loss():
    one = np.zeros(1, np.int32)

    def total(x):
        to_class = [
            loss(x, one, W[:1]) for loss in (losses.arc_face, losses.cos_face, losses.proxy_nca)
        ]
        distilled = [
            loss(x, Y[:1], NEGATIVES[:1, :0], TEACHER[:1, :1])
            for loss in (losses.margin_mse, losses.kl_distillation)
        ]
        return sum(jnp.abs(y).sum() for y in [losses.koleo(x), *to_class, *distilled])

    value, grad = jax.jit(jax.value_and_grad(total), compiler_options=QUICK_COMPILE)(X[:1])
    assert value == 0
    assert not grad.any()


def test_bad_input_is_refused():
    for call, message in [
        (lambda: losses.arc_face(X, LABELS + 3, W), r"labels_B holds 5, .* has 4 classes"),
        (lambda: losses.arc_face(X, LABELS, W, 3.2), "margin is 3.2, expected a number below 3.14"),
        (lambda: losses.cos_face(X, LABELS, W[:, :2]), r"\(4, 2\), .*\(4, 3\)"),
        (lambda: losses.proxy_nca(X, LABELS, W, denominator="x"), "'x', expected one of 'others'"),
        (lambda: losses.soft_triple(X, LABELS, W), r"weights_KPD has shape \(4, 3\)"),
        (lambda: losses.margin_mse(X, Y, NEGATIVES, TEACHER[:, 1:]), r"\(8, 3\), .*\(8, 4\)"),
        (lambda: losses.online_contrastive(X, Y, LABELS), "dissimilar_B holds values other"),
        (lambda: losses.cosent(X, NEGATIVES, TEACHER), r"\(8, 4\), .*\(8, 3\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
