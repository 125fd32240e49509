"""The pictures of a run, from its metrics and its features. One that fails costs no other."""

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from contrastive_jax import figures, training
from contrastive_jax.evaluation import neighbors, protocols
from contrastive_jax.storage import jsonl
from contrastive_jax.training import compiler_options
from contrastive_jax.types import TrainState
from experiments.run.build import Run
from experiments.scoring import images, summary

Features = Mapping[str, np.ndarray]
Drawing = Callable[[Path], Any]
GRID, QUERIES, NEIGHBORS, PAIRS, MAPPED = 8, 12, 6, 1000, 400


def draw(
    run: Run,
    state: TrainState,
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    trained: tuple[Features, Features],
    more: Mapping[str, Drawing],
) -> None:
    """Draw every picture of a scored run into its folder `figures`.

    Args:
      run: that was scored.
      state: its trained state.
      folder: the workdir.
      rows: the evaluations of the summary.
      trained: features of the searched training images and of the test images.
      more: what this kind of data adds, by name.
    """
    drawings: dict[str, Drawing] = {
        "views": partial(_draw_views, run),
        "cosines": partial(_draw_cosines, run, state),
        "curves": partial(_draw_curves, folder),
        "neighbors": partial(_draw_neighbors, run, trained),
    }
    accuracies = [row for row in rows if row["measure"] == "accuracy"]
    if accuracies:
        drawings["scores"] = lambda path: figures.score_bars(path, accuracies, protocols.label)
    for layer in trained[1]:
        drawings[f"map_{layer}"] = partial(_draw_map, run, trained[1][layer])
    if "label" not in run.dataset.test:  # gray points say nothing
        drawings["map_images"] = partial(_draw_image_map, run, trained)
    draw_all({**drawings, **more}, folder)


def draw_all(drawings: Mapping[str, Drawing], folder: Path) -> None:
    """Draw into the folder `figures` of a run; what cannot be drawn is a warning that names it."""
    out = folder / "figures"
    for name, drawing in drawings.items():
        try:
            out.mkdir(exist_ok=True)
            drawing(out / f"{name}.png")
        except Exception as error:  # fonts, backends, codecs, odd data: the scores are kept
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            print(f"warning: the picture {name}.png was not drawn ({reason})", file=sys.stderr)


def _draw_views(run: Run, path: Path) -> None:
    shown = run.dataset.train["image"][:GRID]
    label = run.dataset.train.get("label", np.full(len(shown), -1))[:GRID]
    figures.views_grid(path, shown, _views(run, shown), _class_names(run, label))


def _draw_cosines(run: Run, state: TrainState, path: Path) -> None:
    """Cosines of positive pairs (two views of one image) and of negative pairs."""
    view_BVHWC = _views(run, run.dataset.train["image"][:PAIRS])
    z_BVD = np.stack([_embed(run, state, view_BVHWC[:, v]) for v in (0, 1)], axis=1)
    unit = z_BVD / np.maximum(np.linalg.norm(z_BVD, axis=-1, keepdims=True), 1e-12)
    cosine_BB = unit[:, 0] @ unit[:, 1].T
    negative = cosine_BB[~np.eye(len(cosine_BB), dtype=bool)]
    figures.cosine_histogram(path, np.diag(cosine_BB), negative)


def _draw_curves(folder: Path, path: Path) -> None:
    figures.curves(path, {"run": jsonl.read_jsonl(folder / "metrics.jsonl")})


def _draw_map(run: Run, z: np.ndarray, path: Path) -> None:
    label = run.dataset.test.get("label")
    figures.embedding_map(path, z, label, run.dataset.class_names, seed=run.plan.seed)


def _draw_image_map(run: Run, trained: tuple[Features, Features], path: Path) -> None:
    """Place training and test images by their features, a sample of each."""
    rng, parts = np.random.default_rng(run.plan.seed), []
    for split, h in zip((summary.searched_images(run), run.dataset.test), trained, strict=True):
        rows = np.sort(rng.permutation(len(h["features"]))[:MAPPED])
        parts.append((h["features"][rows], split["image"][rows]))
    features, image = map(np.concatenate, zip(*parts, strict=True))
    figures.image_map(path, features, image, seed=run.plan.seed)


def _draw_neighbors(run: Run, trained: tuple[Features, Features], path: Path) -> None:
    bank, test = summary.searched_images(run), run.dataset.test
    h_bank, h_test = trained[0]["features"], trained[1]["features"]
    chosen = np.unique(np.linspace(0, len(h_test) - 1, QUERIES).astype(int))
    similarity, index = neighbors.knn_neighbors(h_bank, h_test[chosen], k=NEIGHBORS)
    unknown = np.full(max(len(h_bank), len(h_test)), -1)
    figures.neighbors(
        path,
        test["image"][chosen],
        bank["image"][index],
        test.get("label", unknown)[chosen],
        bank.get("label", unknown)[index],
        run.dataset.class_names,
        similarity,
    )


def _class_names(run: Run, label_N: np.ndarray) -> list[str]:
    names = run.dataset.class_names
    return [names[label] if 0 <= label < len(names) else "" for label in label_N]


def _embed(run: Run, state: TrainState, view_BHWC: np.ndarray) -> np.ndarray:
    """Embeddings of float views."""
    options = compiler_options.for_single_use(run.mesh)
    embed = jax.jit(run.objective.embed["image"], compiler_options=options)
    return np.asarray(embed(state.params, state.model_state, {"image": view_BHWC})["embedding"])


def _views(run: Run, image: np.ndarray) -> np.ndarray:
    """Views [N, V, H, W, C] in float32 of images of the data set."""
    key = training.stream_key(run.plan.seed, training.AUGMENT_STREAM)
    index = np.arange(len(image), dtype=np.int32)
    options = compiler_options.for_single_use(run.mesh)
    return np.asarray(
        jax.jit(images.views(run.config).train, compiler_options=options)(key, image, index)
    )
