"""The losses of a config are those of the library, and an option of another loss is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from contrastive_jax import losses, parallel
from contrastive_jax.errors import ConfigError
from experiments.run import losses as by_name
from experiments.run.losses import KINDS, pair_loss
from experiments.run.sections import complete

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
    expected = jax.jit(functools.partial(KINDS[kind], **OPTIONS[kind]))(z_BVD, *labels)
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
