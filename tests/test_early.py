"""Other settings for the first part of a training: whose turn it is, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from configs import digits
from contrastive_jax import augment, data, parallel, together, train
from contrastive_jax.errors import ConfigError
from contrastive_jax.loop import Record
from contrastive_jax.types import Early, LossOutput, Objective
from experiments import command_line, early, moco, simclr

EARLY_STEPS, STEPS = 2, 5
IMAGES = np.zeros((24, 8, 8, 1), np.uint8)
EXAMPLES = data.Examples(IMAGES, np.zeros(24, np.int32))
RATE = 0.1


def in_turn() -> Objective:
    """w^2 at first and then (w - 1)^2; the metric says which. The seed chooses where w begins."""

    def towards(goal):
        def loss(w, model_state, batch, key):
            return (w - goal) ** 2, LossOutput(model_state, {"goal": jnp.float32(goal)})

        return loss

    init = lambda key, batch: (jax.random.normal(key), ())  # noqa: E731
    embed = lambda w, model_state, batch: {}  # noqa: E731
    return Objective(init, towards(1.0), embed, Early(towards(0.0), EARLY_STEPS))


def closed_form(w: float, start: int = 0) -> float:
    for step in range(start, STEPS):
        goal = 0.0 if step < EARLY_STEPS else 1.0
        w -= RATE * 2 * (w - goal)
    return w


class Training:
    def __init__(self, devices: int = 1):
        self.mesh = parallel.make_mesh(jax.devices()[:devices])
        self.feeds = [data.feed(EXAMPLES, 8, seed) for seed in (0, 1)]
        self.goals: list[list[float]] = [[], []]
        self.init = train.make_init(in_turn(), optax.sgd(RATE), self.feeds[0], self.mesh)

    def plan(self, seed: int) -> train.Plan:
        return train.Plan(STEPS, seed, log_every=1)

    def alone(self, state, stop=lambda: False):
        settings = {"plan": self.plan(0), "mesh": self.mesh, "stop": stop}
        write = lambda step, row: self.goals[0].append(row["goal"])  # noqa: E731
        return train.run(
            in_turn(), optax.sgd(RATE), self.feeds[0], state, write=write, **settings
        ).state

    def at_once(self, states):
        records = [Record(lambda step, row, i=i: self.goals[i].append(row["goal"])) for i in (0, 1)]
        settings = {"plans": [self.plan(0), self.plan(1)], "mesh": self.mesh, "records": records}
        return together.run(in_turn(), optax.sgd(RATE), self.feeds, states, **settings)


@pytest.mark.parametrize("devices", [1, 2])
def test_each_loss_trains_in_its_turn(devices):
    training = Training(devices)
    state = training.init(0)
    begin = float(state.params)
    np.testing.assert_allclose(training.alone(state).params, closed_form(begin), rtol=1e-5)
    assert training.goals[0] == [0.0, 0.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("stopped_after", [1, 2, 3])
def test_a_resumed_training_is_in_the_same_part(stopped_after):
    training = Training()
    state = training.init(0)
    begin = float(state.params)
    half = training.alone(state, stop=lambda: len(training.goals[0]) >= stopped_after - 1)
    assert int(half.step) == stopped_after
    np.testing.assert_allclose(training.alone(half).params, closed_form(begin), rtol=1e-5)
    assert training.goals[0] == [0.0, 0.0, 1.0, 1.0, 1.0]


def test_several_seeds_at_once_take_their_turns():
    training = Training()
    states = [training.init(seed) for seed in (0, 1)]
    begin = [float(state.params) for state in states]
    ends = [float(each.state.params) for each in training.at_once(states)]
    np.testing.assert_allclose(ends, [closed_form(w) for w in begin], rtol=1e-5)
    assert training.goals == [[0.0, 0.0, 1.0, 1.0, 1.0]] * 2


def test_simclr_with_smaller_views_early_has_the_same_state_and_metrics():
    config = digits.get_config("smoke")
    config.unlock()
    config.early = ConfigDict({"until": 0.5, "size": 8, "temperature": 0.9})
    mesh = parallel.make_mesh(jax.devices()[:1])
    made = early.build(lambda part: simclr.build(part, mesh, 10), config, steps=7)
    assert made.early is not None
    assert made.early.steps == 4
    feed = data.feed(EXAMPLES, 8, 0)
    batch, key = train.batch_spec(feed), jax.random.key(0)
    state = jax.eval_shape(made.init, key, batch)
    one, other = (jax.eval_shape(loss, *state, batch, key) for loss in (made.loss, made.early.loss))
    assert one == other
    views = [simclr.views(part) for part in (config, early.settings(config))]
    shapes = [jax.eval_shape(v.train, key, batch["image"], batch["index"]).shape for v in views]
    assert shapes == [(8, 2, 16, 16, 1), (8, 2, 8, 8, 1)]


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
