"""Every loss of the library trains from a config; an option of another loss is refused."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from contrastive_jax import losses, parallel, training
from contrastive_jax.errors import ConfigError
from contrastive_jax.parallel import Mesh
from contrastive_jax.training import compiler_options
from experiments import simclr
from experiments.run import build, command_line
from experiments.run import losses as by_name
from experiments.run.losses import KINDS, pair_loss
from experiments.run.sections import complete, set_values, takes
from experiments.scoring import images, kinds

STEPS = 50
SECTIONS = simclr.EXPERIMENT.all_sections()
TINY = {
    "data": {"source": "digits", "batch_size": 16},
    "augment": {"size": 8},
    "head": {"kind": "none"},
    "optimizer": {"name": "sgd", "learning_rate": 0.001, "momentum": 0.0},
    "train": {"steps": STEPS, "log_every": 1},
}
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


class Pixels(nn.Module):
    """A linear encoder, and batch norm after it if asked for: a kind compiles in a second."""

    batch_norm: bool = False

    @nn.compact
    def __call__(self, x, *, train):
        h = nn.Dense(10)(x.reshape(len(x), -1))
        return nn.BatchNorm(use_running_average=not train)(h) if self.batch_norm else h


class Noisy:
    """Views that differ by noise, a function of the example."""

    crops = None  # nothing is cut on the host

    @staticmethod
    def train(key, image_BHWC, index_B):
        x = Noisy.evaluate(image_BHWC)
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index_B)
        noise = jax.vmap(lambda k: jax.random.normal(k, (2, *x.shape[1:])))(keys)
        return x[:, None] + 0.2 * noise

    @staticmethod
    def evaluate(image_BHWC):
        return image_BHWC.astype(jnp.float32) / 255.0


@pytest.fixture
def quickly(monkeypatch):
    """Run the rest of the path, from a config to its rows, with little to compile."""
    monkeypatch.setattr(simclr.encoders, "make", lambda **options: Pixels())
    monkeypatch.setattr(images, "views", lambda config: Noisy)
    monkeypatch.setattr(compiler_options, "for_steps", lambda mesh: QUICK)
    monkeypatch.setattr(compiler_options, "for_single_use", lambda mesh: QUICK)
    return monkeypatch


@functools.cache
def digits():
    """The data of every run here."""
    return kinds.IMAGES.load(tiny())


def tiny(**changes) -> ConfigDict:
    """The smallest config on digits, with changes as section__key=value."""
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    return set_values(complete(ConfigDict(TINY), SECTIONS), SECTIONS, changes)


def one_device() -> Mesh:
    return parallel.make_mesh(jax.devices()[:1])


def rows(quickly, mesh: Mesh, **changes) -> dict[str, np.ndarray]:
    """Train as the command does; the metrics of every step."""
    quickly.setattr(build, "make_mesh", lambda config, devices=None: mesh)
    run = build.build(simclr.EXPERIMENT, tiny(**changes), load=lambda config: digits())
    found = []
    training.run(
        run.objective,
        run.optimizer,
        run.feed,
        run.fresh_state(),
        plan=run.plan,
        mesh=mesh,
        write=lambda step, row: found.append(row),
    )
    return {name: np.array([row[name] for row in found]) for name in found[0]}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_trains_from_a_config_and_refuses_what_it_does_not_take(kind, quickly):
    found = rows(quickly, one_device(), loss__kind=kind)
    assert len(found["loss"]) == STEPS
    assert all(np.isfinite(values).all() for values in found.values())
    assert found["grad_norm"][0] > 0
    tempered = by_name.learnable(by_name.options_of(kind) | takes(KINDS[kind][0]))
    assert ("contrastive_entropy" in found) == tempered
    with pytest.raises(ConfigError, match="'tempratur' is no key of 'loss'"):
        tiny(loss__kind=kind, loss__tempratur=0.5)


def test_at_least_32_losses_of_the_library_are_kinds():
    reached = {loss for loss, _ in KINDS.values()}
    assert len({name for name in losses.__all__ if getattr(losses, name) in reached}) >= 32


FAST = {"optimizer__learning_rate": 0.05}


def test_chunks_and_tiles_reproduce_the_plain_run_on_any_number_of_devices(quickly):
    plain = rows(quickly, one_device(), **FAST)["loss"]
    assert plain[-1] < plain[0] - 0.1
    tiled = rows(quickly, one_device(), **FAST, loss__block_size=8)["loss"]
    np.testing.assert_allclose(tiled, plain, atol=1e-4)
    for devices in (1, 2, 8):
        mesh = parallel.make_mesh(jax.devices()[:devices])
        chunked = rows(quickly, mesh, **FAST, train__chunk_size=8)["loss"]
        np.testing.assert_allclose(chunked, plain, atol=1e-4)


def test_batch_statistics_are_those_of_a_chunk(quickly):
    quickly.setattr(simclr.encoders, "make", lambda **options: Pixels(batch_norm=True))
    meshes = [parallel.make_mesh(jax.devices()[:n]) for n in (1, 8)]
    plain = rows(quickly, meshes[0], **FAST)["loss"]
    chunked = [rows(quickly, mesh, **FAST, train__chunk_size=8)["loss"] for mesh in meshes]
    assert np.abs(chunked[0] - plain).max() > 1e-3
    np.testing.assert_allclose(chunked[1], chunked[0], atol=1e-4)


def test_a_temperature_is_learned_within_its_limit_and_is_in_every_row(quickly):
    learned = {"loss__temperature": "learned", "loss__temperature_start": 0.5}
    learned |= {"loss__temperature_min": 0.2, "optimizer__loss_rate": 20.0}
    found = rows(quickly, one_device(), **FAST, **learned)["temperature"]
    assert abs(found[0] - 0.5) < 1e-6
    assert found[5] < 0.49
    assert abs(found.min() - 0.2) < 1e-6


def test_a_temperature_is_a_number_or_a_word_on_the_command_line():
    for text, value in (("learned", "learned"), ("0.3", 0.3)):
        found = command_line.override(tiny(), {"loss.temperature": text}, SECTIONS)
        assert found.loss.temperature == value
        found = command_line.override(found, {"loss.temperature": "0.4"}, SECTIONS)
        assert found.loss.temperature == 0.4


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"loss__temperature": "warm"}, "'warm'; give a positive number or 'learned'"),
        ({"loss__temperature": 0.0}, "temperature is 0.0; give a positive"),
        ({"loss__temperature": "learned", "loss__temperature_start": 0.001}, "temperature_start"),
        ({"loss__kind": "triplet", "loss__mining": "easy"}, "loss mining is 'easy'; give one of"),
        ({"loss__matryoshka": (4, 11)}, "expected sizes from 1 to 10"),
        ({"train__chunk_size": 3}, "chunk_size is 3 and data.batch_size 16"),
        ({"train__chunk_size": 4}, "chunk_size is 4, which 8 devices do not divide"),
    ],
)
def test_values_out_of_range_are_refused_before_the_first_step(changes, says, quickly):
    with pytest.raises(ConfigError, match=says):
        build.build(simclr.EXPERIMENT, tiny(**changes), load=lambda config: digits())


@pytest.mark.parametrize("kind", ["circle", "cosent", "soft_info_nce", "sup_con"])
def test_a_loss_that_reads_labels_is_refused_without_them(kind, quickly):
    data = digits()._replace(class_names=())
    with pytest.raises(ConfigError, match="reads labels, and the data has none"):
        build.build(simclr.EXPERIMENT, tiny(loss__kind=kind), load=lambda config: data)


LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 0], np.int32)
OPTIONS = {
    "nt_xent": {"temperature": 0.3, "normalize": False},
    "nt_logistic": {"temperature": 0.3, "semi_hard": True},
    "nt_margin": {"margin": 0.8, "semi_hard": True},
    "decoupled": {"temperature": 0.3, "sigma": 0.5},
    "hard_negatives": {"temperature": 0.3, "tau_plus": 0.1, "beta": 1.0},
    "sup_con": {"temperature": 0.3, "positives": "inside"},
}


SLOW = ("decoupled", "hard_negatives")


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=pytest.mark.slow if k in SLOW else ()) for k in OPTIONS]
)
def test_a_kind_with_its_options_is_the_loss_of_the_library_on_all_devices(kind, key):
    z_BVD = jax.random.normal(key, (8, 2, 4))
    loss = pair_loss(kind, parallel.make_mesh(), **OPTIONS[kind])
    labels = (LABELS,) if loss.reads_labels else ()
    expected = jax.jit(functools.partial(KINDS[kind][0], **OPTIONS[kind]))(z_BVD, *labels)
    found = jax.jit(loss.function)(z_BVD, *labels)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_cross_entropy_reads_logits_and_leaves_unlabeled_rows_out(key):
    logits_BVK = jax.random.normal(key, (8, 2, 3))
    label_B = np.array([0, 1, 2, -1, 1, 2, 0, -1], np.int32)
    loss = jax.jit(pair_loss("cross_entropy", parallel.make_mesh()).function)(logits_BVK, label_B)
    for view in (0, 1):
        expected = optax.losses.softmax_cross_entropy_with_integer_labels(
            logits_BVK[:, view], np.maximum(label_B, 0)
        )
        np.testing.assert_allclose(loss[:, view], jnp.where(label_B >= 0, expected, 0), rtol=1e-5)


def test_without_normalization_the_logits_are_inner_products(key):
    z_BVD = 3.0 * jax.random.normal(key, (5, 2, 4))
    z_ND = z_BVD.reshape(10, 4)
    s = np.array(z_ND @ z_ND.T / 2.0)
    np.fill_diagonal(s, -np.inf)
    other = np.arange(10) ^ 1
    expected = jax.nn.logsumexp(s, axis=1) - s[np.arange(10), other]
    nt_xent = functools.partial(losses.nt_xent, normalize=False)
    loss = jax.jit(nt_xent)(z_BVD, 2.0)
    np.testing.assert_allclose(loss.reshape(-1), expected, rtol=1e-4, atol=1e-5)
    tiled = jax.jit(functools.partial(nt_xent, block_size=4))(z_BVD, 2.0)
    np.testing.assert_allclose(tiled, loss, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"kind": "nt_xnet"}, "loss.kind is 'nt_xnet'; did you mean 'nt_xent'"),
        ({"kind": "nt_xent", "margin": 0.5}, "'margin' is no key of 'loss'"),
        ({"kind": "nt_margin", "temperature": 0.5}, "'temperature' is no key of 'loss'"),
        ({"kind": "sup_con", "semi_hard": False}, "'semi_hard' is no key"),
    ],
)
def test_options_are_those_of_the_loss_itself(settings, says):
    with pytest.raises(ConfigError, match=says):
        complete(ConfigDict({"loss": settings}), {"loss": by_name.SECTION})


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(ValueError, match="give a positive"):
        pair_loss("nt_xent", parallel.make_mesh(), temperature=0.0)
