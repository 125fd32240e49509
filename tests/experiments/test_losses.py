"""Every loss of the library trains from a config; an option of another loss is refused."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from contrastive_jax import losses, parallel, training
from contrastive_jax.errors import ConfigError
from contrastive_jax.parallel import Mesh
from experiments.ablation import grid
from experiments.run import build, command_line
from experiments.run import losses as by_name
from experiments.run.losses import KINDS, pair_loss
from experiments.run.sections import complete, set_values
from experiments.scoring import kinds
from experiments.simclr import EXPERIMENT

STEPS = 50
TINY = {
    "data": {"source": "digits", "batch_size": 16},
    "augment": {"size": 8, "jitter_probability": 0.0, "grayscale_probability": 0.0},
    "encoder": {"depth": 10, "width": 0.0625, "stages": 1, "stem": "stride2"},
    "head": {"kind": "linear", "output_dim": 10},
    "optimizer": {"name": "sgd", "learning_rate": 0.001, "momentum": 0.0},
    "train": {"steps": STEPS, "log_every": 1},
}


@functools.cache
def digits():
    """The data of every run here."""
    return kinds.IMAGES.load(complete(ConfigDict(TINY), EXPERIMENT.all_sections()))


def tiny(**changes) -> ConfigDict:
    """The smallest config on digits, {"section.key": value} changed."""
    config = complete(ConfigDict(TINY), EXPERIMENT.all_sections())
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    return set_values(config, EXPERIMENT.all_sections(), changes, "test")


def rows(config: ConfigDict, mesh: Mesh, monkeypatch, steps: int = STEPS) -> list[dict]:
    """Train as the command does; the metrics of every step."""
    monkeypatch.setattr(build, "make_mesh", lambda: mesh)
    run = build.build(EXPERIMENT, config, load=lambda config: digits())
    found = []
    training.run(
        run.objective,
        run.optimizer,
        run.feed,
        run.fresh_state(),
        plan=run.plan._replace(steps=steps),
        mesh=mesh,
        write=lambda step, row: found.append(row),
    )
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_trains_from_a_config_and_refuses_what_it_does_not_take(kind, monkeypatch):
    found = rows(tiny(loss__kind=kind), parallel.make_mesh(jax.devices()[:1]), monkeypatch)
    assert len(found) == STEPS
    assert all(np.isfinite(list(row.values())).all() for row in found)
    assert found[0]["grad_norm"] > 0
    with pytest.raises(ConfigError, match="'tempratur' is no key of 'loss'"):
        tiny(loss__kind=kind, loss__tempratur=0.5)
