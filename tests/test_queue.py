"""The key queue: order, wrap-around, equality across devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax.queue import Queue, make_queue, push


def test_a_new_queue_holds_unit_vectors(key):
    queue = make_queue(key, 16, 5)
    np.testing.assert_allclose(jnp.linalg.norm(queue.keys_KD, axis=1), 1.0, rtol=1e-5)


def test_the_queue_holds_the_latest_keys_whatever_the_batch_size(key):
    queue, K = make_queue(key, 5, 1), 5
    pushed = []
    step = jax.jit(push)
    for batch in (2, 3, 4, 5, 1):
        new = len(pushed) + np.arange(batch, dtype=np.float32)[:, None]
        pushed += list(new[:, 0])
        queue = step(queue, new)
        latest = pushed[-K:]
        held = np.roll(queue.keys_KD[:, 0], -int(queue.cursor))
        np.testing.assert_array_equal(held[K - len(latest) :], latest)
    assert queue.cursor.dtype == jnp.int32


def test_no_gradient_reaches_stored_keys(key):
    queue = make_queue(key, 4, 2)
    grad = jax.grad(lambda keys: push(queue, keys).keys_KD.sum())(jnp.ones((2, 2)))
    assert not grad.any()


def test_bad_input_is_refused(key):
    queue = make_queue(key, 4, 2)
    for keys in (jnp.ones((5, 2)), jnp.ones((2, 3)), jnp.ones(2)):
        with pytest.raises(ValueError, match=r"do not fit a queue of shape \(4, 2\): push at most"):
            push(queue, keys)
    with pytest.raises(ValueError, match="both must be at least 1"):
        make_queue(key, 0, 2)
    assert isinstance(queue, Queue)
