"""The island of the pair loss gives the gradient of one device, on any number of devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import losses, parallel

B, V, D = 16, 2, 6
nt_xent = functools.partial(losses.nt_xent, temperature=0.5)


def mean_loss_and_gradient(loss, z_BVD):
    return jax.jit(jax.value_and_grad(lambda z: loss(z).mean()))(z_BVD)


@pytest.mark.parametrize("n_devices", [1, 2, 4, 8])
def test_sharded_loss_and_gradient_equal_unsharded(key, n_devices):
    z = jax.random.normal(key, (B, V, D))
    mesh = parallel.make_mesh(jax.devices()[:n_devices])
    sharded = parallel.shard_loss(nt_xent, mesh)
    on_mesh = jax.device_put(z, parallel.batched(mesh))
    for got, want in zip(
        mean_loss_and_gradient(sharded, on_mesh), mean_loss_and_gradient(nt_xent, z), strict=True
    ):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)


def test_a_gather_without_gradient_is_caught(key):
    """The check above must be able to fail: here the keys of other devices carry no gradient."""

    def broken(z_BVD, *, axis_name):
        z = z_BVD / jnp.linalg.norm(z_BVD, axis=-1, keepdims=True)
        rows = z.reshape(-1, D)
        own = jax.lax.axis_index(axis_name) * len(rows) + jnp.arange(len(rows))
        keys = jax.lax.stop_gradient(jax.lax.all_gather(rows, axis_name, tiled=True))
        logits = rows @ keys.T / 0.5
        itself = own[:, None] == jnp.arange(len(keys))[None, :]
        logits = jnp.where(itself, -jnp.inf, logits)
        positive = jnp.take_along_axis(logits, (own ^ 1)[:, None], axis=1)[:, 0]
        return (jax.nn.logsumexp(logits, axis=1) - positive).reshape(z_BVD.shape[:2])

    z = jax.random.normal(key, (B, V, D))
    sharded = parallel.shard_loss(broken, parallel.make_mesh())
    value, gradient = mean_loss_and_gradient(sharded, z)
    want_value, want_gradient = mean_loss_and_gradient(nt_xent, z)
    np.testing.assert_allclose(value, want_value, rtol=1e-5)
    assert np.abs(gradient - want_gradient).max() > 1e-3


def test_arguments_beyond_n_sharded_are_replicated_and_differentiable(key):
    z = jax.random.normal(key, (B, V, D))
    sharded = parallel.shard_loss(losses.nt_xent, parallel.make_mesh())
    got = jax.jit(jax.grad(lambda t: sharded(z, t).mean()))(jnp.float32(0.5))
    want = jax.jit(jax.grad(lambda t: losses.nt_xent(z, t).mean()))(jnp.float32(0.5))
    np.testing.assert_allclose(got, want, rtol=1e-4)


def test_put_batch_splits_examples_and_put_replicated_does_not():
    mesh = parallel.make_mesh()
    rows = np.arange(16, dtype=np.int32)
    split = parallel.put_batch({"index": rows}, mesh)["index"]
    whole = parallel.put_replicated({"index": rows}, mesh)["index"]
    assert {shard.data.shape for shard in split.addressable_shards} == {(2,)}
    assert {shard.data.shape for shard in whole.addressable_shards} == {(16,)}
    np.testing.assert_array_equal(split, rows)
