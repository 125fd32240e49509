"""The linear-memory forms equal the dense ones, under every transformation, in linear memory."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from contrastive_jax import losses
from tests.losses.test_sharded import QUICK_COMPILE, Z, assert_as_on_one_device, formed
from tests.losses.test_sharded import value_and_grads as value_and_grads_of

quick_jit = functools.partial(jax.jit, compiler_options=QUICK_COMPILE)


@pytest.mark.parametrize("block_size", [1, 3, 1000])
def test_tiles_of_any_size_give_the_dense_values_and_gradients(block_size):
    assert_as_on_one_device(value_and_grads_of(formed(block_size=block_size)))


def nt_xent_and_grad(z, temperature, block_size):
    def loss(z, temperature):
        return losses.nt_xent(z, temperature, block_size=block_size).mean()

    return jax.value_and_grad(loss, argnums=(0, 1))(z, temperature)


def assert_equal(got, expected, rtol=1e-5):
    jax.tree.map(lambda g, e: np.testing.assert_allclose(g, e, rtol=rtol, atol=1e-6), got, expected)


@functools.cache
def dense_at(temperature):
    return quick_jit(nt_xent_and_grad, static_argnums=2)(Z, jnp.float32(temperature), None)


def test_tiles_work_under_vmap_over_temperatures():
    temperatures = jnp.array([0.1, 0.5], jnp.float32)
    tiled = functools.partial(nt_xent_and_grad, block_size=3)
    got = quick_jit(jax.vmap(tiled, in_axes=(None, 0)))(Z, temperatures)
    expected = jax.tree.map(lambda *x: jnp.stack(x), dense_at(0.1), dense_at(0.5))
    assert_equal(got, expected)


def test_tiles_work_inside_a_rematerialised_scan():
    def loss(z):
        @jax.checkpoint
        def step(total, temperature):
            return total + losses.nt_xent(z, temperature, block_size=3).mean(), None

        return jax.lax.scan(step, jnp.float32(0), jnp.array([0.1, 0.5], jnp.float32))[0]

    got = quick_jit(jax.value_and_grad(loss))(Z)
    (low, (dz_low, _)), (high, (dz_high, _)) = dense_at(0.1), dense_at(0.5)
    assert_equal(got, (low + high, dz_low + dz_high))


@pytest.mark.parametrize("temperature", [0.001, 100.0])
def test_tiles_keep_extreme_temperatures_exact(temperature):
    tiled = quick_jit(nt_xent_and_grad, static_argnums=2)(Z, jnp.float32(temperature), 3)
    assert_equal(tiled, dense_at(temperature), rtol=1e-4)


def test_a_single_pair_has_no_loss_and_no_gradient_in_tiles():
    value, (dz, dt) = quick_jit(nt_xent_and_grad, static_argnums=2)(Z[:1], jnp.float32(0.5), 3)
    assert value == 0
    assert not dz.any()
    assert dt == 0


def test_bfloat16_inputs_in_tiles_equal_dense():
    z = jnp.asarray(Z, jnp.bfloat16)
    value, (dz, _) = quick_jit(nt_xent_and_grad, static_argnums=2)(z, jnp.float32(0.5), 3)
    expected, (dz_dense, _) = quick_jit(nt_xent_and_grad, static_argnums=2)(
        z, jnp.float32(0.5), None
    )
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(
        dz.astype(jnp.float32), dz_dense.astype(jnp.float32), rtol=1e-2, atol=1e-5
    )


def compiled(loss, B, n=None):
    """The value and gradient of a loss of [B, 2, 8], compiled but not run."""
    per_anchor = loss
    if n is not None:
        mesh = jax.make_mesh(
            (n,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:n]
        )
        per_anchor = jax.shard_map(
            functools.partial(loss, axis_name="data"),
            mesh=mesh,
            in_specs=P("data"),
            out_specs=P("data"),
        )
    z = jax.ShapeDtypeStruct((B, 2, 8), jnp.float32)
    return quick_jit(jax.value_and_grad(lambda z: per_anchor(z).mean())).lower(z).compile()


def symmetric(z_BVD, **options):
    return losses.symmetric_info_nce(z_BVD[:, 0], z_BVD[:, 1], **options)


@pytest.mark.parametrize("loss", [losses.nt_xent, symmetric])
def test_tiles_never_hold_the_matrix_of_pairs(loss):
    B, block = 4096, 128
    tiled = compiled(functools.partial(loss, block_size=block), B)
    rows, tile = 2 * B * 8 * 4, block * block * 4
    assert tiled.memory_analysis().temp_size_in_bytes < 12 * rows + 8 * tile
    assert (2 * B) ** 2 > 20 * (12 * rows + 8 * tile) / 4


@pytest.mark.parametrize("loss", [losses.nt_xent, symmetric])
def test_the_ring_holds_neither_all_keys_nor_a_matrix_and_only_permutes(loss):
    B, n = 1024, 8
    text = compiled(functools.partial(loss, block_size=64), B, n).as_text()
    here = 2 * B // n
    largest = max(
        int(np.prod([int(d) for d in dims.split(",")]))
        for dims in re.findall(r"f32\[([\d,]+)\]", text)
    )
    assert largest <= max(here * 8, 64 * 64)
    collectives = set(re.findall(r" (all-gather|reduce-scatter|all-to-all|collective-\w+)", text))
    assert collectives == {"collective-permute"}


def test_the_dense_sharded_form_gathers_keys_once_and_scatters_their_gradient_once():
    text = compiled(losses.nt_xent, 64, 8).as_text()
    floats = re.findall(
        r"= f32\[[\d,]+\]\S* (all-gather|reduce-scatter|collective-permute)\(", text
    )
    assert sorted(floats) == ["all-gather", "reduce-scatter"]
