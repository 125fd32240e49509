"""Scores of a run beside its baselines: the same protocols on every representation."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from contrastive_jax import data, parallel
from contrastive_jax.evaluation import diagnostics, protocols
from contrastive_jax.evaluation.results import Row, Scored
from contrastive_jax.storage import workdir
from contrastive_jax.types import TrainState
from experiments.run.build import Run
from experiments.scoring import images, pictures, transformations

Features = Mapping[str, np.ndarray]  # layer -> [N, F]
Drawing = Callable[[Path], Any]
DIAGNOSED = 2000  # test images at most


class FeatureScores(NamedTuple):
    """The scores of all representations, and the features of the trained encoder."""

    scored: list[Scored]
    diagnostics: dict[str, dict[str, Any]]  # "representation/layer" -> by name
    left_out: dict[str, str]  # protocol -> why
    trained: tuple[Features, Features]  # of the training images that were searched, of test


def score(
    run: Run,
    trained: TrainState,
    folder: Path,
    origin: Mapping[str, Any],
    *,
    name: str = "summary",
    draw: bool = False,
    more: Callable[[Run, TrainState], Sequence[Row]] = lambda run, trained: (),
    drawings: Callable[[Run, TrainState], Mapping[str, Drawing]] = lambda run, trained: {},
) -> dict[str, Any]:
    """Score a run, write results/NAME.json, then draw.

    All processes take part in embedding the images; what follows is the work of the first.

    Args:
      run: that was trained.
      trained: its last state.
      folder: the workdir.
      origin: what the file says of how the run came about; see `provenance.of_scores`.
      name: of the JSON file.
      draw: also draw the pictures of the run, once its scores are written.
      more: further scores of this kind of data.
      drawings: further pictures of it, by name.

    Returns:
      What was written; in a process that is not the first, no evaluations.
    """
    started = time.perf_counter()
    (folder / "results").mkdir(exist_ok=True)
    settings = images.of_run(run)
    found = score_features(run, trained, protocols.SUMMARY, settings.protocols)
    rows = [scored.row for scored in found.scored] + _transformation_rows(run, trained)
    rows += more(run, trained)
    if jax.process_index() > 0:
        return {"evaluations": []}
    seconds = {**origin.get("seconds", {}), "evaluation": time.perf_counter() - started}
    summary = {
        **origin,
        "evaluations": rows,
        "left_out": found.left_out,
        "diagnostics": found.diagnostics,
        "seconds": seconds,
    }
    workdir.write_json(folder / "results" / f"{name}.json", summary)
    if draw and settings.figures:
        local = parallel.local_copy(trained)
        pictures.draw(run, local, folder, rows, found.trained, drawings(run, local))
    return summary


def score_features(
    run: Run,
    trained: TrainState,
    names: Sequence[str],
    settings: protocols.Settings,
    pairs: np.ndarray | None = None,
) -> FeatureScores:
    """Score every layer of every representation by the named protocols.

    Args:
      run: its data set is scored.
      trained: the state of its encoder.
      names: of `protocols.PROTOCOLS`.
      settings: of the protocols.
      pairs: views [2N, H, W, C] of test images, side by side, for the alignment.
    """
    labels = images.labels(run)
    searched, test = searched_images(run), run.dataset.test
    shown = (searched["image"], test["image"], *(() if pairs is None else (pairs,)))
    scored, diagnosed, kept = [], {}, {}
    for representation, sets in images.representations(run, trained, *shown):
        kept.setdefault("trained", sets[:2])
        if jax.process_index() > 0:
            continue
        for layer in sets[0]:
            print(f"scoring: {representation}, {layer}", flush=True)
            h, h_test = sets[0][layer], sets[1][layer]
            both = protocols.Sets((h, labels.train), (h_test, labels.test), labels.n_classes)
            record = {"representation": representation, "layer": layer}
            scored += protocols.score(names, both, settings, **record)
            if pairs is None and representation != "trained":
                continue  # a summary says of the trained encoder alone whether it has collapsed
            diagnosed[f"{representation}/{layer}"] = diagnostics.of_features(
                h_test[:DIAGNOSED],
                labels.test[:DIAGNOSED] if len(labels.test) else None,
                _pairs_of(sets, layer),
                spectrum=pairs is not None,
            )
    left_out = protocols.left_out(names, labels, settings)
    return FeatureScores(scored, diagnosed, left_out, kept["trained"])


def _pairs_of(sets: Sequence[Features], layer: str) -> np.ndarray | None:
    """Pairs of views [N,2,F]; None without any, and for pixels of views of another size."""
    _, test, *views = sets
    found = views[0].get(layer) if views else None
    if found is None or found.shape[1] != test[layer].shape[1]:
        return None
    return found.reshape(-1, 2, found.shape[1])


def searched_images(run: Run) -> Mapping[str, np.ndarray]:
    """Select the training images that neighbors and probes use: the labeled ones, or all."""
    labeled = data.labeled(run.dataset.train)
    return labeled if len(labeled["label"]) else run.dataset.train


def _transformation_rows(run: Run, trained: TrainState) -> list[dict[str, Any]]:
    settings = images.of_run(run)
    if settings.predict is None:
        return []
    return transformations.rows(
        settings.predict,
        lambda image: images.extract(run, trained, image),
        searched_images(run)["image"],
        run.dataset.test["image"],
        seed=run.plan.seed,
        l2_grid=settings.protocols.l2_grid,
        max_steps=settings.protocols.probe_steps,
        representation="trained",
    )
