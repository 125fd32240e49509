"""The pictures of captioned images: what each tower finds in the other, and both in one map."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from contrastive_jax import figures
from contrastive_jax.evaluation import features, neighbors
from contrastive_jax.types import TrainState
from experiments.run.build import Run
from experiments.scoring import caption_words, galleries, glyph_pictures
from experiments.scoring.galleries import Gallery
from experiments.scoring.summary import Drawing

SHOWN, ANSWERS = 24, 4  # images, and captions of each
ASKED, FOUND = 10, 8  # captions, and images of each
MOST = 1000  # images that are embedded for a picture; what is embedded at once


def drawings(run: Run, trained: TrainState) -> dict[str, Drawing]:
    """Show what each tower finds for test examples sampled at random."""
    gallery = galleries.galleries(run.dataset)[0]
    order = np.random.default_rng(run.plan.seed).permutation(len(gallery.rows))
    embed = partial(embedding, run, trained)
    made = {
        "nearest_captions": partial(_nearest_captions, run, embed, gallery, order),
        "nearest_images": partial(_nearest_images, run, embed, gallery, order),
        "modalities": partial(_modalities, run, embed, gallery, order),
    }
    return made | (glyph_pictures.drawings(run, embed) if galleries.is_glyphs(run.dataset) else {})


def embedding(run: Run, state: TrainState, of: str, array: Any) -> np.ndarray:
    """Embed an array of images, or of the tokens of "text", on one device, for a picture."""
    embed, arrays = run.objective.embed[of], {"image" if of == "image" else "tokens": array}
    size = min(MOST, len(array))
    found = features.extract(embed, state.params, state.model_state, arrays, batch_size=size)
    return found["embedding"]


def _nearest_captions(
    run: Run, embed: Any, gallery: Gallery, order: np.ndarray, path: Path
) -> None:
    test, chosen = run.dataset.test, order[:SHOWN]
    rows = gallery.rows[chosen]
    z_QD, y_MD = embed("image", test["image"][rows]), embed("text", gallery.tokens_ML)
    similarity, index = neighbors.knn_neighbors(y_MD, z_QD, k=ANSWERS)
    caption_M, caption_Q = (
        caption_words.written(run.dataset, of) for of in (gallery.tokens_ML, test["tokens"][rows])
    )
    figures.nearest_captions(
        path,
        test["image"][rows],
        [[caption_M[i] for i in nearest] for nearest in index],
        similarity,
        np.take_along_axis(gallery.correct_NM[chosen], index, axis=1),
        caption_Q,
    )


def _nearest_images(run: Run, embed: Any, gallery: Gallery, order: np.ndarray, path: Path) -> None:
    test, searched = run.dataset.test, np.sort(order[:MOST])
    answerable = np.flatnonzero(gallery.correct_NM[searched].any(axis=0))
    chosen = np.random.default_rng(run.plan.seed).permutation(answerable)[:ASKED]
    image, tokens = test["image"][gallery.rows[searched]], gallery.tokens_ML[chosen]
    z_ND, y_QD = embed("image", image), embed("text", tokens)
    _, index_QK = neighbors.knn_neighbors(z_ND, y_QD, k=FOUND)
    correct_QN = gallery.correct_NM[searched][:, chosen].T
    right = np.take_along_axis(correct_QN, index_QK, axis=1)
    title = (
        f"Captions, sampled at random, and the nearest of {len(image):,} test images\n"
        f"✓ a correct one: first for {int(right[:, 0].sum())} of {len(right)}"
    )
    marked = [[bool(each) or None for each in row] for row in right]
    found = [[image[i] for i in row] for row in index_QK]
    figures.image_grid(path, found, caption_words.written(run.dataset, tokens), [], marked, title)


def _modalities(run: Run, embed: Any, gallery: Gallery, order: np.ndarray, path: Path) -> None:
    test, rows = run.dataset.test, gallery.rows[order[:MOST]]
    z_ND, y_ND = embed("image", test["image"][rows]), embed("text", test["tokens"][rows])
    label = test["label"][rows] if "label" in test else None
    figures.modality_map(path, z_ND, y_ND, label, run.dataset.class_names, seed=run.plan.seed)
