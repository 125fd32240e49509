"""The loss of two towers equals a loop over all pairs; its scalars have a rate of their own."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from contrastive_jax import augment, parallel
from contrastive_jax.encoders import heads, words
from contrastive_jax.objectives import temperature as scale
from contrastive_jax.objectives import two_towers
from contrastive_jax.training import optim
from experiments import clip

B, SIDE = 8, 4
WAYS = (  # devices, tiles (a ring of them where there are several devices), chunks
    (1, 2, None),
    (1, None, 4),
    (2, None, None),
    (4, 1, None),
    (8, None, None),
    (8, 1, 4),
)
IDS = np.array([0, 1, 2, 3, 4, 5, 6, 0], np.int32)


class Flat(nn.Module):
    @nn.compact
    def __call__(self, x_NHWC, train):
        return nn.tanh(nn.Dense(6)(x_NHWC.reshape(len(x_NHWC), -1)))


def make(
    kind,
    devices=1,
    block_size=None,
    chunk_size=None,
    temperature="learned",
    start=0.2,
    bias=None,
):
    mesh = parallel.make_mesh(jax.devices()[:devices])
    views = augment.make_views(size=SIDE, crop_probability=0.0, flip_probability=0.0)
    views = views._replace(train=lambda key, image, index: views.evaluate(image)[:, None])
    return two_towers.make(
        Flat(),
        heads.make(kind="linear", output_dim=5),
        words.make(9, width=4, hidden_dim=4),
        heads.make(kind="linear", output_dim=5, bias=False),
        views,
        parallel.shard_loss(clip.pair_loss(kind, block_size), mesh, n_sharded=3),
        n_classes=0,
        temperature=scale.make(temperature, start),
        bias=bias,
        chunk_size=chunk_size,
    )


def batch():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (B, SIDE, SIDE, 1)).astype(np.uint8)
    tokens = rng.integers(0, 9, (B, 3)).astype(np.int32)
    index = np.arange(B, dtype=np.int32)
    return jax.tree.map(jnp.asarray, {"image": image, "tokens": tokens, "id": IDS, "index": index})


def value_and_gradient(objective):
    params, state = objective.init(jax.random.key(0), batch())
    run = jax.jit(jax.value_and_grad(objective.loss, has_aux=True))
    (_, out), gradient = run(params, state, batch(), jax.random.key(1), jnp.int32(0))
    return params, state, out.metrics, gradient


def slow_loss(kind, image, text, temperature, bias):
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)  # noqa: E731
    s = unit(np.float64(image)) @ unit(np.float64(text)).T / temperature
    same = IDS[:, None] == IDS[None, :]
    own = np.eye(B, dtype=bool)
    if kind == "siglip":
        logits = s + bias
        terms = np.where(own, np.log1p(np.exp(-logits)), np.log1p(np.exp(logits)))
        return np.where(same & ~own, 0.0, terms).sum(axis=1).mean()
    total = 0.0
    for logits in (s, s.T):
        if kind == "multi_positive_info_nce":
            each = np.log(np.exp(logits).sum(axis=1, keepdims=True)) - logits
            total += np.mean([each[i, same[i]].mean() for i in range(B)]) / 2
        else:
            kept = np.where(own | ~same, np.exp(logits), 0.0)
            total += np.mean(np.log(kept.sum(axis=1)) - np.diag(logits)) / 2
    return total


@pytest.mark.parametrize("kind", clip.KINDS)
def test_loss_and_gradients_are_those_of_all_pairs_on_any_devices_in_tiles_and_chunks(kind):
    bias = {"bias": -3.0} if kind == "siglip" else {}
    objective = make(kind, **bias)
    params, state, metrics, gradient = value_and_gradient(objective)
    image = objective.embed["image"](params, state, batch())["embedding"]
    text = objective.embed["text"](params, state, batch())["embedding"]
    want = slow_loss(kind, image, text, 0.2, -3.0)
    np.testing.assert_allclose(metrics["loss"], want, rtol=1e-5)
    assert set(gradient) == {"encoder", "head", "text", "text_head", "loss"}
    for way in WAYS:
        *_, again, same_gradient = value_and_gradient(make(kind, *way, **bias))
        np.testing.assert_allclose(again["loss"], want, rtol=1e-5)
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=1e-6),
            same_gradient,
            gradient,
        )


@pytest.mark.parametrize("kind", ["symmetric_info_nce", "siglip"])
def test_without_ids_every_other_pair_is_a_negative(kind):
    image_BD, text_BD = np.random.default_rng(0).normal(size=(2, B, 5)).astype(np.float32)
    scale = jnp.array([0.2, -3.0])
    of = lambda ids_B, **how: clip.pair_loss(kind, **how)(image_BD, text_BD, ids_B, scale)  # noqa: E731
    distinct_B = np.arange(B, dtype=np.int32)
    np.testing.assert_array_equal(of(IDS, ids=False), of(distinct_B))
    assert of(IDS)[0] < of(IDS, ids=False)[0]  # pair 7 has its id


def test_scalars_move_at_their_own_rate_or_stay():
    def moved(rate, **options):
        objective = make("siglip", start=0.1, bias=-10.0, **options)
        params, state, *_, gradient = value_and_gradient(objective)
        length = {"batch_size": B, "steps": 1000, "steps_per_epoch": 10}
        optimizer, _ = optim.make(
            "adamw",
            0.01,
            weight_decay=0.5,
            loss_rate=rate,
            auxiliary=objective.auxiliary,
            **length,
        )
        update, _ = optimizer.update(gradient, optimizer.init(params), params)
        after = optax.apply_updates(params, update)
        loss = jax.jit(objective.loss)
        *_, out = loss(after, state, batch(), jax.random.key(1), jnp.int32(0))
        metrics = out.metrics
        return abs(np.log(metrics["temperature"] / 0.1)), abs(metrics["bias"] + 10.0)

    np.testing.assert_allclose(moved(1.0), (0.01, 0.01), rtol=1e-2)
    np.testing.assert_allclose(moved(10.0), (0.1, 0.1), rtol=1e-2)
    np.testing.assert_allclose(moved(10.0, temperature=0.1), (0.0, 0.0), atol=1e-6)
