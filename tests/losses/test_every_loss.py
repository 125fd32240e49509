"""What holds of every loss: it follows a permutation, half precision only rounds its inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import losses
from tests.losses import test_labeled as labeled
from tests.losses import test_non_contrastive as non_contrastive
from tests.losses import test_variants as variants
from tests.losses.test_sharded import QUICK_COMPILE

VARIANTS = tuple(name for name in variants.CASES if name not in ("queue", "soft"))
DTYPES = [jnp.bfloat16, pytest.param(jnp.float16, marks=pytest.mark.slow)]
both_dtypes = pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])


def assert_close(got, expected, rtol=1e-5):
    jax.tree.map(lambda g, e: np.testing.assert_allclose(g, e, rtol=rtol, atol=5e-6), got, expected)


def values_of(losses_of, arrays):
    """Every loss on its arrays, in one compilation without gradients."""

    def all_of(arrays):
        return {name: loss(*arrays[name]) for name, loss in losses_of.items()}

    return jax.jit(all_of, compiler_options=QUICK_COMPILE)(arrays)


def rounded(arrays, dtype):
    """The arrays in half precision, and the same numbers in float32."""
    half = jax.tree.map(lambda x: x.astype(dtype) if x.dtype == np.float32 else x, arrays)
    wide = jax.tree.map(
        lambda x: np.asarray(x, np.float32) if x.dtype == dtype else np.asarray(x), half
    )
    return half, wide


def test_variants_follow_a_permutation_of_the_batch():
    order = np.random.default_rng(0).permutation(variants.B)
    got, _ = variants.values_and_grads(VARIANTS, lambda x: x[order] if x.ndim else x)
    dense, _ = variants.values_and_grads(VARIANTS)
    assert_close(got, {name: value[order] for name, value in dense.items()})


def test_labeled_losses_follow_a_permutation_of_the_batch():
    order = np.array([2, 4, 0, 6, 1, 5, 3, 7])
    assert (labeled.LABELS[order] == labeled.LABELS).all()
    got, _ = labeled.values_and_grads(labeled.X[order])
    expected = {name: value[order] for name, value in labeled.on_one_device()[0].items()}
    assert_close(got, expected, rtol=1e-4)


def test_non_contrastive_follow_a_permutation_of_the_batch():
    order = np.array([0, 1, 3, 2, 4, 5, 6, 7])
    assert (non_contrastive.SCORE[order] == non_contrastive.SCORE).all()
    got, _ = non_contrastive.values_and_grads(non_contrastive.X[order], non_contrastive.Y[order])
    expected = {
        name: value[order] if value.ndim else value
        for name, value in non_contrastive.on_one_device()[0].items()
    }
    assert_close(got, expected, rtol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_half_precision_only_rounds_the_inputs_of_variants(dtype):
    half, wide = rounded(
        {name: tuple(map(jnp.asarray, variants.CASES[name][2])) for name in VARIANTS}, dtype
    )
    got = values_of({name: variants.CASES[name][0] for name in VARIANTS}, half)
    expected, _ = variants.values_and_grads(VARIANTS, iter_of(wide))
    assert_close(got, expected)
    assert all(value.dtype == jnp.float32 for value in got.values())


def iter_of(arrays):
    """`values_and_grads` visits the arrays of its cases in order: hand it these instead."""
    flat = iter([x for name in VARIANTS for x in arrays[name]])
    return lambda _: next(flat)


@pytest.mark.slow
@both_dtypes
def test_half_precision_only_rounds_the_inputs_of_labeled_losses(dtype):
    half = jnp.asarray(labeled.X).astype(dtype)
    labels = jnp.asarray(labeled.LABELS)
    cases = {name: loss for name, (loss, _) in labeled.CASES.items()}
    got = values_of(cases, dict.fromkeys(cases, (half, labels)))
    expected, _ = labeled.values_and_grads(np.asarray(half, np.float32))
    assert_close(got, expected, rtol=1e-4)
    assert all(value.dtype == jnp.float32 for value in got.values())


@pytest.mark.slow
@both_dtypes
def test_half_precision_only_rounds_the_inputs_of_non_contrastive(dtype):
    x, y = (jnp.asarray(z).astype(dtype) for z in (non_contrastive.X, non_contrastive.Y))
    cases = {name: loss for name, (loss, _) in non_contrastive.CASES.items()}
    got = values_of(cases, dict.fromkeys(cases, (x, y)))
    expected, _ = non_contrastive.values_and_grads(*(np.asarray(z, np.float32) for z in (x, y)))
    assert_close(got, expected, rtol=1e-4)
    assert all(value.dtype == jnp.float32 for value in got.values())


@pytest.mark.parametrize("loss", [losses.joint_info_nce, losses.siglip])
def test_pairs_that_share_an_id_count_as_if_they_were_not_there(loss):
    q, k, ids = variants.A[:3], variants.B_[:3], jnp.array([5, 5, 6], jnp.int32)

    @jax.jit
    def masked_and_filtered(q, k):
        masked = loss(q, k, 0.5, ids_B=ids)
        filtered = [loss(q[kept], k[kept], 0.5) for kept in (np.array([0, 2]), np.array([1, 2]))]
        return masked[:2], jnp.stack([filtered[0][0], filtered[1][0]])

    assert_close(*masked_and_filtered(q, k))
