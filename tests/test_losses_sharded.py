"""The core losses on many devices: the value and every gradient equal those of one device."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from contrastive_jax import losses

B, V, D, K = 8, 2, 4, 2
LABELS = jnp.array([0, 1, 0, 2, 1, 0, 2, 2], jnp.int32)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


Z, QUERY, KEY, NEGATIVES = normal(0, B, V, D), normal(1, B, D), normal(2, B, D), normal(3, B, K, D)

# name: (loss(embeddings, labels, temperature, axis_name), embeddings)
LOSSES = {
    "nt_xent": (lambda x, y, t, **kw: losses.nt_xent(*x, t, **kw), (Z,)),
    "info_nce": (
        lambda x, y, t, **kw: losses.info_nce(*x[:2], t, negatives_BKD=x[2], ids_B=y, **kw),
        (QUERY, KEY, NEGATIVES),
    ),
    "symmetric_info_nce": (
        lambda x, y, t, **kw: losses.symmetric_info_nce(*x, t, ids_B=y, **kw),
        (QUERY, KEY),
    ),
    "sup_con": (lambda x, y, t, **kw: losses.sup_con(x[0], y, t, **kw), (Z,)),
    "sup_con inside": (
        lambda x, y, t, **kw: losses.sup_con(x[0], y, t, positives="inside", **kw),
        (Z,),
    ),
}
each_loss = pytest.mark.parametrize("name", LOSSES)


def value_and_grads(per_anchor, embeddings):
    """Of a loss weighted unevenly over anchors, so that no gradient hides behind a mean."""

    def total(embeddings, temperature):
        loss = per_anchor(embeddings, LABELS, temperature)
        weights = jnp.cos(jnp.arange(loss.size, dtype=jnp.float32)).reshape(loss.shape)
        return jnp.sum(weights * loss), loss

    fn = jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))
    return fn(embeddings, jnp.float32(0.3))


@functools.cache
def on_one_device(name):
    loss, embeddings = LOSSES[name]
    return value_and_grads(loss, embeddings)


def sharded(loss, n, check_vma=True):
    mesh = jax.make_mesh((n,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:n])
    return jax.shard_map(
        functools.partial(loss, axis_name="data"),
        mesh=mesh,
        in_specs=(P("data"), P("data"), P()),
        out_specs=P("data"),
        check_vma=check_vma,
    )


def assert_trees_close(got, expected):
    jax.tree.map(lambda g, e: np.testing.assert_allclose(g, e, rtol=1e-5, atol=2e-6), got, expected)


@each_loss
@pytest.mark.parametrize("n", [1, 2, 4, 8])
def test_sharding_changes_neither_the_value_nor_any_gradient(name, n):
    loss, embeddings = LOSSES[name]
    assert_trees_close(value_and_grads(sharded(loss, n), embeddings), on_one_device(name))


@each_loss
def test_the_same_holds_without_replication_checks(name):
    loss, embeddings = LOSSES[name]
    got = value_and_grads(sharded(loss, 4, check_vma=False), embeddings)
    assert_trees_close(got, on_one_device(name))


@each_loss
def test_the_same_holds_under_pmap(name):
    loss, embeddings = LOSSES[name]
    n = 4
    mapped = jax.pmap(
        functools.partial(loss, axis_name="data"), axis_name="data", in_axes=(0, 0, None)
    )

    def per_anchor(embeddings, labels, temperature):
        split = jax.tree.map(lambda x: x.reshape(n, -1, *x.shape[1:]), (embeddings, labels))
        out = mapped(*split, temperature)
        return out.reshape(-1, *out.shape[2:])

    assert_trees_close(value_and_grads(per_anchor, embeddings), on_one_device(name))


def _no_offset(x, axis_name):
    return jnp.arange(x, dtype=jnp.int32)


def _gather_without_gradient(tree, axis_name):
    return lax.stop_gradient(
        jax.tree.map(lambda x: lax.all_gather(x, axis_name, axis=0, tiled=True), tree)
    )


@pytest.mark.parametrize(
    ("module", "attribute", "wrong"),
    [
        ("softmax", "global_index", _no_offset),
        ("pairs", "gather", _gather_without_gradient),
    ],
)
def test_a_wrong_gather_is_noticed(module, attribute, wrong, monkeypatch):
    expected = on_one_device("nt_xent")
    monkeypatch.setattr(f"contrastive_jax.losses.{module}.{attribute}", wrong)
    loss, embeddings = LOSSES["nt_xent"]
    got = value_and_grads(sharded(loss, 4), embeddings)
    with pytest.raises(AssertionError):
        assert_trees_close(got, expected)
