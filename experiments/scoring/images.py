"""Images as a kind of data: how they are read, shown to the encoder, checked and embedded."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from contrastive_jax import augment, data, parallel, training
from contrastive_jax.data.decode import MODES
from contrastive_jax.evaluation import features, knn, neighbors, protocols
from contrastive_jax.evaluation.probes import L2_GRID
from contrastive_jax.types import Feed, TrainState
from experiments.run.build import Run
from experiments.run.sections import as_kwargs
from experiments.scoring import transformations

Features = dict[str, np.ndarray]  # layer -> [N, F]
VALIDATION_BANK, VALIDATION_QUERIES = 5000, 1000
PIXEL_SIDE = 32  # images of at least twice this are shrunk before their pixels are a baseline


_WITHOUT_LABELS = (  # in one line
    "the data has no labels: diagnostics, neighbors and maps are made, and no score; "
    "experiments.evaluate RUN --data CONFIG scores the run on a set with labels"
)


class Settings(NamedTuple):
    """How a run on images is scored."""

    every_steps: int
    batch_size: int
    figures: bool
    baselines: bool
    predict: str | None
    protocols: protocols.Settings


def settings(
    every_steps: int = 0,
    batch_size: int = 512,
    probe_train: int | None = None,
    l2_grid: tuple[float, ...] = L2_GRID,
    probe_steps: int = 200,
    labels_per_class: int = 10,
    draws: int = 10,
    figures: bool = True,
    baselines: bool = True,
    predict: str | None = None,
) -> Settings:
    """Choose how to score, by the keys of the config's `eval`.

    Args:
      every_steps: steps between two evaluations of kNN (k=20, T=0.07) on a part of the training set
        that does not vote; 0 for never. The test set is never used during training.
      batch_size: images embedded at once, over all devices.
      probe_train: train the linear probes on this many images (the first in a fixed shuffle), or
        None for all of them.
      l2_grid: strengths for the linear probe, one of which is chosen on a held-out tenth of train.
      probe_steps: L-BFGS steps at most.
      labels_per_class: of the few-label probe; 0 leaves it out.
      draws: samples of labels of the few-label probe.
      figures: draw the pictures.
      baselines: also score the untrained encoder and the pixels.
      predict: a transformation that a probe of the trained encoder has to recognize: "color",
        "rotation", "noise" or "sobel".

    Raises:
      ValueError: a number out of range, or an unknown transformation.
    """
    at_least = {
        "every_steps": (every_steps, 0),
        "batch_size": (batch_size, 1),
        "probe_train": (1 if probe_train is None else probe_train, 1),
        "probe_steps": (probe_steps, 1),
        "labels_per_class": (labels_per_class, 0),
        "draws": (draws, 2),
    }
    for key, (value, least) in at_least.items():
        if value < least:
            raise ValueError(f"eval.{key} is {value}; give at least {least}")
    if not l2_grid or min(l2_grid) <= 0:
        raise ValueError(f"eval.l2_grid is {l2_grid}; give strengths above 0")
    if predict not in (None, *transformations.FORMS):
        known = tuple(transformations.FORMS)
        raise ValueError(f"eval.predict is {predict!r}; give one of {known}, or leave it")
    chosen = protocols.Settings(
        l2_grid=tuple(l2_grid),
        probe_train=probe_train,
        probe_steps=probe_steps,
        labels_per_class=(labels_per_class,) if labels_per_class else (),
        draws=draws,
    )
    return Settings(every_steps, batch_size, figures, baselines, predict, chosen)


def of_run(run: Run) -> Settings:
    """Read how a run is scored; its seed is that of training."""
    chosen = settings(**as_kwargs(run.config, "eval"))
    return chosen._replace(protocols=chosen.protocols._replace(seed=run.plan.seed))


def views(config: ConfigDict) -> augment.Views:
    """Make the augmentations of a config."""
    return augment.make_views(**as_kwargs(config, "augment"))


def load(config: ConfigDict) -> data.Dataset:
    """Load the data of a config, once its other sections on images are known to be sound."""
    settings(**as_kwargs(config, "eval"))  # refused before the data is read
    views(config)
    return data.load(**as_kwargs(config, "data"))


def stand_in(config: ConfigDict, identity: Mapping[str, Any]) -> data.Dataset:
    """Make black images in place of a data set of which only the identity is known."""

    def black(n: int) -> dict[str, np.ndarray]:
        image = np.broadcast_to(np.uint8(0), (n, *identity["image_shape"]))
        return {"image": image, "label": np.zeros(n, np.int32)}

    train, test = black(identity["train"]), black(identity["test"])
    names = tuple(identity["class_names"])
    made = data.Dataset(identity["name"], train, test, names, config.data.batch_size)
    if not config.data.streaming:
        return made
    mode, label_key = MODES[identity["image_shape"][-1]], "label" if names else None
    split = data.StoredSplit("", "train", identity["train"], mode, "image", label_key)
    return made._replace(stream=split)


def feed(config: ConfigDict, dataset: data.Dataset, seed: int) -> Feed:
    """Make the batches of a training set for a seed."""
    return data.train_feed(dataset, seed, views(config).crops)


def labels(run: Run) -> protocols.Labels:
    """Read the labels that decide which protocols can score a run."""
    test = run.dataset.test.get("label", np.zeros(0, np.int32))
    train = data.labeled(run.dataset.train)["label"]
    return protocols.Labels(train, test, len(run.dataset.class_names))


def check(run: Run, without_labels: str = _WITHOUT_LABELS) -> list[str]:
    """Ask, before the first step, what scoring and drawing will need; say what is left out.

    Args:
      run: that is about to be trained.
      without_labels: what is said of data without any.

    Raises:
      ValueError: `eval.predict` asks for a transformation that these images cannot take.
    """
    chosen = of_run(run)
    impossible = protocols.left_out(protocols.SUMMARY, labels(run), chosen.protocols)
    notes = [f"left out of the scores: {name} ({why})" for name, why in impossible.items()]
    if not len(labels(run).train) and not len(labels(run).test):
        notes = [without_labels]
    elif chosen.every_steps and len(labels(run).train) < 4:
        notes.append("left out of the metrics: kNN during training (too few labeled images)")
    if chosen.predict is not None:
        transformations.check(chosen.predict, run.dataset.train["image"].shape[1:])
    return notes


def describe(run: Run) -> str:
    """Summarize the data for the banner."""
    dataset = run.dataset
    shape = "x".join(map(str, dataset.train["image"].shape[1:]))
    counts = f"{dataset.n_train:,} train and {len(dataset.test['image']):,} test images"
    return f"{dataset.name}: {counts} of {shape}"


def evaluators(run: Run) -> list[training.Evaluator]:
    """Measure kNN accuracy within the training set, as often as the config asks."""
    every_steps = of_run(run).every_steps
    bank, n = data.labeled(run.dataset.train), len(labels(run).train)
    if every_steps == 0 or n < 4:
        return []
    order = np.random.default_rng(run.plan.seed).permutation(n)
    queries = order[: min(VALIDATION_QUERIES, n // 4)]
    voters = order[len(queries) : len(queries) + VALIDATION_BANK]
    chosen = data.take(bank, np.concatenate([voters, queries]))
    protocol = knn.KnnProtocol(20, 0.07)

    def measure(state: TrainState, step: int) -> Mapping[str, float]:
        del step
        h = extract(run, state, chosen["image"])["features"]
        near, index = neighbors.knn_neighbors(h[: len(voters)], h[len(voters) :], k=protocol.k)
        predicted = knn.knn_predict(near, chosen["label"][index], protocol)
        return {"knn_validation": float(np.mean(predicted == chosen["label"][len(voters) :]))}

    return [training.Evaluator(every_steps, measure)]


def extract(run: Run, state: TrainState, image: np.ndarray) -> Features:
    """Embed all images, {"features", "embedding"}, batches split over the devices."""
    devices = run.mesh.devices.size
    batch_size = -(-min(of_run(run).batch_size, len(image)) // devices) * devices
    return features.extract(
        run.objective.embed["image"],
        state.params,
        state.model_state,
        {"image": image},
        batch_size=batch_size,
        shard=lambda batch: parallel.put_batch(batch, run.mesh),
        out_sharding=parallel.replicated(run.mesh),  # each process has all of them
    )


def representations(
    run: Run, trained: TrainState, *images: np.ndarray
) -> Iterator[tuple[str, tuple[Features, ...]]]:
    """Embed every set of images by each representation in turn.

    "trained" is the encoder of the run, "untrained" the same encoder before its first step,
    "pixels" the images themselves. Weights and statistics are frozen.
    """
    baselines = of_run(run).baselines
    yield "trained", tuple(extract(run, trained, each) for each in images)
    if baselines:
        untrained = run.fresh_state()
        yield "untrained", tuple(extract(run, untrained, each) for each in images)
        yield "pixels", tuple(pixels(each) for each in images)


def pixels(image: np.ndarray) -> Features:
    """Make vectors of images; of large ones they are means over squares, about 32 to a side."""
    step = max(image.shape[1] // PIXEL_SIDE, 1)
    parts = [_means(image[i : i + 1024], step) for i in range(0, len(image), 1024)]
    layer = "pixels" if step == 1 else f"pixels, means of {step}x{step}"
    return {layer: np.concatenate(parts)}


def _means(image: np.ndarray, step: int) -> np.ndarray:
    n, height, width, channels = image.shape
    down, across = height // step, width // step
    scale = 255 if image.dtype == np.uint8 else 1
    image = image[:, : down * step, : across * step].astype(np.float32)
    squares = image.reshape(n, down, step, across, step, channels)
    return squares.mean(axis=(2, 4)).reshape(n, -1) / scale
