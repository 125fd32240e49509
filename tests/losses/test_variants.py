"""Variants of the softmax and sigmoid losses: slow loops, gradients, tiles, devices, extremes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from jax.test_util import check_grads

from contrastive_jax import losses
from tests.losses import oracles
from tests.losses.test_sharded import QUICK_COMPILE

B, V, D, K = 8, 2, 5, 3
IDS = np.array([3, 1, 3, 2, 7, 1, 0, 7], np.int32)


@pytest.fixture(autouse=True, scope="module")
def quick_compile():
    """Little optimization: these tests compile much and compute little."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


Z, A, B_, NEGATIVES, QUEUE = (
    normal(0, B, V, D),
    normal(1, B, D),
    normal(2, B, D),
    normal(3, B, K, D),
    normal(4, 7, D),
)
GUIDES = normal(5, B, 2), normal(6, B, 2)
GUIDE_NEGATIVES = normal(8, B, K, 2)
MASK = np.array([[k <= b % (K + 1) for k in range(K)] for b in range(B)])
MASK[3] = False
NEGATIVE_IDS = np.arange(B * K, dtype=np.int32).reshape(B, K) % 9
TARGETS = np.abs(normal(7, B, B))
HALF = 0.5


def _hard(z, **form):
    return losses.debiased_nt_xent(z, HALF, tau_plus=0.05, beta=1.0, **form)


def _guided(relative):
    def loss(q, k, guide_q, guide_k, **form):
        pairs_only = {"contrast_queries": False, "contrast_keys": False}
        options = {"margin": 0.1, "relative": relative} | (pairs_only if relative else {})
        return losses.guided_info_nce(q, k, guide_q, guide_k, HALF, **options, **form)

    return loss


GIVEN = (NEGATIVES, MASK, NEGATIVE_IDS, IDS)
ALL = ("query_to_key", "key_to_query", "query_to_query", "key_to_key")


def _named(n, mask, n_ids, ids):
    return {
        "negatives_BKD": n,
        "negatives_mask_BK": mask,
        "negatives_ids_BK": n_ids,
        "ids_B": ids,
    }


# name: (loss(*arrays, **form), oracle(*arrays), arrays)
CASES = {
    "per_query": (
        lambda q, k, n: losses.per_query_info_nce(q, k, n, HALF),
        lambda q, k, n: oracles.per_query_info_nce(q, k, n, HALF),
        (A, B_, NEGATIVES),
    ),
    "per_query given ids": (
        lambda q, k, *given: losses.per_query_info_nce(q, k, temperature=HALF, **_named(*given)),
        lambda q, k, *given: oracles.per_query_info_nce(q, k, temperature=HALF, **_named(*given)),
        (A, B_, *GIVEN),
    ),
    "given ids": (
        lambda q, k, *given, **kw: losses.info_nce(q, k, HALF, **_named(*given), **kw),
        lambda q, k, *given: oracles.info_nce(q, k, HALF, **_named(*given)),
        (A, B_, *GIVEN),
    ),
    "given in all directions": (
        lambda q, k, *given, **kw: losses.info_nce(
            q, k, HALF, directions=ALL, **_named(*given), **kw
        ),
        lambda q, k, *given: oracles.info_nce(q, k, HALF, directions=ALL, **_named(*given)),
        (A, B_, *GIVEN),
    ),
    "both directions": (
        lambda q, k, **kw: losses.info_nce(q, k, HALF, directions=ALL[:2], **kw),
        lambda q, k: oracles.info_nce(q, k, HALF, directions=ALL[:2]),
        (A, B_),
    ),
    "labeled_nt_xent": (
        lambda z, ids, **kw: losses.labeled_nt_xent(z, ids, HALF, **kw),
        lambda z, ids: oracles.labeled_nt_xent(z, ids, HALF),
        (Z, IDS),
    ),
    "queue": (
        lambda q, **kw: losses.queue_info_nce(q, B_, QUEUE, HALF, **kw),
        lambda q: oracles.queue_info_nce(q, B_, QUEUE, HALF),
        (A,),
    ),
    "soft": (
        lambda q, k, t, **kw: losses.soft_info_nce(q, k, t, HALF, **kw),
        lambda q, k, t: oracles.soft_info_nce(q, k, t, HALF),
        (A, B_, TARGETS),
    ),
    "joint": (
        lambda q, k, **kw: losses.joint_info_nce(q, k, HALF, **kw),
        lambda q, k: oracles.joint_info_nce(q, k, HALF),
        (A, B_),
    ),
    "joint once": (
        lambda q, k, **kw: losses.joint_info_nce(q, k, HALF, positive_once=True, **kw),
        lambda q, k: oracles.joint_info_nce(q, k, HALF, positive_once=True),
        (A, B_),
    ),
    "joint ids": (
        lambda q, k, ids, **kw: losses.joint_info_nce(q, k, HALF, ids_B=ids, **kw),
        lambda q, k, ids: oracles.joint_info_nce(q, k, HALF, ids),
        (A, B_, IDS),
    ),
    "guided": (
        _guided(relative=False),
        lambda *x: oracles.guided_info_nce(*x, HALF, 0.1, relative=False),
        (A, B_, *GUIDES),
    ),
    "guided relative": (
        _guided(relative=True),
        lambda *x: oracles.guided_info_nce(*x, HALF, 0.1, relative=True, contrast=False),
        (A, B_, *GUIDES),
    ),
    "guided given": (
        lambda q, k, g, h, n, gn, *given, **kw: losses.guided_info_nce(
            q, k, g, h, HALF, guide_negatives_BKF=gn, **_named(n, *given), **kw
        ),
        lambda q, k, g, h, n, gn, *given: oracles.guided_info_nce(
            q, k, g, h, HALF, 0.0, False, guide_negatives_BKF=gn, **_named(n, *given)
        ),
        (A, B_, *GUIDES, NEGATIVES, GUIDE_NEGATIVES, *GIVEN[1:]),
    ),
    "decoupled": (
        lambda z, **kw: losses.decoupled(z, HALF, **kw),
        lambda z: oracles.decoupled(z, HALF),
        (Z,),
    ),
    "decoupled weighted": (
        lambda z, **kw: losses.decoupled(z, HALF, sigma=0.7, **kw),
        lambda z: oracles.decoupled(z, HALF, 0.7),
        (Z,),
    ),
    "debiased": (
        lambda z, **kw: losses.debiased_nt_xent(z, HALF, tau_plus=0.2, **kw),
        lambda z: oracles.debiased_nt_xent(z, HALF, 0.2, 0.0),
        (Z,),
    ),
    "hard": (_hard, lambda z: oracles.debiased_nt_xent(z, HALF, 0.05, 1.0), (Z,)),
    "hardness": (
        lambda q, k, **kw: losses.hardness_info_nce(q, k, HALF, alpha=3.0, **kw),
        lambda q, k: oracles.hardness_info_nce(q, k, HALF, 3.0),
        (A, B_),
    ),
    **{
        f"hardness {which}": (
            lambda q, k, n, mask, which=which, **kw: losses.hardness_info_nce(
                q,
                k,
                HALF,
                alpha=3.0,
                weighted=which,
                negatives_BKD=n,
                negatives_mask_BK=mask,
                **kw,
            ),
            lambda q, k, n, mask, which=which: oracles.hardness_info_nce(
                q, k, HALF, 3.0, which, n, mask
            ),
            (A, B_, NEGATIVES, MASK),
        )
        for which in ("in_batch", "explicit", "all")
    },
    "multi_positive": (
        lambda q, k, ids, **kw: losses.multi_positive_info_nce(q, k, ids, HALF, **kw),
        lambda q, k, ids: oracles.multi_positive_info_nce(q, k, ids, HALF),
        (A, B_, IDS),
    ),
    "n_pair": (losses.n_pair, oracles.n_pair, (A, B_)),
    "angular": (
        lambda a, p, **kw: losses.angular(a, p, 40.0, **kw),
        lambda a, p: oracles.angular(a, p, 40.0),
        (A, B_),
    ),
    "siglip": (
        lambda a, b, t, bias, **kw: losses.siglip(a, b, t, bias, **kw),
        oracles.siglip,
        (A, B_, np.float32(0.3), np.float32(-0.7)),
    ),
    "siglip ids": (
        lambda a, b, ids, **kw: losses.siglip(a, b, 0.3, -0.7, ids_B=ids, **kw),
        lambda a, b, ids: oracles.siglip(a, b, 0.3, -0.7, ids),
        (A, B_, IDS),
    ),
    "siglip positive ids": (
        lambda a, b, ids, **kw: losses.siglip(a, b, 0.3, -0.7, ids_B=ids, same_id="positive", **kw),
        lambda a, b, ids: oracles.siglip(a, b, 0.3, -0.7, ids, "positive"),
        (A, B_, IDS),
    ),
    "nt_logistic": (
        lambda z, **kw: losses.nt_logistic(z, HALF, **kw),
        lambda z: oracles.nt_logistic(z, HALF),
        (Z,),
    ),
    "nt_logistic semi-hard": (
        lambda z, **kw: losses.nt_logistic(z, HALF, semi_hard=True, **kw),
        lambda z: oracles.nt_logistic(z, HALF, semi_hard=True),
        (Z,),
    ),
}
each_case = pytest.mark.parametrize("name", CASES)
TILED = tuple(name for name in CASES if not name.startswith(("per_query", "soft")))
SHARDED = tuple(name for name in CASES if not name.startswith(("per_query", "queue")))
RING = tuple(name for name in SHARDED if name in TILED)


@functools.cache
def compiled(names, wrap=lambda loss, arrays: loss, **form):
    """Several losses in one compilation, with anchors weighted unevenly."""

    def total(floats, integers):
        out, sums = {}, []
        for name in names:
            pairs = zip(floats[name], integers[name], strict=True)
            args = [i if f is None else f for f, i in pairs]
            loss = functools.partial(CASES[name][0], **form) if form else CASES[name][0]
            out[name] = wrap(loss, args)(*args)
            weights = jnp.cos(jnp.arange(out[name].size)).reshape(out[name].shape)
            sums.append(jnp.sum(weights * out[name]))
        return sum(sums), out

    return jax.jit(jax.value_and_grad(total, has_aux=True), compiler_options=QUICK_COMPILE)


def values_and_grads(names, change=lambda x: x, **options):
    arrays = {name: [change(x) for x in CASES[name][2]] for name in names}
    is_float = {name: [x.dtype == np.float32 for x in arrays[name]] for name in names}
    floats, integers = (
        {
            name: [
                x if f == keep else None for x, f in zip(arrays[name], is_float[name], strict=True)
            ]
            for name in names
        }
        for keep in (True, False)
    )
    (_, values), grads = compiled(names, **options)(floats, integers)
    return values, grads


@functools.cache
def dense():
    return values_and_grads(tuple(CASES))


def assert_as_dense(got):
    expected = [{name: part[name] for name in got[0]} for part in dense()]
    jax.tree.map(
        lambda g, e: np.testing.assert_allclose(g, e, rtol=2e-5, atol=5e-6), list(got), expected
    )


def sharded(loss, arrays, n=2):
    mesh = jax.make_mesh((n,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:n])
    specs = tuple(P("data") if np.ndim(x) else P() for x in arrays)
    return jax.shard_map(loss, mesh=mesh, in_specs=specs, out_specs=P("data"))


@each_case
def test_variants_equal_the_papers_loops(name):
    _, oracle, arrays = CASES[name]
    np.testing.assert_allclose(dense()[0][name], oracle(*arrays), rtol=2e-5, atol=2e-5)
    assert dense()[0][name].dtype == jnp.float32


@pytest.mark.parametrize(
    "name",
    [name for name in CASES if not any(x in name for x in ("hardness", "ids", "relative", "once"))],
)
def test_variants_have_right_gradients(name):
    loss, _, arrays = CASES[name]
    floats = [i for i, x in enumerate(arrays) if np.issubdtype(x.dtype, np.floating)]
    if "guided" in name:
        floats = floats[:2]

    def of_floats(*args):
        every = list(arrays)
        for i, x in zip(floats, args, strict=True):
            every[i] = x
        return loss(*every)

    args = tuple(arrays[i] for i in floats)
    eps = 1e-3 if "semi-hard" in name else 1e-2  # a longer step changes which negatives are kept
    check_grads(jax.jit(of_floats), args, 1, modes=("rev",), rtol=0.03, atol=0.03, eps=eps)


def test_the_hardness_weight_carries_no_gradient():
    def by_hand(q, k):
        unit = lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True)  # noqa: E731
        cosine = unit(q) @ unit(k).T
        extra = 3.0 * jax.lax.stop_gradient(cosine) * (1.0 - jnp.eye(B))
        return -jnp.diag(jax.nn.log_softmax(cosine / HALF + extra)).sum()

    loss = functools.partial(losses.hardness_info_nce, temperature=HALF, alpha=3.0)
    got = jax.jit(jax.grad(lambda q, k: loss(q, k).sum(), argnums=(0, 1)))(A, B_)
    expected = jax.jit(jax.grad(by_hand, argnums=(0, 1)))(jnp.asarray(A), jnp.asarray(B_))
    for g, e in zip(got, expected, strict=True):
        np.testing.assert_allclose(g, e, rtol=1e-4, atol=1e-6)


def test_tiles_change_neither_values_nor_gradients():
    assert_as_dense(values_and_grads(TILED, block_size=3))


DEVICES = [pytest.param(n, marks=pytest.mark.slow if n != 2 else ()) for n in (1, 2, 4, 8)]


@pytest.mark.parametrize("n", DEVICES)
def test_sharding_changes_neither_values_nor_gradients(n):
    on_n = functools.partial(sharded, n=n)
    assert_as_dense(values_and_grads(SHARDED, wrap=on_n, axis_name="data"))


@pytest.mark.parametrize("n", DEVICES)
def test_the_ring_changes_neither_values_nor_gradients(n):
    few = (
        *("joint", "guided", "decoupled weighted", "hard", "hardness", "siglip"),
        *("given in all directions", "guided given", "labeled_nt_xent"),
    )
    on_n = functools.partial(sharded, n=n)
    assert_as_dense(
        values_and_grads(few if n == 2 else RING, wrap=on_n, axis_name="data", block_size=3)
    )


@pytest.mark.slow
def test_a_ring_of_two_changes_no_loss_that_has_tiles():
    assert_as_dense(values_and_grads(RING, wrap=sharded, axis_name="data", block_size=3))


def test_zero_vectors_give_finite_values_and_gradients():
    def zero(x):
        return np.zeros_like(x) if x.ndim > 1 else x

    for tree in values_and_grads(tuple(CASES), zero):
        assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(tree))


def test_a_batch_of_one_has_finite_values_and_gradients():
    names = tuple(name for name in CASES if name not in ("queue", "soft"))
    values, grads = values_and_grads(names, lambda x: x[:1] if x.ndim else x)
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(grads))
    for name in ("joint", "guided", "decoupled", "debiased", "hard", "hardness", "n_pair"):
        assert not values[name].any()
        assert not any(x.any() for x in jax.tree.leaves(grads[name]))


GIVEN_LOSSES = {
    "info_nce": losses.info_nce,
    "all directions": functools.partial(losses.info_nce, directions=ALL),
    "per_query_info_nce": losses.per_query_info_nce,
    "hardness_info_nce": functools.partial(losses.hardness_info_nce, weighted="all"),
    "guided_info_nce": lambda q, k, **given: losses.guided_info_nce(
        q, k, *GUIDES, guide_negatives_BKF=GUIDE_NEGATIVES[:, : given["negatives_BKD"].shape[1]],
        **given,
    ),
}  # fmt: skip


@pytest.mark.parametrize("rubbish", [0.0, np.nan])
def test_padding_counts_as_if_it_were_not_there(rubbish):
    padded, mask = NEGATIVES.copy(), np.ones((B, K), bool)
    padded[:, 2:], mask[:, 2:] = rubbish, False

    def of_all(q, k, t, **given):
        return sum(loss(q, k, temperature=t, **given).sum() for loss in GIVEN_LOSSES.values())

    both = jax.jit(jax.value_and_grad(of_all, argnums=(0, 1, 2)), compiler_options=QUICK_COMPILE)
    got = both(A, B_, np.float32(0.3), negatives_BKD=padded, negatives_mask_BK=mask)
    expected = both(A, B_, np.float32(0.3), negatives_BKD=NEGATIVES[:, :2])
    jax.tree.map(lambda g, e: np.testing.assert_allclose(g, e, rtol=1e-6, atol=1e-6), got, expected)


def test_without_real_negatives_a_query_has_no_loss_and_no_gradient():
    def total(q, t):
        out = losses.per_query_info_nce(
            q, B_, NEGATIVES, t, negatives_mask_BK=np.zeros((B, K), bool)
        )
        return out.sum()

    value, grads = jax.value_and_grad(total, argnums=(0, 1))(jnp.asarray(A), jnp.float32(0.3))
    assert value == 0
    assert not any(x.any() for x in grads)


def test_labeled_nt_xent_is_that_of_optax():
    labels = np.array([0, 0, 0, 1], np.int32)
    got = losses.labeled_nt_xent(A[:4, None], labels, 0.07)[:3].mean()
    np.testing.assert_allclose(got, optax.losses.ntxent(A[:4], labels), rtol=1e-5)


def test_a_very_low_temperature_stays_finite():
    @jax.jit
    def values_and_slopes(t):
        def total(t):
            return (
                losses.debiased_nt_xent(Z, t, beta=1.0).sum()
                + losses.decoupled(Z, t, sigma=0.5).sum()
                + losses.joint_info_nce(A, B_, t).sum()
                + losses.siglip(A, B_, t).sum()
                + losses.nt_logistic(Z, t).sum()
                + losses.hardness_info_nce(A, B_, t).sum()
            )

        return jax.value_and_grad(total)(t)

    for t in (0.001, 100.0):
        assert all(np.isfinite(x) for x in values_and_slopes(jnp.float32(t)))


def test_without_correction_the_debiased_loss_is_nt_xent():
    got = losses.debiased_nt_xent(Z, HALF, tau_plus=0.0)
    np.testing.assert_allclose(got, losses.nt_xent(Z, HALF), rtol=1e-5)


def test_no_gradient_reaches_the_queue_or_the_key():
    grads = jax.grad(lambda k, queue: losses.queue_info_nce(A, k, queue).sum(), argnums=(0, 1))
    assert not any(g.any() for g in grads(jnp.asarray(B_), jnp.asarray(QUEUE)))


def test_bad_input_is_refused():
    for call, message in [
        (
            lambda: losses.per_query_info_nce(A, B_, NEGATIVES[:2]),
            r"\(2, 3, 5\), .*\(8, 3, 5\)",
        ),
        (lambda: losses.queue_info_nce(A, B_, QUEUE[:, :3]), r"\(7, 3\), .*\(7, 5\)"),
        (lambda: losses.debiased_nt_xent(Z, tau_plus=1.0), "tau_plus is 1.0, expected"),
        (lambda: losses.decoupled(Z, sigma=-1.0), "sigma is -1.0, expected"),
        (lambda: losses.angular(A, B_, 90.0), "degrees is 90.0, expected"),
        (lambda: losses.soft_info_nce(A, B_, TARGETS[:, :3]), r"\(8, 3\), .*\(8, 8\)"),
        (lambda: losses.guided_info_nce(A, B_, GUIDES[0], A), r"\(8, 5\), .*\(8, 2\)"),
        (
            lambda: losses.guided_info_nce(A, B_, *GUIDES, negatives_BKD=NEGATIVES),
            "guide_negatives_BKF belong together",
        ),
        (lambda: losses.info_nce(A, B_, negatives_mask_BK=MASK), "negatives_BKD is None"),
        (
            lambda: losses.info_nce(A, B_, negatives_BKD=NEGATIVES, negatives_mask_BK=1 * MASK),
            "dtype int32, expected bool",
        ),
        (
            lambda: losses.per_query_info_nce(A, B_, NEGATIVES, negatives_ids_BK=NEGATIVE_IDS),
            "ids_B is None: pass both",
        ),
        (lambda: losses.info_nce(A, B_, directions=("key_to_query",)), "add 'query_to_key'"),
        (lambda: losses.info_nce(A, B_, directions="query_to_key"), "expected a tuple"),
        (lambda: losses.hardness_info_nce(A, B_, weighted="explicit"), "pass negatives"),
        (lambda: losses.siglip(A, B_, same_id="yes"), "'yes', expected one of 'left_out'"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
