"""The pictures of a run, from its metrics and its cached features."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from contrastive_jax import data, figures, training
from contrastive_jax.evaluation import knn
from contrastive_jax.storage import jsonl
from contrastive_jax.training import compiler_options
from contrastive_jax.types import TrainState
from experiments.run import console

Features = Mapping[str, np.ndarray]
GRID, QUERIES, NEIGHBOURS, PAIRS = 8, 12, 6, 1000


def draw(
    run: Any,
    state: TrainState,
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    trained: tuple[Features, ...],
) -> None:
    """Write every figure of a scored run to its folder `figures`.

    Args:
      run: the `launch.Run`.
      state: its trained state.
      folder: the workdir.
      rows: the evaluations of the summary.
      trained: features of the labelled training images and of the test images.
    """
    out = folder / "figures"
    bank, test = data.labeled(run.dataset.train), run.dataset.test
    classes = run.dataset.class_names
    pair_images = run.dataset.train["image"][:PAIRS]
    views = _views(run, pair_images)
    figures.views_grid(
        out / "views.png",
        pair_images[:GRID],
        views[:GRID],
        [classes[label] if label >= 0 else "" for label in run.dataset.train["label"][:GRID]],
    )
    _draw_cosines(run, state, out / "cosines.png", views)
    history = jsonl.read_jsonl(folder / "metrics.jsonl")
    figures.curves(out / "curves.png", {"run": history})
    figures.score_bars(out / "scores.png", rows, console.protocol_name)
    for layer, z in trained[1].items():
        figures.embedding_map(
            out / f"map_{layer}.png", z, test["label"], classes, seed=run.plan.seed
        )
    h_bank, h_test = trained[0]["features"], trained[1]["features"]
    chosen = np.linspace(0, len(h_test) - 1, min(QUERIES, len(h_test))).astype(int)
    similarity, index = knn.knn_neighbours(h_bank, h_test[chosen], k=NEIGHBOURS)
    figures.neighbors(
        out / "neighbours.png",
        test["image"][chosen],
        bank["image"][index],
        test["label"][chosen],
        bank["label"][index],
        classes,
        similarity,
    )


def _draw_cosines(run: Any, state: TrainState, path: Path, view_BVHWC: np.ndarray) -> None:
    """Cosines of positive pairs (two views of one image) and of negative pairs."""
    z_BVD = np.stack([_embed(run, state, view_BVHWC[:, v]) for v in (0, 1)], axis=1)
    unit = z_BVD / np.maximum(np.linalg.norm(z_BVD, axis=-1, keepdims=True), 1e-12)
    cosine_BB = unit[:, 0] @ unit[:, 1].T
    negative = cosine_BB[~np.eye(len(cosine_BB), dtype=bool)]
    figures.cosine_histogram(path, np.diag(cosine_BB), negative)


def _embed(run: Any, state: TrainState, view_BHWC: np.ndarray) -> np.ndarray:
    """Embeddings of float views, by the path that images take in evaluation."""
    image = np.round(view_BHWC * 255).clip(0, 255).astype(np.uint8)
    embed = jax.jit(
        run.objective.embed, compiler_options=compiler_options.of_what_runs_once(run.mesh)
    )
    return np.asarray(embed(state.params, state.model_state, {"image": image})["embedding"])


def _views(run: Any, image: np.ndarray) -> np.ndarray:
    key = training.stream_key(run.plan.seed, training.AUGMENT_STREAM)
    index = np.arange(len(image), dtype=np.int32)
    views = jax.jit(run.views.train, compiler_options=compiler_options.of_what_runs_once(run.mesh))
    return np.asarray(views(key, image, index))
