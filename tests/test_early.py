"""Other settings for the first part of a training: whose turn it is, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from contrastive_jax import augment, data, parallel, together, train
from contrastive_jax.encoders import heads, resnet
from contrastive_jax.errors import ConfigError
from contrastive_jax.objectives import early as objectives
from contrastive_jax.objectives import simclr as simclr_objective
from contrastive_jax.types import Objective
from experiments import command_line, early, moco, simclr
from experiments.pair_losses import pair_loss
from tests.test_losses_sharded import QUICK_COMPILE

BATCH, STEPS = 8, 2
SETTINGS = {"early": {"size": 6, "temperature": 0.9}, "late": {"size": 8, "temperature": 0.2}}


IMAGES = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), np.uint8)
FEED = data.feed(data.Examples(IMAGES, np.arange(24, dtype=np.int32) % 3), BATCH, 0)
SGD = optax.sgd(1e-2)


def of_settings(mesh, size: int, temperature: float) -> Objective:
    return simclr_objective.make(
        resnet.make(depth=10, width=0.0625, stages=1),
        heads.make(hidden_dim=8, output_dim=4),
        augment.make_views(size, jitter_probability=0.0, grayscale_probability=0.0),
        pair_loss(temperature=temperature, mesh=mesh),
        n_classes=3,
        temperature=temperature,
    )


def make(which: str, mesh) -> Objective:
    """The objective "early", "late", or both "in turn"."""
    if which == "in turn":
        return objectives.make(make("early", mesh), make("late", mesh), steps=STEPS)
    return of_settings(mesh, **SETTINGS[which])


@functools.cache
def step_of(which: str, devices: int):
    made = make(which, parallel.make_mesh(jax.devices()[:devices]))
    return jax.jit(train.make_step(made, SGD, FEED), compiler_options=QUICK_COMPILE)


def trained(which: str, steps, devices=1, state=None):
    """The state and the losses after some steps, from a state or from the beginning."""
    mesh = parallel.make_mesh(jax.devices()[:devices])
    state = state or train.make_init(make("late", mesh), SGD, FEED, mesh)(0)
    resident = parallel.put_replicated(dict(FEED.resident), mesh)
    key = parallel.put_replicated(jax.random.key(1), mesh)
    losses = []
    for i in steps:
        sent = parallel.put_batch(FEED.batch_at(i), mesh)
        state, metrics = step_of(which, devices)(state, resident, sent, key)
        losses.append(float(metrics["loss"]))
    return jax.device_get(state), losses


def assert_close(got, want):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), got, want)


def test_each_objective_trains_in_its_turn():
    got, losses = trained("in turn", range(4))
    between, first = trained("early", range(STEPS))
    want, rest = trained("late", range(STEPS, 4), state=between)
    np.testing.assert_allclose(losses, first + rest, rtol=1e-4)
    assert_close(got, want)
    _, otherwise = trained("late", range(STEPS))
    assert np.abs(np.subtract(otherwise, first)).min() > 0.01  # the two are not alike


def test_devices_do_not_change_it():
    want, losses = trained("in turn", range(3))
    got, on_four = trained("in turn", range(3), devices=4)
    np.testing.assert_allclose(on_four, losses, rtol=1e-4)
    assert_close(got, want)


def test_several_seeds_at_once_take_it():
    mesh = parallel.make_mesh(jax.devices()[:1])
    both = make("in turn", mesh)
    state = train.abstract_state(both, SGD, FEED, mesh)
    stacked = lambda x: jax.ShapeDtypeStruct((2, *x.shape), x.dtype)  # noqa: E731
    arguments = jax.tree.map(stacked, (state, dict(FEED.batch_at(0)), jax.random.key(0)))
    step = together.make_step(both, SGD, FEED)
    after, _ = jax.eval_shape(step, arguments[0], dict(FEED.resident), *arguments[1:])
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, arguments[0])


def config(**changes) -> ConfigDict:
    made = ConfigDict({"augment": {"size": 32, "crop_scale": (0.2, 1.0)}})
    made.loss = ConfigDict({"kind": "nt_xent", "temperature": 0.5})
    return made if not changes else ConfigDict({**made.to_dict(), "early": changes})


def test_the_keys_go_to_their_sections():
    first = early.settings(config(until=0.5, size=24, temperature=0.9, crop_scale=(0.4, 1.0)))
    assert first is not None
    assert "early" not in first
    assert first.augment.to_dict() == {"size": 24, "crop_scale": (0.4, 1.0)}
    assert first.loss.to_dict() == {"kind": "nt_xent", "temperature": 0.9}
    assert early.settings(config()) is None
    assert early.settings(config(until=0.0, size=24)) is None
    of_moco = ConfigDict({"augment": {}, "moco": {"temperature": 0.5}})
    of_moco.early = ConfigDict({"until": 0.5, "temperature": 0.9})
    assert early.settings(of_moco).moco.temperature == 0.9  # type: ignore


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": 24}, "early.until is None"),
        ({"until": 1.0, "size": 24}, "from 0 below 1"),
        ({"until": True, "size": 24}, "early.until is True"),
        ({"until": 0.5}, "early changes nothing"),
        ({"until": 0.5, "size": "small"}, "early.size"),
    ],
)
def test_what_is_no_early_part_is_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        early.settings(config(**changes))


def test_a_key_that_no_section_has_is_refused_with_the_nearest_one():
    for experiment in (simclr.EXPERIMENT, moco.EXPERIMENT):
        sections = {"early": experiment.sections["early"]}
        command_line.check(ConfigDict({}), sections)
        with pytest.raises(ConfigError, match="did you mean 'temperature'"):
            command_line.check(ConfigDict({"early": {"temperture": 1.0}}), sections)


def test_crops_of_a_stream_are_those_of_the_whole_training():
    views = lambda config: augment.make_views(**command_line.as_kwargs(config, "augment"))  # noqa: E731
    early.check_streamed(views, config(until=0.5, temperature=0.9))
    with pytest.raises(ConfigError, match="cut on the host"):
        early.check_streamed(views, config(until=0.5, crop_scale=(0.4, 1.0)))
