"""A sharded loss has the value and the gradient of one device, on any number of devices."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import losses, parallel
from tests.devices import COUNTS

B, V, D = 16, 2, 6
nt_xent = functools.partial(losses.nt_xent, temperature=0.5)


def mean_loss_and_gradient(loss, z_BVD):
    return jax.jit(jax.value_and_grad(lambda z: loss(z).mean()))(z_BVD)


def test_a_gather_without_gradient_is_caught(key):
    """The check above must be able to fail: here the keys of other devices carry no gradient."""

    def broken(z_BVD, *, axis_name=None):
        if axis_name is None:
            return losses.nt_xent(z_BVD)
        z = z_BVD / jnp.linalg.norm(z_BVD, axis=-1, keepdims=True)
        rows = z.reshape(-1, D)
        index = jax.lax.axis_index(axis_name) * len(rows) + jnp.arange(len(rows))
        keys = jax.lax.stop_gradient(jax.lax.all_gather(rows, axis_name, tiled=True))
        logits = rows @ keys.T / 0.5
        itself = index[:, None] == jnp.arange(len(keys))[None, :]
        logits = jnp.where(itself, -jnp.inf, logits)
        positive = jnp.take_along_axis(logits, (index ^ 1)[:, None], axis=1)[:, 0]
        return (jax.nn.logsumexp(logits, axis=1) - positive).reshape(z_BVD.shape[:2])

    z = jax.random.normal(key, (B, V, D))
    sharded = parallel.shard_loss(broken, parallel.make_mesh())
    value, gradient = mean_loss_and_gradient(sharded, z)
    want_value, want_gradient = mean_loss_and_gradient(nt_xent, z)
    np.testing.assert_allclose(value, want_value, rtol=1e-5)
    assert np.abs(gradient - want_gradient).max() > 1e-3


def test_arguments_beyond_n_sharded_are_replicated_and_differentiable(key):
    z = jax.random.normal(key, (B, V, D))
    sharded = parallel.shard_loss(losses.nt_xent, parallel.make_mesh())
    got = jax.jit(jax.grad(lambda t: sharded(z, t).mean()))(jnp.float32(0.5))
    want = jax.jit(jax.grad(lambda t: losses.nt_xent(z, t).mean()))(jnp.float32(0.5))
    np.testing.assert_allclose(got, want, rtol=1e-4)


def test_put_batch_splits_examples_and_put_replicated_does_not():
    mesh = parallel.make_mesh()
    rows = np.arange(16, dtype=np.int32)
    split = parallel.put_batch({"index": rows}, mesh)["index"]
    whole = parallel.put_replicated({"index": rows}, mesh)["index"]
    assert {shard.data.shape for shard in split.addressable_shards} == {(2,)}
    assert {shard.data.shape for shard in whole.addressable_shards} == {(16,)}
    np.testing.assert_array_equal(split, rows)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


VIEWS, X, Y, NEGATIVE = normal(0, B, V, D), normal(1, B, D), normal(2, B, D), normal(3, B, D)
NEGATIVES, GUIDES = normal(4, B, 3, D), normal(5, 2, B, 3)
WEIGHTS = normal(8, B, D)  # of more classes than there are labels
LABELS = np.arange(B, dtype=np.int32) % 3
SCORES = np.linspace(0, 1, B, dtype=np.float32)
TARGETS = np.full((B, B), 1 / B, np.float32)
ARGUMENTS = {  # of each public loss but the wrappers; the first is differentiated
    **dict.fromkeys(("nt_xent", "nt_logistic", "nt_margin"), (VIEWS,)),
    **dict.fromkeys(("decoupled", "debiased_nt_xent"), (VIEWS,)),
    "sup_con": (VIEWS, LABELS),
    **dict.fromkeys(("info_nce", "symmetric_info_nce", "joint_info_nce"), (X, Y)),
    **dict.fromkeys(("hardness_info_nce", "n_pair", "angular", "siglip"), (X, Y)),
    "multi_positive_info_nce": (X, Y, LABELS),
    "soft_info_nce": (X, Y, TARGETS),
    "per_query_info_nce": (X, Y, NEGATIVES),
    "queue_info_nce": (X, Y, normal(6, B, D)),
    "guided_info_nce": (X, Y, *GUIDES),
    "margin_contrastive": (X, Y, LABELS % 2),
    "triplet": (X, Y, NEGATIVE),
    **dict.fromkeys(
        [f"batch_{kind}_triplet" for kind in ("all", "hard", "semi_hard")], (X, LABELS)
    ),
    **dict.fromkeys(("lifted_structure", "multi_similarity", "circle"), (X, LABELS)),
    "ranked_list": (X, LABELS),
    **dict.fromkeys(("cosine_regression", "cosent", "angle"), (X, Y, SCORES)),
    **dict.fromkeys(("alignment", "negative_cosine", "spread_out"), (X, Y)),
    **dict.fromkeys(("barlow_twins", "vicreg"), (X, Y)),
    **dict.fromkeys(("uniformity", "koleo"), (X,)),
    "labeled_nt_xent": (VIEWS, LABELS),
    **dict.fromkeys(("arc_face", "cos_face", "proxy_nca", "proxy_anchor"), (X, LABELS, WEIGHTS)),
    "soft_triple": (X, LABELS, np.stack([WEIGHTS, WEIGHTS[::-1]], axis=1)),
    **dict.fromkeys(("margin_mse", "kl_distillation"), (X, Y, NEGATIVES, normal(7, B, 4))),
    "online_contrastive": (X, Y, LABELS % 2),
}
NAMES = tuple(ARGUMENTS)
GATHERED = tuple(
    name for name in NAMES if "axis_name" in inspect.signature(getattr(losses, name)).parameters
)


def values_and_gradients(names, mesh=None, arguments=ARGUMENTS, options=lambda name: {}):
    """All the losses in one compilation, with anchors weighted unevenly."""

    def total(differentiable):
        values = {}
        for name in names:
            loss, args = getattr(losses, name), (differentiable[name], *arguments[name][1:])
            loss = loss if mesh is None else parallel.shard_loss(loss, mesh)
            values[name] = loss(*args, **options(name))
        weighted = [(jnp.cos(jnp.arange(x.size)) * x.ravel()).sum() for x in values.values()]
        return sum(weighted), values

    fn = jax.value_and_grad(total, has_aux=True)
    compiler = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    first = {name: arguments[name][0] for name in names}
    first = first if mesh is None else parallel.put_batch(first, mesh)
    (_, values), gradients = jax.jit(fn, compiler_options=compiler)(first)
    return values, gradients


@functools.cache
def on_one_device():
    return values_and_gradients(NAMES)


def assert_as_on_one_device(names, got, dtypes=(np.float32, np.float32)):
    for part, expected, dtype in zip(got, on_one_device(), dtypes, strict=True):
        for name in names:
            assert part[name].dtype == dtype, name
            np.testing.assert_allclose(
                part[name], expected[name], rtol=1e-4, atol=1e-5, err_msg=name
            )


@pytest.mark.parametrize("n_devices", COUNTS)
def test_every_public_loss_can_be_sharded(n_devices):
    """Per anchor and of a whole batch; on 8 devices also those that are taken as they are."""
    mesh = parallel.make_mesh(jax.devices()[:n_devices])
    names = NAMES if n_devices == 8 else GATHERED
    assert_as_on_one_device(names, values_and_gradients(names, mesh))


def test_no_public_loss_is_left_out():
    assert set(losses.__all__) - set(ARGUMENTS) == {"matryoshka", "learned_temperature"}
    mesh = parallel.make_mesh()
    for name in {*NAMES, "matryoshka", "learned_temperature"} - {*GATHERED}:
        loss = getattr(losses, name)
        assert parallel.shard_loss(loss, mesh) is loss


def in_tiles(name):
    tiled = "block_size" in inspect.signature(getattr(losses, name)).parameters
    return {"block_size": 5} if tiled else {}


def test_every_public_loss_and_its_gradient_with_x64():
    """In tiles, where there are any: float32 losses, gradients in the dtype of the embeddings."""
    wide = {np.dtype(np.float32): np.float64, np.dtype(np.int32): np.int64}
    with jax.enable_x64(True):
        arguments = jax.tree.map(lambda x: x.astype(wide.get(x.dtype, x.dtype)), ARGUMENTS)
        got = values_and_gradients(NAMES, arguments=arguments, options=in_tiles)
        assert_as_on_one_device(NAMES, got, (np.float32, np.float64))


def test_wrapped_losses_are_sharded_inside():
    mesh = parallel.make_mesh(jax.devices()[:4])
    sharded = parallel.shard_loss(losses.uniformity, mesh)
    nested = jax.jit(functools.partial(losses.matryoshka, sharded, dims=(2, D)))
    want = sum(losses.uniformity(X[:, :d]) for d in (2, D))
    np.testing.assert_allclose(nested(X), want, rtol=1e-5)


def test_arrays_are_split_by_keyword_too_scalars_and_options_are_not():
    named = {"ids_B": LABELS, "negatives_BKD": NEGATIVES, "temperature": np.float32(0.5)}
    sharded = parallel.shard_loss(losses.info_nce, parallel.make_mesh())
    got = jax.jit(functools.partial(sharded, block_size=3))(X, Y, **named)
    np.testing.assert_allclose(got, losses.info_nce(X, Y, **named), rtol=1e-5)


def test_ids_beyond_int32_are_refused_before_they_are_split():
    sharded = parallel.shard_loss(losses.info_nce, parallel.make_mesh())
    with pytest.raises(ValueError, match="beyond int32"):
        sharded(X, Y, ids_B=LABELS.astype(np.int64) + 2**32)


def test_a_scalar_that_differs_between_devices_is_refused():
    def local_mean(z_BVD, *, axis_name=None):
        return losses.nt_xent(z_BVD, axis_name=axis_name).mean()

    sharded = parallel.shard_loss(local_mean, parallel.make_mesh())
    with pytest.raises(ValueError, match="replicat"):
        sharded(VIEWS)
