"""The losses of a config are those of the library, and an option of another loss is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from contrastive_jax import losses, parallel
from experiments.run.losses import KINDS, pair_loss

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
    sharded = jax.jit(pair_loss(kind, **OPTIONS[kind], mesh=parallel.make_mesh()))
    labels = (LABELS,) if KINDS[kind].labelled else ()
    expected = jax.jit(functools.partial(KINDS[kind].loss, **OPTIONS[kind]))(z_BVD, *labels)
    np.testing.assert_allclose(sharded(z_BVD, LABELS), expected, rtol=1e-4, atol=1e-5)


def test_cross_entropy_reads_logits_and_leaves_unlabelled_rows_out(key):
    logits_BVK = jax.random.normal(key, (8, 2, 3))
    label_B = np.array([0, 1, 2, -1, 1, 2, 0, -1], np.int32)
    loss = jax.jit(pair_loss("cross_entropy", mesh=parallel.make_mesh()))(logits_BVK, label_B)
    for view in (0, 1):
        expected = optax.losses.softmax_cross_entropy_with_integer_labels(
            logits_BVK[:, view], np.maximum(label_B, 0)
        )
        np.testing.assert_allclose(loss[:, view], jnp.where(label_B >= 0, expected, 0), rtol=1e-5)


def test_without_normalisation_the_logits_are_inner_products(key):
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
        ({"kind": "nt_xnet"}, "give one of"),
        ({"temperature": 0.0}, "give a positive"),
        ({"kind": "nt_xent", "margin": 0.5}, "margin is 0.5, which 'nt_xent' does not take"),
        ({"kind": "sup_con", "semi_hard": False}, "semi_hard is False"),
    ],
)
def test_a_value_that_nothing_reads_is_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        pair_loss(**settings, mesh=parallel.make_mesh())
