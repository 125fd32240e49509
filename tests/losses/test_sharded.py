"""The core losses on many devices, dense and around the ring: the value and every gradient equal
those of one device."""

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

# name: (loss(embeddings, labels, temperature, axis_name, block_size), embeddings)
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
EMBEDDINGS = {name: embeddings for name, (_, embeddings) in LOSSES.items()}
QUICK_COMPILE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def value_and_grads(forms):
    """Each loss, and its gradients to its embeddings and to its temperature.

    Anchors are weighted unevenly, so that no gradient hides behind a mean.
    """

    def total(embeddings, temperatures):
        out = {name: f(embeddings[name], LABELS, temperatures[name]) for name, f in forms.items()}
        weighted = [jnp.cos(jnp.arange(x.size)).reshape(x.shape) * x for x in out.values()]
        return sum(x.sum() for x in weighted), out

    fn = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)
    embeddings = {name: EMBEDDINGS[name] for name in forms}
    temperatures = {name: jnp.float32(0.3) for name in forms}
    (_, value), grads = jax.jit(fn, compiler_options=QUICK_COMPILE)(embeddings, temperatures)
    return value, *grads


def formed(names=tuple(LOSSES), **options):
    return {name: functools.partial(LOSSES[name][0], **options) for name in names}


@functools.cache
def on_one_device():
    return value_and_grads(formed())


def sharded(loss, n, check_vma=True):
    mesh = jax.make_mesh((n,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:n])
    return jax.shard_map(
        functools.partial(loss, axis_name="data"),
        mesh=mesh,
        in_specs=(P("data"), P("data"), P()),
        out_specs=P("data"),
        check_vma=check_vma,
    )


def pmapped(loss, n):
    mapped = jax.pmap(
        functools.partial(loss, axis_name="data"),
        axis_name="data",
        in_axes=(0, 0, None),
        devices=jax.devices()[:n],
    )

    def per_anchor(embeddings, labels, temperature):
        split = jax.tree.map(lambda x: x.reshape(n, -1, *x.shape[1:]), (embeddings, labels))
        out = mapped(*split, temperature)
        return out.reshape(-1, *out.shape[2:])

    return per_anchor


def assert_as_on_one_device(got, rtol=1e-5):
    expected = tuple({name: part[name] for name in got[0]} for part in on_one_device())
    jax.tree.map(lambda g, e: np.testing.assert_allclose(g, e, rtol=rtol, atol=2e-6), got, expected)


@pytest.mark.parametrize("n", [1, 2, 4, 8])
@pytest.mark.parametrize("block_size", [None, 3], ids=["dense", "ring"])
def test_sharding_changes_neither_the_values_nor_any_gradient(block_size, n):
    names = tuple(LOSSES) if n == 4 or block_size is None else tuple(LOSSES)[:3]
    forms = formed(names, block_size=block_size)
    got = value_and_grads({name: sharded(loss, n) for name, loss in forms.items()})
    assert_as_on_one_device(got)


@pytest.mark.parametrize("block_size", [None, 3], ids=["dense", "ring"])
def test_the_same_holds_without_replication_checks(block_size):
    forms = formed(("nt_xent", "info_nce"), block_size=block_size)
    got = value_and_grads({name: sharded(f, 2, check_vma=False) for name, f in forms.items()})
    assert_as_on_one_device(got)


@pytest.mark.parametrize("block_size", [None, 3], ids=["dense", "ring"])
def test_the_same_holds_under_pmap(block_size):
    forms = formed(("nt_xent", "info_nce"), block_size=block_size)
    got = value_and_grads({name: pmapped(loss, 2) for name, loss in forms.items()})
    assert_as_on_one_device(got)


def _no_offset(n, axis_name):
    return jnp.arange(n, dtype=jnp.int32)


def _gather_without_gradient(tree, axis_name):
    return lax.stop_gradient(
        jax.tree.map(lambda x: lax.all_gather(x, axis_name, axis=0, tiled=True), tree)
    )


@pytest.mark.parametrize(
    ("where", "wrong"),
    [("similarity.global_index", _no_offset), ("reduce.gather", _gather_without_gradient)],
)
def test_a_wrong_gather_is_noticed(where, wrong, monkeypatch):
    monkeypatch.setattr(f"contrastive_jax.losses._engine.{where}", wrong)
    got = value_and_grads({"nt_xent": sharded(formed()["nt_xent"], 4)})
    with pytest.raises(AssertionError):
        assert_as_on_one_device(got)
