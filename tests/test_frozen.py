"""Frozen parts: no update, no decay, no statistics, no moments, and the rest learns as before."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from contrastive_jax import augment, encoders, frozen, parallel
from contrastive_jax.encoders import heads, text
from contrastive_jax.objectives import temperature, two_towers
from contrastive_jax.training import optim
from experiments import clip

B, SIDE = 8, 8
LENGTH = {"batch_size": B, "steps": 100, "steps_per_epoch": 10}


def batch():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (B, SIDE, SIDE, 1)).astype(np.uint8)
    tokens = rng.integers(1, 9, (B, 3)).astype(np.int32)
    index = np.arange(B, dtype=np.int32)
    return jax.tree.map(
        jnp.asarray, {"image": image, "tokens": tokens, "id": index, "index": index}
    )


def objective(pattern):
    views = augment.make_views(
        size=SIDE, n_views=1, jitter_probability=0.0, grayscale_probability=0.0
    )
    made = two_towers.make(
        encoders.make("resnet", depth=10, width=0.0625, stages=1),
        heads.make(kind="linear", output_dim=5),
        text.make("words", 9, width=4, hidden_dim=4),
        heads.make(kind="linear", output_dim=5, bias=False),
        views,
        parallel.shard_loss(
            functools.partial(clip.KINDS["symmetric_info_nce"], block_size=None),
            parallel.make_mesh(jax.devices()[:1]),
            n_sharded=3,
        ),
        n_classes=0,
        temperature=temperature.make("learned", 0.2),
        frozen=pattern,
    )
    return frozen.freeze(made, pattern)


@functools.cache
def stepped(pattern, name="adamw"):
    made = objective(pattern)
    params, state = made.init(jax.random.key(0), batch())
    optimizer, _ = optim.make(
        name, 0.1, weight_decay=0.5, frozen=pattern, auxiliary=made.auxiliary, **LENGTH
    )

    @jax.jit
    def step(params, state, opt_state):
        gradient, out = jax.grad(made.loss, has_aux=True)(
            params, state, batch(), jax.random.key(1), jnp.int32(0)
        )
        update, opt_state = optimizer.update(gradient, opt_state, params)
        return optax.apply_updates(params, update), out.model_state, opt_state

    opt_state = optimizer.init(params)
    return (params, state), step(params, state, opt_state)


def moved(before, after):
    return jax.tree.map(lambda x, y: bool((x != y).any()), before, after)


@pytest.mark.parametrize("name", ["adamw", "muon", "sgd"])
def test_a_frozen_tower_stays_with_its_statistics_and_has_no_moments(name):
    (params, state), (after, after_state, opt_state) = stepped("encoder/", name)
    assert not any(jax.tree.leaves(moved(params["encoder"], after["encoder"])))
    assert not any(jax.tree.leaves(moved(state, after_state)))
    assert all(jax.tree.leaves(moved(params["head"], after["head"])))
    assert any(jax.tree.leaves(moved(params["text"], after["text"])))
    largest = max(x.size for x in jax.tree.leaves(params["encoder"]))
    sizes = {x.size for x in jax.tree.leaves(opt_state) if hasattr(x, "size")}
    *_, (_, _, whole) = stepped("", name)
    assert largest not in sizes
    assert largest in {x.size for x in jax.tree.leaves(whole) if hasattr(x, "size")}


def test_part_of_a_tower_is_frozen_by_its_path():
    pattern = "encoder/.*(kernel|scale)"
    (params, state), (after, after_state, _) = stepped(pattern)
    changed = moved(params["encoder"], after["encoder"])
    by_leaf = [(path[-1].key, has_moved) for path, has_moved in jax.tree.leaves_with_path(changed)]
    assert not any(has_moved for leaf, has_moved in by_leaf if leaf in ("kernel", "scale"))
    assert any(
        has_moved for leaf, has_moved in by_leaf if leaf == "bias"
    )  # not of branches that are zero
    assert any(jax.tree.leaves(moved(state, after_state)))  # of modules that still learn


def test_what_is_no_regex_is_refused_wherever_it_is_asked():
    with pytest.raises(ValueError, match="no regex"):
        frozen.covers({"kernel": 0}, "encoder", "encoder/(")


def test_a_frozen_tower_encodes_as_in_evaluation():
    made = objective("encoder/")
    params, state = made.init(jax.random.key(0), batch())
    state = jax.tree.map(lambda x: x + 0.5, state)
    loss = functools.partial(made.loss, params, batch=batch(), key=jax.random.key(1), step=0)
    other = jax.tree.map(lambda x: 2 * x, state)
    assert loss(model_state=state)[0] != loss(model_state=other)[0]
    learning = objective("")
    same = functools.partial(learning.loss, params, batch=batch(), key=jax.random.key(1), step=0)
    assert same(model_state=state)[0] == same(model_state=other)[0]  # statistics of the batch


def test_what_learns_learns_as_if_nothing_were_frozen():
    def gradient(pattern):
        made = objective("")
        made = frozen.freeze(made, pattern)
        params, state = made.init(jax.random.key(0), batch())
        return jax.grad(made.loss, has_aux=True)(
            params, state, batch(), jax.random.key(1), jnp.int32(0)
        )[0]

    whole, part = gradient(""), gradient("text/")
    for name in ("encoder", "head", "text_head", "loss"):
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-6), whole[name], part[name]
        )
    assert not any(np.any(x) for x in jax.tree.leaves(part["text"]))


@pytest.mark.parametrize(
    ("pattern", "message"), [("encodr/", "matches no parameter"), ("(", "no regex")]
)
def test_a_pattern_that_freezes_nothing_is_refused(pattern, message):
    with pytest.raises(ValueError, match=message):
        objective(pattern).init(jax.random.key(0), batch())
