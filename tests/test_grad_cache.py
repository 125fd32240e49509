"""Encoding in chunks: the gradient of the plain step, in the activation memory of one chunk."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import losses
from contrastive_jax.grad_cache import encode_in_chunks

B, F, H, D = 8, 6, 16, 4
quick_jit = functools.partial(
    jax.jit,
    compiler_options={
        "xla_backend_optimization_level": 0,
        "xla_llvm_disable_expensive_passes": True,
    },
)


def encode(params, x, key):
    """Two layers with dropout between them."""
    hidden = jax.nn.relu(x @ params["in"])
    kept = jax.random.bernoulli(key, 0.7, hidden.shape)
    return jnp.where(kept, hidden / 0.7, 0.0) @ params["out"]


def encode_at_once(params, x, key, chunk_size):
    """The plain step with the dropout masks of the chunks."""
    n = len(x) // chunk_size
    chunks = [encode(params, x[i::n], jax.random.fold_in(key, i)) for i in range(n)]
    return jnp.stack(chunks, axis=1).reshape(len(x), -1)


def make_params(key):
    first, second = jax.random.split(key)
    return {
        "in": jax.random.normal(first, (F, H)) / F**0.5,
        "out": jax.random.normal(second, (H, D)) / H**0.5,
    }


def every_loss(q, k):
    """A softmax, a tiled, a sigmoid and a distance loss."""
    both, labels = jnp.concatenate([q, k]), jnp.tile(jnp.arange(B), 2)
    return {
        "info_nce": losses.info_nce(q, k).mean(),
        "tiled": losses.symmetric_info_nce(q, k, block_size=3).mean(),
        "siglip": losses.siglip(q, k).mean(),
        "triplet": losses.batch_hard_triplet(both, labels).mean(),
    }


def test_parameter_gradients_of_two_encoders_equal_those_of_the_plain_step(key):
    params = {"q": make_params(jax.random.fold_in(key, 0)), "k": make_params(key)}
    x, y = jax.random.normal(jax.random.fold_in(key, 2), (2, B, F))
    q_key, k_key = jax.random.split(jax.random.fold_in(key, 3))

    def values(params, encode_all):
        return every_loss(encode_all(params["q"], x, q_key), encode_all(params["k"], y, k_key))

    def values_and_grads(params, encode_all):
        return values(params, encode_all), jax.jacrev(values)(params, encode_all)

    chunked = functools.partial(encode_in_chunks, encode, chunk_size=2)
    plain = functools.partial(encode_at_once, chunk_size=2)
    got = quick_jit(values_and_grads, static_argnums=1)(params, chunked)
    expected = quick_jit(values_and_grads, static_argnums=1)(params, plain)
    jax.tree.map(lambda g, e: np.testing.assert_allclose(g, e, rtol=2e-5, atol=1e-6), got, expected)


def test_one_encoder_sees_two_views_and_any_pytree(key):
    params = make_params(key)
    batch = {"image": jax.random.normal(key, (B, 2, F)), "scale": jnp.ones(B)}

    def encode_views(params, chunk, key):
        del key
        z = jax.nn.relu(chunk["image"] @ params["in"]) @ params["out"]
        return {"z": z * chunk["scale"][:, None, None]}

    chunked = quick_jit(functools.partial(encode_in_chunks, encode_views, chunk_size=4))
    got = chunked(params, batch, key)
    expected = encode_views(params, batch, key)
    np.testing.assert_allclose(got["z"], expected["z"], rtol=1e-5, atol=1e-6)


def test_activation_memory_does_not_grow_with_the_batch():
    wide = {"in": jnp.ones((F, 4096)), "out": jnp.ones((4096, D))}

    def memory(batch, chunk_size):
        def loss(params, x):
            z = encode_in_chunks(encode, params, x, jax.random.key(0), chunk_size=chunk_size)
            return (z**2).sum()

        x = jax.ShapeDtypeStruct((batch, F), jnp.float32)
        return jax.jit(jax.grad(loss)).lower(wide, x).compile().memory_analysis().temp_size_in_bytes

    at_once, chunked = memory(512, 512), memory(512, 32)
    assert chunked < at_once / 5
    assert memory(1024, 32) < 1.2 * chunked


def test_chunks_that_do_not_fit_are_refused(key):
    for inputs, chunk_size in ((jnp.ones((8, F)), 3), (jnp.ones((8, F)), 0)):
        with pytest.raises(ValueError, match=r"batch size \[8\] in chunks of \d"):
            encode_in_chunks(encode, {}, inputs, key, chunk_size=chunk_size)
    with pytest.raises(ValueError, match=r"batch size \[4, 8\]"):
        encode_in_chunks(encode, {}, (jnp.ones(4), jnp.ones(8)), key, chunk_size=2)
