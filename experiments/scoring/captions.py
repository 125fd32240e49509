"""Captioned images as a kind of data: images, and what they and their captions are worth together.

Besides the scores of images, by label: retrieval from image to text and back among the test
captions, beside the untrained towers and a baseline that learns nothing, and zero-shot
classification.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from contrastive_jax import data, parallel
from contrastive_jax.data import captions
from contrastive_jax.evaluation import cross_modal, features, neighbors
from contrastive_jax.evaluation.results import Row
from contrastive_jax.types import TrainState
from experiments.run.build import Run
from experiments.scoring import (
    caption_pictures,
    caption_words,
    galleries,
    glyph_scores,
    images,
    summary,
)
from experiments.scoring.galleries import Ranked

WITHOUT_LABELS = (  # in one line
    "the data has no labels: retrieval is scored; neighbors, probes and zero-shot classes are not"
)
NEAREST = "nearest neighbors"  # the baseline
NEIGHBORS, POWER = 20, 8  # of it: training images, and how fast their weight falls


def load(config: ConfigDict) -> data.Dataset:
    """Load the data of a config, which must have captions.

    Raises:
      ValueError: it has none.
    """
    dataset = images.load(config)
    if "tokens" not in dataset.train:
        raise ValueError(
            f"data.source {config.data.source!r} has images without captions; give a set with "
            "captions, such as 'glyphs', or data.prompts to one with labels"
        )
    return dataset


def stand_in(config: ConfigDict, identity: Mapping[str, Any]) -> data.Dataset:
    """Make black images with empty captions in place of a set that is known by its identity."""
    dataset, context = images.stand_in(config, identity), config.data.context

    def captioned(examples: data.Examples) -> data.Examples:
        n = data.n_examples(examples)
        empty = {"tokens": (n, context), "captions": (n, 1, context), "id": (n,)}
        texts = {name: np.broadcast_to(np.int32(0), shape) for name, shape in empty.items()}
        return {**examples, **texts, "n_captions": np.broadcast_to(np.int32(1), n)}

    train = captioned(dataset.train)
    streamed = {name: x for name, x in train.items() if name not in ("image", "label")}
    return dataset._replace(
        train=train,
        test=captioned(dataset.test),
        vocabulary=tuple(identity["vocabulary"]),
        captions=streamed if dataset.stream is not None else None,
    )


score = partial(
    summary.score,
    more=lambda run, trained: rows(run, trained),
    drawings=lambda run, trained: caption_pictures.drawings(run, trained),
)


def rows(run: Run, trained: TrainState) -> list[Row]:
    """Score both towers, and what needs no training beside them."""
    of_glyphs, zero_shot = galleries.is_glyphs(run.dataset), []
    images_of = {name: _images(run, state) for name, state in states(run, trained).items()}
    for representation, state in states(run, trained).items():
        image_ND = images_of[representation]
        if run.dataset.class_names:
            zero_shot.append(_by_captions(run, state, representation, image_ND))
        if of_glyphs:
            in_scripts = partial(glyph_scores.in_scripts, run.dataset)
            about = (run, state, representation, image_ND, in_scripts)
            zero_shot.append(_by_captions(*about, task="script"))
            embed = partial(embed_texts, run, state)
            zero_shot.append(glyph_scores.small_or_capital(embed, run, image_ND, representation))
    more = glyph_scores.across_styles(run, trained) if of_glyphs else []
    return [*retrieval_rows(run, trained, images_of), *more, *filter(None, zero_shot)]


def retrieval_rows(
    run: Run, trained: TrainState, images_of: Mapping[str, np.ndarray] | None = None
) -> list[Row]:
    """Score retrieval from image to text and back.

    Args:
      run: whose test images are scored.
      trained: its state.
      images_of: embeddings of all test images by representation, where they are known.
    """
    ranked: list[Ranked] = []
    for name, state in states(run, trained).items():
        image_ND = _images(run, state) if images_of is None else images_of[name]
        for gallery in galleries.galleries(run.dataset):
            text_MD = embed_text(run, state, gallery.tokens_ML)
            ranked += galleries.both_ways(image_ND[gallery.rows], text_MD, gallery, name)
    if images.of_run(run).baselines:
        ranked += _by_neighbors(run.dataset)
    return galleries.rows(ranked, NEAREST)


def _images(run: Run, state: TrainState) -> np.ndarray:
    return images.extract(run, state, run.dataset.test["image"])["embedding"]


def states(run: Run, trained: TrainState) -> dict[str, TrainState]:
    """What is scored, by the name of the representation: trained, and untrained as a baseline."""
    baselines = images.of_run(run).baselines
    return {"trained": trained} | ({"untrained": run.fresh_state()} if baselines else {})


def embed_texts(run: Run, state: TrainState, texts: Sequence[str]) -> np.ndarray:
    """Embed texts, [N,D]."""
    return embed_text(run, state, caption_words.tokens(run.dataset, texts, run.config.data.context))


def embed_text(run: Run, state: TrainState, tokens_NL: np.ndarray) -> np.ndarray:
    """Embed captions, [N,D]; equal ones once."""
    unique_ML, place_N = np.unique(tokens_NL, axis=0, return_inverse=True)
    devices = run.mesh.devices.size
    found = features.extract(
        run.objective.embed["text"],
        state.params,
        state.model_state,
        {"tokens": unique_ML},
        batch_size=-(-min(1000, len(unique_ML)) // devices) * devices,
        shard=lambda batch: parallel.put_batch(batch, run.mesh),
        out_sharding=parallel.replicated(run.mesh),
    )
    return found["embedding"][place_N.reshape(-1)]


def _by_neighbors(dataset: data.Dataset) -> list[Ranked]:
    """Rank by the captions of the nearest training images, in pixels.

    image_i = sum_k s_ik^8 bag_k over the 20 nearest, bag the words of a caption, weighted by how
    few captions have them: what can be had without learning anything.
    """
    train, size = dataset.train, len(dataset.vocabulary)
    with_word_W = _texts_with_each(train["tokens"], size)
    weight_W = np.log(len(train["tokens"]) / np.maximum(with_word_W, 1)).astype(np.float32)
    found = []
    [known_ND] = images.pixels(train["image"]).values()
    for gallery in galleries.galleries(dataset):
        [asked_ND] = images.pixels(dataset.test["image"][gallery.rows]).values()
        flat = known_ND, asked_ND
        similarity_NK, index_NK = neighbors.knn_neighbors(*flat, k=min(NEIGHBORS, len(flat[0])))
        bag_NW = np.zeros((len(index_NK), size), np.float32)
        for similarity_N, index_N in zip(similarity_NK.T, index_NK.T, strict=True):
            bag_NW += similarity_N[:, None] ** POWER * _bags(train["tokens"][index_N], size)
        text_MW = _bags(gallery.tokens_ML, size) * weight_W
        found += galleries.both_ways(bag_NW * weight_W, text_MW, gallery, NEAREST)
    return found


def _texts_with_each(tokens_NL: np.ndarray, size: int) -> np.ndarray:
    """Count the captions that have each word, [W]."""
    ordered_NL = np.sort(tokens_NL, axis=1)
    first_NL = np.ones(ordered_NL.shape, bool)
    first_NL[:, 1:] = ordered_NL[:, 1:] != ordered_NL[:, :-1]
    with_word_W = np.bincount(ordered_NL[first_NL], minlength=size)
    with_word_W[captions.PAD] = 0
    return with_word_W


def _bags(tokens_NL: np.ndarray, size: int) -> np.ndarray:
    """Mark the words of captions, [N, W]; the padding is none."""
    bag_NW = np.zeros((len(tokens_NL), size), np.float32)
    np.put_along_axis(bag_NW, tokens_NL, 1.0, axis=1)
    bag_NW[:, captions.PAD] = 0.0
    return bag_NW


def _by_captions(
    run: Run,
    state: TrainState,
    representation: str,
    image_ND: np.ndarray,
    chosen: Callable[[data.Examples], np.ndarray] | None = None,
    **task: str,
) -> Row | None:
    """Classify the images of the first gallery by the training captions of each class.

    Args:
      run: whose test images are classified.
      state: of its encoders.
      representation: the name of the state.
      image_ND: embeddings of the test images.
      chosen: marks the examples that it is about; None: all.
      task: {"task": name}, where it is not about all.

    Returns:
      None where there is nothing to classify, or by.
    """
    train, test = data.labeled(run.dataset.train), run.dataset.test
    rows = galleries.galleries(run.dataset)[0].rows
    if chosen is not None:
        train, rows = data.take(train, chosen(train)), rows[chosen(data.take(test, rows))]
    if not len(train["label"]) or not len(rows):
        return None
    row_P, tokens_PL = galleries.listed(train)
    tokens_ML, first_M = np.unique(tokens_PL, axis=0, return_index=True)
    label_M, text_MD = train["label"][row_P[first_M]], embed_text(run, state, tokens_ML)
    predicted_N = cross_modal.classify_by_captions(image_ND[rows], text_MD, label_M)
    about = {"by": "their training captions", "candidates": len(np.unique(label_M)), **task}
    found = test["label"][rows]
    return cross_modal.zero_shot_row(predicted_N, found, representation=representation, **about)
