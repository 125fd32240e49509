"""Scores of a run beside their baselines: the same protocols on three representations.

"trained" is the encoder of the run, "untrained" the same encoder before its first step, "pixels"
the raw images. Weights and statistics are frozen: only `Objective.embed` is called.
"""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from contrastive_jax import data, parallel, training
from contrastive_jax.evaluation import diagnostics, knn, probes
from contrastive_jax.storage import workdir
from contrastive_jax.types import TrainState
from experiments.scoring import pictures, transformations

Features = dict[str, np.ndarray]  # layer -> [N, F]
VALIDATION_BANK, VALIDATION_QUERIES = 5000, 1000
PIXEL_SIDE = 32  # images of at least twice this are shrunk before their pixels are a baseline


class Settings(NamedTuple):
    """How a run is scored."""

    every_steps: int
    batch_size: int
    probe_train: int | None
    l2_grid: tuple[float, ...]
    probe_steps: int
    labels_per_class: int
    draws: int
    figures: bool
    baselines: bool
    predict: str | None


def settings(
    every_steps: int = 0,
    batch_size: int = 512,
    probe_train: int | None = None,
    l2_grid: tuple[float, ...] = probes.L2_GRID,
    probe_steps: int = 200,
    labels_per_class: int = 10,
    draws: int = 10,
    figures: bool = True,
    baselines: bool = True,
    predict: str | None = None,
) -> Settings:
    """How to score, by the keys of the config's `eval`.

    Args:
      every_steps: steps between two looks at kNN (k=20, T=0.07) on a part of the training set that
        does not vote; 0 for never. The test set is never looked at during training.
      batch_size: images embedded at once, over all devices.
      probe_train: train the linear probes on this many images (the first in a fixed shuffle), or
        None for all of them.
      l2_grid: strengths for the linear probe, one of which is chosen on a held-out tenth of train.
      probe_steps: L-BFGS steps at most.
      labels_per_class: of the few-label probe; 0 leaves it out.
      draws: of the few-label probe.
      figures: draw the pictures.
      baselines: also score the untrained encoder and the pixels.
      predict: a transformation that a probe of the trained encoder has to recognise: "colour",
        "rotation", "noise" or "sobel".
    """
    counts = {"batch_size": batch_size, "probe_steps": probe_steps, "draws": draws}
    counts |= {} if probe_train is None else {"probe_train": probe_train}
    for key, value in counts.items():
        if value < 1:
            raise ValueError(f"eval.{key} is {value}; give at least 1")
    for key, value in {"every_steps": every_steps, "labels_per_class": labels_per_class}.items():
        if value < 0:
            raise ValueError(f"eval.{key} is {value}; give 0 or more")
    if not l2_grid or min(l2_grid) < 0:
        raise ValueError(f"eval.l2_grid is {l2_grid}; give strengths of 0 or more")
    if predict not in (None, *transformations.FORMS):
        raise ValueError(
            f"eval.predict is {predict!r}; give one of {tuple(transformations.FORMS)}, or leave it"
        )
    chosen = (every_steps, batch_size, probe_train, tuple(l2_grid), probe_steps)
    return Settings(*chosen, labels_per_class, draws, figures, baselines, predict)


def evaluators(run: Any) -> list[training.Evaluator]:
    """The kNN accuracy within the training set, as often as the config asks."""
    if run.eval.every_steps == 0:
        return []
    labelled = data.labeled(run.dataset.train)
    order = np.random.default_rng(run.plan.seed).permutation(len(labelled["label"]))
    queries = order[: min(VALIDATION_QUERIES, len(order) // 4)]
    bank = order[len(queries) : len(queries) + VALIDATION_BANK]
    images = labelled["image"][np.concatenate([bank, queries])]
    labels = labelled["label"][np.concatenate([bank, queries])]
    protocol = knn.KnnProtocol(20, 0.07)

    def measure(state: TrainState, step: int) -> Mapping[str, float]:
        del step
        h = extract(run, state, images)["features"]
        near, index = knn.knn_neighbours(h[: len(bank)], h[len(bank) :], k=protocol.k)
        predicted = knn.knn_predict(near, labels[index], protocol)
        return {"knn_validation": float(np.mean(predicted == labels[len(bank) :]))}

    return [training.Evaluator(run.eval.every_steps, measure)]


def extract(run: Any, state: TrainState, image: np.ndarray) -> Features:
    """{"features", "embedding"} of all images, batches split over the devices."""
    devices = run.mesh.devices.size
    batch_size = -(-min(run.eval.batch_size, len(image)) // devices) * devices
    return knn.extract(
        run.objective.embed,
        state.params,
        state.model_state,
        image,
        batch_size=batch_size,
        shard=lambda batch: parallel.put_batch(batch, run.mesh),
        out_sharding=parallel.replicated(run.mesh),  # each process has all of them
    )


def score(
    run: Any,
    trained: TrainState,
    untrained: TrainState,
    folder: Path,
    provenance: Mapping[str, Any],
    *,
    name: str = "summary",
) -> dict[str, Any]:
    """Score a run, draw it, and write results/NAME.json.

    All processes take part in embedding the images; what follows is the work of the first.

    Args:
      run: the `launch.Run` that was trained.
      trained, untrained: its last state and its first.
      folder: the workdir.
      provenance: what the summary says of how the run came about.
      name: of the JSON file.

    Returns:
      What was written; in a process that is not the first, no evaluations.
    """
    started = time.perf_counter()
    for subfolder in ("results", "figures"):
        (folder / subfolder).mkdir(exist_ok=True)
    bank, test = data.labeled(run.dataset.train), run.dataset.test
    rows: list[dict[str, Any]] = []
    images = bank["image"], test["image"]
    kept = dict(representations(run, trained, untrained, *images))
    if jax.process_index() > 0:
        return {"evaluations": rows}
    for representation, layers in kept.items():
        print(f"scoring: {representation}", flush=True)
        for layer in layers[0]:
            split = (layers[0][layer], bank["label"]), (layers[1][layer], test["label"])
            names = {"representation": representation, "layer": layer}
            rows += knn.knn_rows(*split, **names)
            rows += _probe_rows(run, *split, **names)
    rows += _transformation_rows(run, trained, bank["image"], test["image"])
    evaluated = time.perf_counter() - started
    if run.eval.figures:
        pictures.draw(run, parallel.local_copy(trained), folder, rows, kept["trained"])
    summary = {
        "evaluations": rows,
        "health": _health(kept["trained"][1]),
        **provenance,
        "seconds": {**provenance["seconds"], "evaluation": evaluated},
    }
    workdir.write_json(folder / "results" / f"{name}.json", summary)
    return summary


def representations(
    run: Any, trained: TrainState, untrained: TrainState, *images: np.ndarray
) -> Iterator[tuple[str, tuple[Features, ...]]]:
    """Each name with its features of every set of images, one name at a time."""
    states = {"trained": trained}
    states |= {"untrained": untrained} if run.eval.baselines else {}
    for name, state in states.items():
        yield name, tuple(extract(run, state, each) for each in images)
    if run.eval.baselines:
        yield "pixels", tuple(_pixels(each) for each in images)


def _pixels(image: np.ndarray) -> Features:
    """The images as vectors; large ones as means over squares, about 32 to a side."""
    step = max(image.shape[1] // PIXEL_SIDE, 1)
    parts = [_means(image[i : i + 1024], step) for i in range(0, len(image), 1024)]
    layer = "pixels" if step == 1 else f"pixels, means of {step}x{step}"
    return {layer: np.concatenate(parts)}


def _means(image: np.ndarray, step: int) -> np.ndarray:
    n, height, width, channels = image.shape
    down, across = height // step, width // step
    image = image[:, : down * step, : across * step].astype(np.float32)
    squares = image.reshape(n, down, step, across, step, channels)
    return squares.mean(axis=(2, 4)).reshape(n, -1) / 255


def _probe_rows(
    run: Any,
    bank: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    **names: str,
) -> list[dict[str, Any]]:
    """The full linear probe, and the few-label one."""
    settings = run.eval
    shared = {
        "n_classes": len(run.dataset.class_names),
        "max_steps": settings.probe_steps,
        "seed": run.plan.seed,
    }
    order = np.random.default_rng(run.plan.seed).permutation(len(bank[1]))[: settings.probe_train]
    sets = bank[0][order], bank[1][order], *test
    full = probes.linear_probe(*sets, l2_grid=settings.l2_grid, **shared)
    rows = [probes.linear_row(full, **names)]
    if settings.labels_per_class:
        few = {"per_class": settings.labels_per_class, "draws": settings.draws}
        rows.append(probes.few_label_row(probes.few_label_probe(*sets, **few, **shared), **names))
    return rows


def _transformation_rows(
    run: Any, trained: TrainState, bank: np.ndarray, test: np.ndarray
) -> list[dict[str, Any]]:
    if run.eval.predict is None:
        return []
    return transformations.rows(
        run.eval.predict,
        lambda image: extract(run, trained, image),
        bank,
        test,
        seed=run.plan.seed,
        l2_grid=run.eval.l2_grid,
        max_steps=run.eval.probe_steps,
        representation="trained",
    )


def _health(layers: Features) -> dict[str, dict[str, float]]:
    """Collapse gauges of the trained test features, on at most 2,000 images."""
    gauges = {
        "uniformity": diagnostics.uniformity,
        "embedding_std": diagnostics.embedding_std,
        "effective_rank": diagnostics.effective_rank,
        "rankme": diagnostics.rankme,
    }
    measure = jax.jit(lambda z: {name: gauge(z) for name, gauge in gauges.items()})
    measured = jax.device_get({layer: measure(z[:2000]) for layer, z in layers.items()})
    return jax.tree.map(float, measured)
