"""Each image method: its loss and gradient equal a slow oracle, on any number of devices."""

import functools
import importlib
import inspect
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from contrastive_jax import parallel
from contrastive_jax.encoders import heads, vit
from contrastive_jax.training import optim
from tests.devices import SEVERAL
from tests.objectives import method_oracles as oracles

BATCH = 8
METHODS = tuple(oracles.SETTINGS)


class Encoder(nn.Module):
    """Mean color to features; takes views of any size."""

    @nn.compact
    def __call__(self, x, *, train):
        return jnp.tanh(nn.Dense(5)(x.mean(axis=(1, 2))))


class NoisyViews(NamedTuple):
    """Images and noise, in two sizes."""

    def train(self, key, image, index):
        return self._views(key, image, 2)

    def small(self, key, image, index):
        return self._views(jax.random.fold_in(key, 9), image[:, :2, :2], 1)

    def evaluate(self, image):
        return image.astype(jnp.float32) / 255

    def _views(self, key, image, n):
        noise = jax.random.uniform(key, (len(image), n, *image.shape[1:]), jnp.float32)
        return self.evaluate(image)[:, None] + noise


def make(method, encoder=None, **changes):
    module = importlib.import_module(f"contrastive_jax.objectives.{method}")
    settings = {**oracles.SETTINGS[method], **changes}
    takes = inspect.signature(module.make).parameters
    if "predictor" in takes:
        settings["predictor"] = heads.make(kind="linear", output_dim=4)
    if "steps" in takes:
        settings["steps"] = oracles.STEPS
    head = heads.make(hidden_dim=6, output_dim=4)
    return module.make(encoder or Encoder(), head, views=NoisyViews(), n_classes=0, **settings)


@functools.cache
def case(method):
    """An objective, parameters, a state in which nothing is as at the start, and a batch."""
    objective = make(method)
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (BATCH, 4, 4, 3), np.uint8)
    batch = {"image": image, "index": np.arange(BATCH, dtype=np.int32)}
    params, state = jax.jit(objective.init)(jax.random.key(0), batch)
    other = lambda x: np.asarray(x) + rng.normal(0, 0.2, x.shape).astype(np.float32)  # noqa: E731
    for name in ("target", "center"):
        if name in state:
            state[name] = jax.tree.map(other, state[name])
    return objective, jax.device_get(params), jax.device_get(state), batch


@functools.cache
def step(method, devices):
    """Loss, output and gradient on so many devices."""
    objective, params, state, batch = case(method)
    mesh = parallel.make_mesh(jax.devices()[:devices])
    params, state, number, key = parallel.put_replicated(
        (params, state, np.int32(oracles.STEP), jax.random.key(3)), mesh
    )
    one = jax.jit(jax.value_and_grad(objective.loss, has_aux=True))
    (loss, output), gradient = one(params, state, parallel.put_batch(batch, mesh), key, number)
    return float(loss), jax.device_get(output), jax.device_get(gradient)


@pytest.mark.parametrize("method", METHODS)
def test_loss_and_gradient_equal_the_oracle(method):
    _, params, state, batch = case(method)
    views, key = NoisyViews(), jax.random.key(3)
    image, index = jnp.asarray(batch["image"]), batch["index"]
    double = lambda tree: jax.tree.map(lambda x: np.asarray(x, np.float64), tree)  # noqa: E731
    x = double({name: getattr(views, f)(key, image, index) for name, f in VIEWS.items()})
    flat, still, state = ravel_pytree(params)[0], double(params), double(state)
    leaves, form = jax.tree.flatten(params)
    ends = np.cumsum([leaf.size for leaf in leaves])[:-1]

    def oracle(vector):
        parts = zip(np.split(vector, ends), leaves, strict=True)
        p = jax.tree.unflatten(form, [part.reshape(leaf.shape) for part, leaf in parts])
        return getattr(oracles, method)(p, still, state, x, key)

    loss, output, gradient = step(method, 1)
    point = np.asarray(flat, np.float64)
    np.testing.assert_allclose(loss, oracle(point), rtol=1e-4)
    assert output.metrics["loss"] == np.float32(loss)
    direction = np.random.default_rng(2).normal(size=(12, len(point)))
    slope = [(oracle(point + 1e-6 * d) - oracle(point - 1e-6 * d)) / 2e-6 for d in direction]
    scale = np.abs(slope).max()
    assert scale > 1e-3
    actual = direction @ np.asarray(ravel_pytree(gradient)[0], np.float64)
    np.testing.assert_allclose(actual, slope, rtol=1e-3, atol=1e-4 * scale)


VIEWS = {"large": "train", "small": "small"}


@pytest.mark.parametrize("devices", SEVERAL)
@pytest.mark.parametrize("method", METHODS)
def test_gradient_and_state_are_those_of_one_device(method, devices):
    def close(a, b):  # float32: batch norm and correlations of eight rows magnify rounding
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=5e-4 * np.abs(b).max() + 1e-6)

    jax.tree.map(close, step(method, devices), step(method, 1))


@pytest.mark.parametrize("method", METHODS)
def test_a_step_keeps_the_form_of_the_state_and_says_what_collapses(method):
    _, _, state, _ = case(method)
    _, output, _ = step(method, 1)
    form = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)  # noqa: E731
    assert form(output.model_state) == form(state)
    assert {"embedding_std", "effective_rank", "alignment"} <= set(output.metrics)


REFUSED = [
    ("moco_v3", "temperature", 0.0),
    ("moco_v3", "momentum", 1.5),
    ("byol", "momentum", 1.5),
    ("barlow", "off_diagonal", -1.0),
    ("barlow", "scale", 0.0),
    ("vicreg", "variance", -1.0),
    ("nnclr", "temperature", 0.0),
    ("nnclr", "queue_size", 0),
    ("lejepa", "weight", 1.5),
    ("lejepa", "n_directions", 0),
    ("swav", "epsilon", 0.0),
    ("swav", "n_prototypes", 0),
    ("swav", "queue_size", -1),
    ("dino", "teacher_temperature", 0.0),
    ("dino", "center_momentum", 1.5),
]


@pytest.mark.parametrize(("method", "key", "value"), REFUSED)
def test_numbers_out_of_range_are_refused(method, key, value):
    name = key.replace("_momentum", " momentum")
    with pytest.raises(ValueError, match=rf"{method} {name} is {value}"):
        make(method, **{key: value})


def test_a_frozen_prototype_has_no_gradient_and_the_rest_has():
    objective = make("dino", frozen_steps=oracles.STEP + 1)
    _, params, state, batch = case("dino")
    gradient, _ = jax.jit(jax.grad(objective.loss, has_aux=True))(
        params, state, batch, jax.random.key(3), jnp.int32(oracles.STEP)
    )
    assert not np.any(gradient["prototypes"]["kernel"])
    assert np.any(gradient["encoder"]["Dense_0"]["kernel"])


def test_moco_v3_leaves_the_patches_of_a_vit_as_they_are_and_trains_the_rest():
    encoder = vit.make(patch_size=2, dim=8, layers=1, heads=2, freeze_patches=True)
    objective, batch = make("moco_v3", encoder), case("moco_v3")[-1]
    sizes = {"batch_size": BATCH, "steps": oracles.STEPS, "steps_per_epoch": 1}
    optimizer, _ = optim.make("adamw", 0.1, weight_decay=0.1, **sizes)

    @jax.jit
    def step(number, params, state, moments):
        gradient, output = jax.grad(objective.loss, has_aux=True)(
            params, state, batch, jax.random.key(3), number
        )
        updates, moments = optimizer.update(gradient, moments, params)
        return optax.apply_updates(params, updates), output.model_state, moments

    first, state = jax.jit(objective.init)(jax.random.key(0), batch)
    params, moments = first, optimizer.init(first)
    for number in range(2):
        params, state, moments = step(jnp.int32(number), params, state, moments)
    target = state["target"]["params"]
    same = functools.partial(np.testing.assert_allclose, rtol=1e-6)
    for trained in (params, target):
        patches = (tree["encoder"]["frozen_patch_projection"] for tree in (trained, first))
        jax.tree.map(same, *patches)
        moved = jax.tree.map(lambda a, b: bool((a != b).any()), trained["head"], first["head"])
        assert all(jax.tree.leaves(moved))
