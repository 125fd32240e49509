"""The core losses: equality with slow loops, closed forms, gradients, extremes, refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads

from contrastive_jax import losses
from contrastive_jax.losses.softmax import nt_xent_reference
from tests.losses import oracles

B, V, D, K = 6, 2, 5, 3
LABELS = np.array([0, 1, 0, 2, 1, 0], np.int32)
IDS = np.array([3, 1, 3, 2, 1, 7], np.int32)
quick_jit = functools.partial(
    jax.jit,
    compiler_options={
        "xla_backend_optimization_level": 0,
        "xla_llvm_disable_expensive_passes": True,
    },
)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


Z, QUERY, KEY, NEGATIVES = normal(0, B, V, D), normal(1, B, D), normal(2, B, D), normal(3, B, K, D)

# name: (loss(embeddings, temperature), its oracle, its embeddings)
SOFTMAX = {
    "nt_xent": (losses.nt_xent, oracles.nt_xent, (Z,)),
    "nt_xent 3 views": (losses.nt_xent, oracles.nt_xent, (normal(4, 4, 3, D),)),
    "info_nce": (losses.info_nce, oracles.info_nce, (QUERY, KEY)),
    "info_nce negatives ids": (
        lambda q, k, n, t: losses.info_nce(q, k, t, negatives_BKD=n, ids_B=jnp.asarray(IDS)),
        lambda q, k, n, t: oracles.info_nce(q, k, t, n, IDS),
        (QUERY, KEY, NEGATIVES),
    ),
    "symmetric_info_nce": (losses.symmetric_info_nce, oracles.symmetric_info_nce, (QUERY, KEY)),
    "symmetric_info_nce ids": (
        lambda a, b, t: losses.symmetric_info_nce(a, b, t, ids_B=jnp.asarray(IDS)),
        lambda a, b, t: oracles.symmetric_info_nce(a, b, t, IDS),
        (QUERY, KEY),
    ),
    "sup_con outside": (
        lambda z, t: losses.sup_con(z, jnp.asarray(LABELS), t),
        lambda z, t: oracles.sup_con(z, LABELS, t),
        (Z,),
    ),
    "sup_con inside": (
        lambda z, t: losses.sup_con(z, jnp.asarray(LABELS), t, positives="inside"),
        lambda z, t: oracles.sup_con(z, LABELS, t, "inside"),
        (Z,),
    ),
}
each_softmax = pytest.mark.parametrize("name", SOFTMAX)


@functools.cache
def value_and_grads(name):
    """Jitted (embeddings, temperature) -> the mean loss, the losses, and all gradients."""
    loss = SOFTMAX[name][0]

    def mean(embeddings, temperature):
        per_anchor = loss(*embeddings, temperature)
        return per_anchor.mean(), per_anchor

    return quick_jit(jax.value_and_grad(mean, argnums=(0, 1), has_aux=True))


@each_softmax
@pytest.mark.parametrize("temperature", [0.05, 0.5, 3.0])
def test_softmax_losses_equal_the_papers_loops(name, temperature):
    _, oracle, embeddings = SOFTMAX[name]
    (_, got), _ = value_and_grads(name)(embeddings, jnp.float32(temperature))
    np.testing.assert_allclose(got, oracle(*embeddings, temperature), rtol=2e-5, atol=2e-5)
    assert got.dtype == jnp.float32


@each_softmax
def test_gradients_to_embeddings_and_temperature_equal_finite_differences(name):
    loss, _, embeddings = SOFTMAX[name]
    args = (*embeddings, np.float32(0.7))
    check_grads(jax.jit(loss), args, order=1, modes=("rev",), rtol=0.02, atol=0.02, eps=1e-2)


@each_softmax
@pytest.mark.parametrize("temperature", [0.001, 0.01, 10.0, 100.0])
def test_extreme_temperatures_stay_finite_and_exact(name, temperature):
    _, oracle, embeddings = SOFTMAX[name]
    (_, got), grads = value_and_grads(name)(embeddings, jnp.float32(temperature))
    np.testing.assert_allclose(got, oracle(*embeddings, temperature), rtol=1e-3, atol=1e-4)
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(grads))


@each_softmax
def test_zero_vectors_give_finite_values_and_gradients(name):
    embeddings = jax.tree.map(np.zeros_like, SOFTMAX[name][2])
    (_, got), grads = value_and_grads(name)(embeddings, jnp.float32(0.5))
    assert jnp.isfinite(got).all()
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(grads))


@each_softmax
@pytest.mark.parametrize("size", [1e-18, 1e18])
def test_the_length_of_the_vectors_does_not_matter(name, size):
    embeddings = SOFTMAX[name][2]
    (_, expected), _ = value_and_grads(name)(embeddings, jnp.float32(0.5))
    resized = jax.tree.map(lambda x: x * np.float32(size), embeddings)
    (_, got), _ = value_and_grads(name)(resized, jnp.float32(0.5))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@each_softmax
def test_bfloat16_inputs_are_computed_in_float32(name):
    halved = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), SOFTMAX[name][2])
    widened = jax.tree.map(lambda x: x.astype(jnp.float32), halved)
    (_, got), grads = value_and_grads(name)(halved, jnp.float32(0.1))
    (_, expected), _ = value_and_grads(name)(widened, jnp.float32(0.1))
    np.testing.assert_array_equal(got, expected)
    assert got.dtype == jnp.float32
    assert all(g.dtype == jnp.bfloat16 for g in grads[0])


@pytest.mark.parametrize(
    ("loss", "n"),
    [
        (lambda z: losses.nt_xent(z, 0.1), 2 * B - 1),
        (lambda z: losses.sup_con(z, jnp.zeros(B, jnp.int32), 0.1), 2 * B - 1),
        (lambda z: losses.sup_con(z, jnp.zeros(B, jnp.int32), positives="inside"), 2 * B - 1),
        (lambda z: losses.info_nce(z[:, 0], z[:, 1]), B),
        (lambda z: losses.info_nce(z[:, 0], z[:, 1], negatives_BKD=z), 3 * B),
        (lambda z: losses.symmetric_info_nce(z[:, 0], z[:, 1]), B),
    ],
)
def test_parallel_embeddings_give_the_log_of_the_number_of_candidates(loss, n):
    assert np.allclose(quick_jit(loss)(jnp.ones((B, V, D))), np.log(n), atol=1e-5)


def test_a_single_pair_has_no_loss_and_no_gradient():
    z = jnp.asarray(Z[:1])
    one = jnp.zeros(1, jnp.int32)
    for loss in (
        lambda z: losses.nt_xent(z),
        lambda z: losses.info_nce(z[:, 0], z[:, 1]),
        lambda z: losses.symmetric_info_nce(z[:, 0], z[:, 1], ids_B=one),
        lambda z: losses.sup_con(z[:, :1], one),
    ):
        value, grad = quick_jit(jax.value_and_grad(lambda z, loss=loss: loss(z).sum()))(z)
        assert value == 0
        assert not grad.any()


def test_an_anchor_without_positives_gives_zero_loss_and_zero_gradient():
    z, labels = jnp.asarray(Z[:, :1]), jnp.arange(B, dtype=jnp.int32)
    for positives in ("outside", "inside"):
        loss = functools.partial(losses.sup_con, labels_B=labels, positives=positives)
        value, grad = quick_jit(jax.value_and_grad(lambda z, loss=loss: loss(z).sum()))(z)
        assert value == 0
        assert not grad.any()


def test_pairs_that_share_an_id_count_as_if_they_were_not_there():
    q, k, ids = QUERY[:3], KEY[:3], jnp.array([5, 5, 6], jnp.int32)
    info_nce = quick_jit(losses.info_nce)
    got = info_nce(q, k, ids_B=ids)
    np.testing.assert_allclose(got[0], info_nce(q[[0, 2]], k[[0, 2]])[0], rtol=1e-6)
    np.testing.assert_allclose(got[1], info_nce(q[1:], k[1:])[0], rtol=1e-6)
    np.testing.assert_allclose(got[2], info_nce(q, k)[2], rtol=1e-6)


def test_explicit_negatives_are_never_dropped_by_ids():
    ids = jnp.full(B, -1, jnp.int32)
    got = quick_jit(losses.info_nce)(QUERY, KEY, 0.5, negatives_BKD=NEGATIVES, ids_B=ids)
    np.testing.assert_allclose(
        got, oracles.info_nce(QUERY, KEY, 0.5, NEGATIVES, np.full(B, -1)), rtol=1e-5
    )


def test_nt_xent_is_sup_con_with_the_example_as_label():
    z, example = normal(5, 4, 3, D), jnp.arange(4, dtype=jnp.int32)
    nt_xent, sup_con = quick_jit(losses.nt_xent), quick_jit(losses.sup_con)
    np.testing.assert_allclose(nt_xent(z, 0.2), sup_con(z, example, 0.2), rtol=1e-5, atol=1e-5)


def test_nt_xent_equals_optax():
    label = jnp.repeat(jnp.arange(B), V)
    expected = quick_jit(optax.losses.ntxent)(jnp.asarray(Z.reshape(-1, D)), label, 0.2)
    np.testing.assert_allclose(losses.nt_xent(Z, 0.2).mean(), expected, rtol=1e-5)


@each_softmax
def test_losses_follow_a_permutation_of_the_batch(name):
    loss, _, embeddings = SOFTMAX[name]
    if "sup_con" in name or "ids" in name:
        order = np.array([2, 4, 0, 3, 1, 5])  # keeps LABELS and IDS as they are
    else:
        order = np.random.default_rng(0).permutation(len(embeddings[0]))
    permuted = tuple(x[order] for x in embeddings)
    (_, got), _ = value_and_grads(name)(permuted, jnp.float32(0.2))
    (_, expected), _ = value_and_grads(name)(embeddings, jnp.float32(0.2))
    np.testing.assert_allclose(got, expected[order], rtol=1e-5, atol=1e-6)


def test_margin_contrastive_equals_the_papers_loop():
    dissimilar = np.array([0, 1, 1, 0, 1, 0])
    for margin in (0.5, 3.0):
        got = losses.margin_contrastive(QUERY, KEY, dissimilar, margin)
        expected = oracles.margin_contrastive(QUERY, KEY, dissimilar, margin)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    same = losses.margin_contrastive(QUERY, KEY, dissimilar.astype(bool), 3.0)
    np.testing.assert_array_equal(same, got)


@pytest.mark.parametrize("kind", ["euclidean", "squared", "cosine"])
def test_triplet_equals_the_papers_loop(kind):
    x, y, z = QUERY, KEY, NEGATIVES[:, 0]
    for margin in (0.2, 2.0):
        got = losses.triplet(x, y, z, margin, distance=kind)
        np.testing.assert_allclose(
            got, oracles.triplet(x, y, z, margin, kind), rtol=1e-5, atol=1e-5
        )


def test_distance_losses_have_right_gradients():
    dissimilar = jnp.array([0, 1, 1, 0, 1, 0])
    pair = functools.partial(losses.margin_contrastive, dissimilar_B=dissimilar, margin=4.0)
    check_grads(
        jax.jit(pair), (QUERY, KEY), order=1, modes=("rev",), rtol=0.02, atol=0.02, eps=1e-2
    )
    for kind in ("euclidean", "squared", "cosine"):
        loss = functools.partial(losses.triplet, margin=9.0, distance=kind)
        args = (QUERY, KEY, NEGATIVES[:, 0])
        check_grads(jax.jit(loss), args, order=1, modes=("rev",), rtol=0.02, atol=0.05, eps=1e-2)


def test_distance_losses_are_finite_where_points_coincide():
    x = jnp.asarray(QUERY)
    for dissimilar in (jnp.zeros(B), jnp.ones(B)):
        loss = functools.partial(losses.margin_contrastive, dissimilar_B=dissimilar)
        grad = quick_jit(jax.grad(lambda y, loss=loss: loss(x, y).sum()))(x)
        assert jnp.isfinite(grad).all()
    for kind in ("euclidean", "squared", "cosine"):
        loss = functools.partial(losses.triplet, margin=0.5, distance=kind)
        got, grad = quick_jit(jax.value_and_grad(lambda y, loss=loss: loss(x, y, y).sum()))(x)
        assert got == pytest.approx(0.5 * B)
        assert jnp.isfinite(grad).all()


def test_bad_input_is_refused_with_both_values_and_the_remedy():
    z, q, labels = jnp.asarray(Z), jnp.asarray(QUERY), jnp.asarray(LABELS)
    refused = [
        (lambda: losses.nt_xent(q), r"z_BVD has shape \(6, 5\), expected \[B,V,D\]: reshape"),
        (lambda: losses.nt_xent(z[:, :1]), r"1 view\(s\), expected at least 2: pass"),
        (lambda: losses.nt_xent(z.astype(jnp.int32)), "dtype int32, expected a float dtype: cast"),
        (lambda: losses.nt_xent(z, 0.0), r"temperature is 0.0, expected .* above 0: raise it"),
        (lambda: losses.nt_xent(z, -1), "temperature is -1, expected"),
        (lambda: losses.nt_xent(z, float("nan")), "temperature is nan, expected"),
        (lambda: losses.nt_xent(z, jnp.ones(2)), r"shape \(2,\), expected a scalar: index"),
        (lambda: losses.nt_xent(z, block_size=0), "block_size is 0, expected .* at least 1"),
        (lambda: losses.nt_xent(z, block_size=2.5), "block_size is 2.5, expected an int"),
        (lambda: losses.info_nce(q, q[:4]), r"shape \(4, 5\), .* \(6, 5\): pass matching rows"),
        (lambda: losses.symmetric_info_nce(q, q[:, :3]), r"\(6, 3\), .* \(6, 5\)"),
        (lambda: losses.info_nce(q, q, negatives_BKD=z[:4]), r"\(4, 2, 5\), .* \(6, 2, 5\)"),
        (lambda: losses.info_nce(q, q, ids_B=labels[:3]), r"ids_B has shape \(3,\), .* \(6,\)"),
        (lambda: losses.sup_con(z, labels.astype(jnp.float32)), "float32, expected integers: cast"),
        (lambda: losses.sup_con(z, labels[:2]), r"labels_B has shape \(2,\), .* \(6,\)"),
        (lambda: losses.sup_con(z, labels, positives="both"), "'both', expected one of 'outside'"),
        (lambda: losses.margin_contrastive(q, q[:2], labels), r"\(2, 5\), .* \(6, 5\)"),
        (lambda: losses.margin_contrastive(q, q, labels, -1.0), "margin is -1.0, expected"),
        (lambda: losses.triplet(q, q, q, distance="l1"), "'l1', expected one of 'euclidean'"),
        (lambda: losses.triplet(q, q, q, 0), "margin is 0, expected"),
    ]
    for call, message in refused:
        with pytest.raises(ValueError, match=message) as caught:
            call()
        assert str(caught.value).count("\n") < 3


@pytest.mark.parametrize("shape", [(6, 2, 5), (4, 3, 5), (1, 2, 5)])
def test_the_reference_is_nt_xent_with_its_gradient(shape):
    z = normal(5, *shape)

    @quick_jit
    def values_and_gradients(z, t):
        weights = jnp.cos(jnp.arange(z[..., 0].size)).reshape(z.shape[:2])
        both = (losses.nt_xent, nt_xent_reference)
        return [jax.value_and_grad(lambda z, f=f: (weights * f(z, t)).sum())(z) for f in both]

    (value, gradient), (expected, expected_gradient) = values_and_gradients(z, 0.2)
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        nt_xent_reference(z, 0.2), oracles.nt_xent(z, 0.2), rtol=1e-5, atol=1e-6
    )
