"""MoCo: the moving encoder follows, the queue fills with its keys, on any number of devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from contrastive_jax import augment, data, parallel, training
from contrastive_jax.encoders import heads, resnet
from contrastive_jax.objectives import moco

BATCH, QUEUE, DECAY = 8, 20, 0.7


def objective(**settings):
    views = augment.make_views(
        size=8, crop_scale=(0.5, 1.0), jitter_probability=0.0, grayscale_probability=0.0
    )
    return moco.make(
        resnet.make(depth=10, width=0.0625, stages=1),
        heads.make(hidden_dim=8, output_dim=4),
        views,
        **{"n_classes": 3, "queue_size": QUEUE, "momentum": DECAY, **settings},
    )


@pytest.fixture(scope="module")
def feed():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (24, 8, 8, 3), np.uint8)
    return data.feed({"image": image, "label": np.arange(24, dtype=np.int32) % 3}, BATCH, 0)


@pytest.fixture(scope="module")
def steps(feed):
    """How many devices -> states before and after each of three steps of theirs."""

    @functools.cache
    def make(devices: int):
        mesh = parallel.make_mesh(jax.devices()[:devices])
        method, optimizer = objective(), optax.sgd(0.1)
        state = training.make_init(method, optimizer, feed, mesh)(0)
        step = training.make_train_step(method, optimizer, feed, mesh)
        resident = parallel.put_replicated(dict(feed.resident), mesh)
        key = parallel.put_replicated(jax.random.key(1), mesh)
        states = [jax.device_get(state)]
        for i in range(3):
            state, metrics = step(state, resident, parallel.put_batch(feed.batch_at(i), mesh), key)
            assert np.isfinite(metrics["loss"])
            states.append(jax.device_get(state))
        return states

    return make


def test_the_moving_encoder_is_an_exponential_average_of_the_trained_one(steps):
    states = steps(1)
    for before, after in zip(states, states[1:], strict=False):
        expected = jax.tree.map(
            lambda slow, fast: DECAY * slow + (1 - DECAY) * fast,
            before.model_state["target"]["params"],
            {name: before.params[name] for name in ("encoder", "head")},
        )
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
            after.model_state["target"]["params"],
            expected,
        )


def test_the_queue_takes_a_batch_of_unit_keys_a_step_and_wraps(steps):
    states = steps(1)
    cursors = [int(state.model_state["queue"].cursor) for state in states]
    assert cursors == [0, 8, 16, 4]
    first, second, third = (state.model_state["queue"].keys_KD for state in states[:3])
    np.testing.assert_array_equal(second[8:], first[8:])  # older keys stay
    np.testing.assert_array_equal(third[:8], second[:8])
    assert not np.allclose(second[:8], first[:8])
    np.testing.assert_allclose(np.linalg.norm(third, axis=-1), 1.0, rtol=1e-5)


def test_eight_devices_take_the_steps_of_one(steps):
    one, eight = steps(1)[-1], steps(8)[-1]
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)  # noqa: E731
    jax.tree.map(close, one.params, eight.params)
    jax.tree.map(close, one.model_state, eight.model_state)


def test_what_is_embedded_is_the_trained_encoder(feed):
    method = objective()
    batch = feed.assemble(feed.resident, feed.batch_at(0))
    params, state = jax.jit(method.init)(jax.random.key(0), batch)
    far = {**state, "target": jax.tree.map(lambda x: x + 1.0, state["target"])}
    same, moved = (jax.jit(method.embed["image"])(params, s, batch) for s in (state, far))
    np.testing.assert_array_equal(same["features"], moved["features"])
    assert same["embedding"].shape == (BATCH, 4)
    assert same["features"].dtype == jnp.float32


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"momentum": 1.0}, "momentum is 1.0"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"queue_size": 0}, "queue_size is 0"),
    ],
)
def test_numbers_out_of_range_are_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        objective(**settings)
