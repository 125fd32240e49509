"""Scores that need training of their own: linear heads on augmented views, and fine-tuning."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from contrastive_jax import augment, data, parallel, training
from contrastive_jax.errors import ConfigError
from contrastive_jax.evaluation.results import Scored, accuracy_row, stratified_split
from contrastive_jax.objectives import linear_heads, supervised
from contrastive_jax.training import optim
from contrastive_jax.types import Objective, TrainState
from experiments.run.build import Run
from experiments.run.sections import as_kwargs
from experiments.scoring import images

# SimCLR (arXiv:2002.05709), section B.5: 0.05 x batch / 256, Nesterov, no decay, no warm-up.
FINETUNE_RATE = 0.05
VALIDATION_FRACTION = 0.1


class Recipe(NamedTuple):
    """How heads and encoders are trained for a score."""

    views: augment.Views
    augmentation: Mapping[str, Any]  # for the record
    epochs: float
    label_fraction: float  # of the labels, for fine-tuning


def recipe(config: ConfigDict, epochs: float, label_fraction: float) -> Recipe:
    """Crop and flip as in the run's own augmentation, and nothing else of it."""
    if not 0 < epochs < float("inf") or not 0 < label_fraction <= 1:
        raise ConfigError(
            f"--epochs {epochs:g} --label_fraction {label_fraction:g}: "
            "give finite epochs above 0 and a fraction above 0, at most 1."
        )
    ours = as_kwargs(config, "augment")
    kept = {k: v for k, v in ours.items() if k.startswith(("crop_", "flip_"))}
    chosen = augment.Augmentation(**kept)._asdict()
    shown = {k: v for k, v in chosen.items() if k.startswith(("crop_", "flip_"))}
    off = {"jitter_probability": 0.0, "grayscale_probability": 0.0, "n_views": 1}
    views = augment.make_views(ours["size"], **kept, **off)
    return Recipe(views, {"size": ours["size"], **shown}, epochs, label_fraction)


def check(run: Run, recipe: Recipe, names: Sequence[str]) -> None:
    """Refuse what sgd and finetune cannot do with the data of a run, before anything is scored.

    Raises:
      ConfigError: no labels, too few of them, a streamed set, or less than one step.
    """
    bank, seed = data.labeled(run.dataset.train), run.plan.seed
    if not len(bank["label"]) or not len(run.dataset.test.get("label", ())):
        raise ConfigError(f"--protocols {','.join(names)} train on labels, and the data has none.")
    try:
        for name in names:
            fraction = VALIDATION_FRACTION if name == "sgd" else recipe.label_fraction
            rows = np.arange(len(bank["label"]))
            if fraction < 1:
                fit_N, held_N = stratified_split(bank["label"], fraction, seed)
                rows = fit_N if name == "sgd" else held_N
            _schedule(run, data.take(bank, rows), recipe.epochs)
    except ValueError as error:
        raise ConfigError(f"--protocols {name}: {error}") from error


def sgd_probe(
    run: Run,
    state: TrainState,
    recipe: Recipe,
    *,
    representation: str,
    rates: Sequence[float] = linear_heads.RATES,
) -> Scored:
    """A linear head trained by SGD on augmented views of the frozen encoder.

    One head for each rate, all on the same passes of the encoder; the rate that does best on a part
    of train that is held out is kept (the smaller of equals), as it is: nothing is refitted.
    """
    bank, test, seed = data.labeled(run.dataset.train), run.dataset.test, run.plan.seed
    fit_N, held_N = stratified_split(bank["label"], VALIDATION_FRACTION, seed)
    feed, plan = _schedule(run, data.take(bank, fit_N), recipe.epochs)
    heads, end = _train_heads(run, state, recipe.views, rates, feed, plan)
    held_NR, test_NR = (
        images.extract(heads, end, image)["embedding"].argmax(axis=-1)
        for image in (bank["image"][held_N], test["image"])
    )
    accuracy_R = np.mean(held_NR == bank["label"][held_N, None], axis=0)
    best = int(accuracy_R.argmax())
    held = f"held-out {100 * VALIDATION_FRACTION:g} % of train, stratified, seed {seed}"
    held += ", the smaller of equals"
    protocol = {
        "name": "sgd",
        "solver": "Nesterov SGD, momentum 0.9, half cosine to zero, no decay, zero start",
        "learning_rate": rates[best],
        "learning_rates": list(rates),
        "selection": held,
        "validation_accuracy": accuracy_R.tolist(),
        "refit": "none",
        "standardized": False,
        **_length(recipe, plan, feed, len(fit_N)),
    }
    return _scored(test_NR[:, best], test["label"], protocol, representation, "features")


def finetune(
    run: Run, encoder: Any, state: TrainState, recipe: Recipe, *, representation: str
) -> Scored:
    """The whole encoder, from `state`, and a linear layer from zero, trained with cross-entropy.

    From an untrained state it is the supervised baseline with the same recipe.
    """
    bank, test, seed = data.labeled(run.dataset.train), run.dataset.test, run.plan.seed
    if recipe.label_fraction < 1:
        bank = data.take(bank, stratified_split(bank["label"], recipe.label_fraction, seed)[1])
    objective = supervised.make(encoder, recipe.views, n_classes=len(run.dataset.class_names))
    feed, plan = _schedule(run, bank, recipe.epochs)
    batch_size = len(feed.batch_at(0)["index"])
    optimizer, _ = optim.make(
        "sgd",
        FINETUNE_RATE,
        "linear",
        nesterov=True,
        weight_decay=0.0,
        batch_size=batch_size,
        steps=plan.steps,
        steps_per_epoch=len(bank["label"]) // batch_size,
    )
    start = training.make_init(objective, optimizer, feed, run.mesh)(seed)
    params = {**start.params, "encoder": jax.tree.map(jnp.copy, state.params["encoder"])}
    statistics = {"encoder": jax.tree.map(jnp.copy, state.model_state["encoder"])}
    start = start._replace(params=params, model_state=statistics)
    end = _train(run, objective, optimizer, feed, start, plan)
    logits_NC = images.extract(run._replace(objective=objective), end, test["image"])["embedding"]
    protocol = {
        "name": "finetune",
        "solver": "Nesterov SGD, momentum 0.9, half cosine to zero, no decay",
        "learning_rate": FINETUNE_RATE * batch_size / 256,
        "selection": "fixed beforehand, the last step",
        "label_fraction": recipe.label_fraction,
        **_length(recipe, plan, feed, len(bank["label"])),
    }
    return _scored(logits_NC.argmax(axis=-1), test["label"], protocol, representation, "logits")


def _schedule(run: Run, examples: data.Examples, epochs: float) -> tuple[Any, training.Plan]:
    """Batches of the run's size, or the largest that the devices divide where there are fewer."""
    if run.dataset.stream is not None:
        raise ConfigError(
            "The protocols sgd and finetune keep their images on the device, and data.streaming "
            "leaves them on disk; choose other --protocols."
        )
    devices = run.mesh.devices.size
    batch_size = min(run.dataset.batch_size, len(examples["label"]) // devices * devices)
    if batch_size == 0:
        raise ConfigError(
            f"{len(examples['label'])} labeled images are too few for {devices} devices; "
            "give a larger --label_fraction."
        )
    feed = data.feed(examples, batch_size, run.plan.seed)
    steps_per_epoch = len(examples["label"]) // batch_size
    return feed, training.plan(epochs, seed=run.plan.seed, steps_per_epoch=steps_per_epoch)


def _train_heads(
    run: Run,
    state: TrainState,
    views: augment.Views,
    rates: Sequence[float],
    feed: Any,
    plan: training.Plan,
) -> tuple[Any, TrainState]:
    """The run with the heads as its objective, and their state at the end."""
    frozen = jax.tree.map(jnp.copy, (state.params, state.model_state))  # the loop donates its state
    sizes = {"n_classes": len(run.dataset.class_names), "n_rates": len(rates)}
    objective = linear_heads.make(run.objective.embed["image"], frozen, views, **sizes)
    optimizer = linear_heads.optimizer(rates, plan.steps)
    params, model_state = objective.init(jax.random.key(0), training.batch_spec(feed))
    start = TrainState(jnp.zeros((), jnp.int32), params, model_state, optimizer.init(params))
    start = parallel.put_replicated(start, run.mesh)
    end = _train(run, objective, optimizer, feed, start, plan)
    return run._replace(objective=objective), end


def _train(
    run: Run,
    objective: Objective,
    optimizer: Any,
    feed: Any,
    state: TrainState,
    plan: training.Plan,
) -> TrainState:
    return training.run(
        objective,
        optimizer,
        feed,
        state,
        plan=plan,
        mesh=run.mesh,
        write=lambda step, row: None,
    ).state


def _length(recipe: Recipe, plan: training.Plan, feed: Any, train_size: int) -> dict[str, Any]:
    return {
        "augmentation": dict(recipe.augmentation),
        "epochs": recipe.epochs,
        "steps": plan.steps,
        "batch_size": len(feed.batch_at(0)["index"]),
        "train_size": train_size,
        "seed": plan.seed,
    }


def _scored(
    predictions: np.ndarray, label_N: np.ndarray, protocol: dict, representation: str, layer: str
) -> Scored:
    hits = predictions == label_N
    return Scored(accuracy_row(hits, protocol, representation, layer, "test"), predictions)
