"""Heads on a frozen encoder and fine-tuning: equal to slow loops, and only what may change does."""

import json
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from contrastive_jax import augment, data, parallel, training
from contrastive_jax.errors import ConfigError
from contrastive_jax.evaluation import probes
from contrastive_jax.objectives import linear_heads, supervised
from contrastive_jax.training import checksums, optim
from contrastive_jax.types import TrainState
from experiments.scoring import finetune, images

RATES = (0.01, 0.3, 3.0)
STEPS = 6
VIEWS = augment.make_views(4, crop_scale=(0.5, 1.0), jitter_probability=0.0, n_views=1,
                           grayscale_probability=0.0)  # fmt: skip
make_views = jax.jit(VIEWS.train)
CONFIG = ConfigDict(
    {"augment": {"size": 4, "crop_scale": (0.5, 1.0), "hue": 0.1, "rotate_probability": 0.5}}
)


class Encoder(nn.Module):
    @nn.compact
    def __call__(self, x_BHWC, *, train: bool):
        h = nn.Dense(5)(x_BHWC.reshape(len(x_BHWC), -1))
        return nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.5)(h))


class Run(NamedTuple):
    """What fine-tuning reads of a run."""

    dataset: data.Dataset
    mesh: parallel.Mesh
    objective: object
    plan: training.Plan
    config: ConfigDict


@pytest.fixture(scope="module")
def run():
    rng = np.random.default_rng(0)
    label = np.arange(160, dtype=np.int32) % 3
    shade = rng.normal(size=(160, 4, 4, 1)) * 20 + 60 * label[:, None, None, None] + 60
    images = shade.clip(0, 255).astype(np.uint8)
    sets = ({"image": images[rows], "label": label[rows]} for rows in (slice(100), slice(100, 160)))
    dataset = data.Dataset("shades", *sets, ("dark", "gray", "light"), 32)
    objective = supervised.make(Encoder(), VIEWS, n_classes=3)
    settings = ConfigDict({"eval": {"batch_size": 64}})
    return Run(dataset, parallel.make_mesh(), objective, training.Plan(STEPS, 0, 50), settings)


@pytest.fixture(scope="module")
def state(run):
    feed = data.feed(run.dataset.train, 32, 0)
    optimizer, _ = optim.make(batch_size=32, steps=9, steps_per_epoch=3)
    return training.make_init(run.objective, optimizer, feed, run.mesh)(0)


def train_heads(run, state, rates, embed=None):
    """STEPS steps of all heads; the state at the end."""
    frozen = jax.tree.map(jnp.copy, (state.params, state.model_state))
    objective = linear_heads.make(
        embed or run.objective.embed["image"], frozen, VIEWS, n_classes=3, n_rates=len(rates)
    )
    feed, optimizer = data.feed(run.dataset.train, 32, 0), linear_heads.optimizer(rates, STEPS)
    params, model_state = objective.init(jax.random.key(0), training.batch_spec(feed))
    start = TrainState(jnp.zeros((), jnp.int32), params, model_state, optimizer.init(params))
    start = parallel.put_replicated(start, run.mesh)
    quiet = {"plan": run.plan, "mesh": run.mesh, "write": lambda step, row: None}
    return training.run(objective, optimizer, feed, start, **quiet).state


@pytest.fixture(scope="module")
def heads(run, state):
    return train_heads(run, state, RATES)


def slow_head(run, state, rate):
    """One head in float64, by the formulas of Nesterov's momentum and of softmax."""
    feed, key = data.feed(run.dataset.train, 32, 0), training.stream_key(0, training.AUGMENT_STREAM)
    w, b, velocity = np.zeros((5, 3)), np.zeros(3), [np.zeros((5, 3)), np.zeros(3)]
    for step in range(STEPS):
        index = feed.batch_at(step)["index"]
        image, label = run.dataset.train["image"][index], run.dataset.train["label"][index]
        view = make_views(jax.random.fold_in(key, step), image, index)[:, 0]
        h = run.objective.embed["image"](state.params, state.model_state, {"image": view})
        h = h["features"]
        h = np.asarray(h, np.float64)
        p = np.exp(h @ w + b)
        residual = (p / p.sum(axis=1, keepdims=True) - np.eye(3)[label]) / 32
        scale = rate * 0.5 * (1 + np.cos(np.pi * step / STEPS))
        for i, gradient in enumerate((h.T @ residual, residual.sum(axis=0))):
            velocity[i] = 0.9 * velocity[i] + gradient
            (w, b)[i][...] -= scale * (gradient + 0.9 * velocity[i])
    return w, b


@pytest.mark.parametrize("r", range(len(RATES)))
def test_each_head_of_the_batch_is_the_head_trained_alone_by_hand(run, state, heads, r):
    w, b = slow_head(run, state, RATES[r])
    np.testing.assert_allclose(heads.params["weight"][r], w, rtol=2e-3, atol=1e-4 * RATES[r])
    np.testing.assert_allclose(heads.params["bias"][r], b, rtol=2e-3, atol=1e-4 * RATES[r])


def test_one_pass_of_the_encoder_serves_all_rates_and_leaves_it_frozen(run, state, heads):
    passes = []

    def counting(params, model_state, batch):
        passes.append(batch["image"].shape)
        return run.objective.embed["image"](params, model_state, batch)

    train_heads(run, state, RATES, counting)
    training = [shape for shape in passes if shape[0] == 32]
    assert len(training) == 2  # one to learn the width of the features, one in the step
    frozen = checksums.digest((state.params, state.model_state))
    assert checksums.digest(tuple(heads.model_state)) == frozen


def test_a_linear_probe_leaves_the_encoder_and_its_statistics_as_they_were(run, state):
    before, examples = checksums.digest(state), run.dataset.train
    x = images.extract(run, state, examples["image"])["features"]
    fitted = probes.linear_probe(
        x, examples["label"], x, examples["label"], n_classes=3, l2_grid=(1e-2,)
    )
    assert fitted.accuracy > 0.5
    assert checksums.digest(state) == before
    # Statistics are those of training: the other images of a batch change nothing.
    order = np.random.default_rng(0).permutation(len(x))
    again = images.extract(run, state, examples["image"][order])["features"]
    np.testing.assert_allclose(again, x[order], rtol=1e-6)


def test_the_sgd_probe_chooses_its_rate_on_held_out_images(run, state):
    before = checksums.digest(state)
    recipe = finetune.recipe(CONFIG, epochs=4, label_fraction=1.0)
    names = {"representation": "trained"}
    scored = finetune.sgd_probe(run, state, recipe, rates=RATES, **names)
    protocol = scored.row["protocol"]
    best = int(np.argmax(protocol["validation_accuracy"]))
    assert protocol["learning_rate"] == RATES[best]
    assert scored.row["value"] == np.mean(scored.predictions == run.dataset.test["label"])
    assert scored.row["value"] > 0.5
    assert json.loads(json.dumps(scored.row)) == scored.row | {
        "protocol": json.loads(json.dumps(protocol))
    }
    assert checksums.digest(state) == before
    shuffled = {"image": run.dataset.test["image"], "label": run.dataset.test["label"][::-1]}
    other = run._replace(dataset=run.dataset._replace(test=shuffled))
    again = finetune.sgd_probe(other, state, recipe, rates=RATES, **names)
    np.testing.assert_array_equal(again.predictions, scored.predictions)


def test_fine_tuning_moves_a_copy_of_the_encoder_and_spares_the_run(run, state, monkeypatch):
    encoders, real = [], finetune._train

    def watched(run, objective, optimizer, feed, start, plan):
        encoders.append(checksums.digest(start.params["encoder"]))
        end = real(run, objective, optimizer, feed, start, plan)
        encoders.append(checksums.digest(end.params["encoder"]))
        return end

    monkeypatch.setattr(finetune, "_train", watched)
    before = checksums.digest(state)
    recipe = finetune.recipe(CONFIG, epochs=20, label_fraction=0.5)
    scored = finetune.finetune(run, Encoder(), state, recipe, representation="trained")
    assert encoders[0] == checksums.digest(state.params["encoder"]) != encoders[1]
    halves = [round(count / 2) for count in np.bincount(run.dataset.train["label"])]
    assert scored.row["protocol"]["train_size"] == sum(halves)
    assert scored.row["protocol"]["augmentation"]["crop_scale"] == (0.5, 1.0)
    assert scored.row["value"] > 0.6
    assert checksums.digest(state) == before


def test_cross_entropy_equals_the_formula_and_skips_the_unlabelled(run, state):
    image = run.dataset.train["image"][:8]
    label = np.array([0, 1, 2, -1, 0, 1, -1, 2], np.int32)
    params = {**state.params, "classifier": {"kernel": jnp.ones((5, 1)) * jnp.arange(3.0)[None],
                                             "bias": jnp.zeros(3)}}  # fmt: skip
    batch = {"image": image, "label": label, "index": np.arange(8)}
    key = jax.random.key(1)
    value_and_grad = jax.jit(jax.value_and_grad(run.objective.loss, has_aux=True))
    (loss, out), gradient = value_and_grad(params, state.model_state, batch, key, 0)
    x = make_views(key, image, batch["index"])[:, 0]
    variables = {"params": params["encoder"], "batch_stats": state.model_state["encoder"]}
    h, updated = Encoder().apply(variables, x, train=True, mutable=["batch_stats"])
    logits = np.asarray(h, np.float64).sum(axis=1)[:, None] * np.arange(3)
    each = [
        np.log(np.exp(row).sum()) - row[y] for row, y in zip(logits, label, strict=True) if y >= 0
    ]
    np.testing.assert_allclose(loss, np.mean(each), rtol=1e-5)
    assert float(jnp.abs(gradient["encoder"]["Dense_0"]["kernel"]).max()) > 0
    np.testing.assert_allclose(
        out.model_state["encoder"]["BatchNorm_0"]["mean"],
        updated["batch_stats"]["BatchNorm_0"]["mean"],
    )
    embedded = run.objective.embed["image"](params, state.model_state, batch)
    np.testing.assert_allclose(
        embedded["embedding"], embedded["features"].sum(axis=1)[:, None] * jnp.arange(3.0)[None],
        rtol=1e-5,
    )  # fmt: skip


def test_a_recipe_keeps_crop_and_flip_alone_and_refuses_nonsense():
    assert set(finetune.recipe(CONFIG, 1, 1).augmentation) == {
        "size", "crop_probability", "crop_scale", "crop_ratio", "flip_probability",
    }  # fmt: skip
    with pytest.raises(ConfigError, match="epochs 0"):
        finetune.recipe(CONFIG, 0, 1)
    with pytest.raises(ConfigError, match="label_fraction 1.5"):
        finetune.recipe(CONFIG, 1, 1.5)
    with pytest.raises(ValueError, match="learning rates"):
        linear_heads.optimizer((0.1, -1.0), 3)
