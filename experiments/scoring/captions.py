"""Captioned images as a kind of data: images, and what they and their captions are worth together.

Besides the scores of images, by label: retrieval from image to text and back among the test
captions, beside the untrained towers and a baseline that learns nothing, and zero-shot
classification.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from contrastive_jax import data, figures, parallel
from contrastive_jax.data import captions, glyphs
from contrastive_jax.evaluation import cross_modal, features, neighbors
from contrastive_jax.evaluation.results import Row
from contrastive_jax.types import TrainState
from experiments.run.build import Run
from experiments.scoring import images, summary
from experiments.scoring.summary import Drawing

NEIGHBORS, POWER = 20, 8  # of the baseline: training images, and how fast their weight falls
SHOWN, ANSWERS = 24, 4  # of the picture


class Gallery(NamedTuple):
    """Test images, their different captions, and what cannot be distinguished."""

    name: str
    rows: np.ndarray  # [N] images of the test set
    texts: np.ndarray  # [M] rows whose captions are all different
    correct_NM: np.ndarray  # bool: the image's own caption, or that of one equal to the byte
    strict_NM: np.ndarray  # bool: the image's own caption


def load(config: ConfigDict) -> data.Dataset:
    """Load the data of a config, which must have captions.

    Raises:
      ValueError: it has none.
    """
    dataset = images.load(config)
    if "tokens" not in dataset.train:
        raise ValueError(
            f"data.source {config.data.source!r} has images without captions; "
            "this command needs a set with captions, such as 'glyphs'"
        )
    return dataset


def stand_in(config: ConfigDict, identity: Mapping[str, Any]) -> data.Dataset:
    """Make black images with empty captions in place of a set that is known by its identity."""
    dataset = images.stand_in(config, identity)

    def captioned(examples: data.Examples) -> data.Examples:
        n = data.n_examples(examples)
        number = np.zeros(n, np.int32)
        return {**examples, "tokens": np.zeros((n, 1), np.int32), "id": number}

    return dataset._replace(
        train=captioned(dataset.train),
        test=captioned(dataset.test),
        vocabulary=tuple(identity["vocabulary"]),
    )


score = partial(
    summary.score,
    more=lambda run, trained: rows(run, trained),
    drawings=lambda run, trained: drawings(run, trained),
)


def rows(run: Run, trained: TrainState) -> list[Row]:
    """Score both towers, and what needs no training beside them."""
    found: list[Row] = []
    for representation, image_ND, text_ND in _representations(run, trained):
        for gallery in galleries(run.dataset.test):
            found += _retrieval(image_ND, text_ND, gallery, representation)
        if representation != "nearest neighbors" and run.dataset.class_names:
            found.append(_zero_shot(run, trained, representation, image_ND))
    return found


def galleries(test: data.Examples) -> list[Gallery]:
    """Choose what is searched: of glyphs the characters of a style, one seen and one not."""
    if "style" not in test:
        return [_gallery("test", test, np.arange(data.n_examples(test)))]
    wanted = ("Sans", glyphs.UNSEEN[0])
    rows = {name: test["style"] == list(glyphs.STYLES).index(name) for name in wanted}
    return [_gallery(name, test, np.flatnonzero(of)) for name, of in rows.items() if of.any()]


def _gallery(name: str, test: data.Examples, rows: np.ndarray) -> Gallery:
    id_N, twin_N = test["id"][rows], cross_modal.twins(test["image"][rows])
    _, first_M = np.unique(id_N, return_index=True)
    strict_NM = id_N[:, None] == id_N[first_M]
    return Gallery(
        name, rows, rows[first_M], strict_NM | (twin_N[:, None] == twin_N[first_M]), strict_NM
    )


def _representations(run: Run, trained: TrainState) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Embed the test images and their captions: (name, [N,D], [N,D])."""
    test = run.dataset.test
    states = {"trained": trained}
    if images.of_run(run).baselines:
        states["untrained"] = run.fresh_state()
    for name, state in states.items():
        image = images.extract(run, state, test["image"])["embedding"]
        yield name, image, embed_text(run, state, test["tokens"])
    if len(states) > 1:
        yield "nearest neighbors", *_words_of_neighbors(run.dataset)


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


def _words_of_neighbors(dataset: data.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Represent an image by the captions of the nearest training images, in pixels.

    image_i = sum_k s_ik^8 bag_k over the 20 nearest, bag the words of a caption, weighted by how
    few captions have them: what can be had without learning anything.
    """
    train, test = dataset.train, dataset.test
    size = len(dataset.vocabulary)
    with_word_W = _bags(train["tokens"], size).sum(axis=0)
    weight_W = np.log(len(train["tokens"]) / np.maximum(with_word_W, 1)).astype(np.float32)
    flat = [x["image"].reshape(len(x["image"]), -1) for x in (train, test)]
    similarity_NK, index_NK = neighbors.knn_neighbors(*flat, k=NEIGHBORS)
    bag_NW = np.zeros((len(index_NK), size), np.float32)
    for similarity_N, index_N in zip(similarity_NK.T, index_NK.T, strict=True):
        bag_NW += similarity_N[:, None] ** POWER * _bags(train["tokens"][index_N], size)
    return bag_NW * weight_W, _bags(test["tokens"], size) * weight_W


def _bags(tokens_NL: np.ndarray, size: int) -> np.ndarray:
    """Mark the words of captions, [N, W]; the padding is none."""
    bag_NW = np.zeros((len(tokens_NL), size), np.float32)
    np.put_along_axis(bag_NW, tokens_NL, 1.0, axis=1)
    bag_NW[:, captions.PAD] = 0.0
    return bag_NW


def _retrieval(
    image_ND: np.ndarray, text_ND: np.ndarray, gallery: Gallery, representation: str
) -> list[Row]:
    """Rank captions for images and images for captions."""
    image, text = image_ND[gallery.rows], text_ND[gallery.texts]
    both = gallery.correct_NM, gallery.strict_NM
    tasks = {
        "image to text": (image, text, both),
        "text to image": (text, image, tuple(correct.T for correct in both)),
    }
    found = []
    for task, (query, answers, corrects) in tasks.items():
        rank, strict = (cross_modal.ranks(query, answers, each.__getitem__) for each in corrects)
        made = cross_modal.retrieval_rows(
            rank,
            f"{task}, {gallery.name}",
            len(answers),
            representation=representation,
            twins="captions of images that are equal to the byte are all correct",
        )
        for row, k in zip(made, (*cross_modal.RECALL_AT, None), strict=True):
            values = 1 / strict if k is None else strict <= k
            found.append(row | {"without_twins": float(np.mean(values))})
    return found


def _zero_shot(run: Run, trained: TrainState, representation: str, image_ND: np.ndarray) -> Row:
    """Classify test images by the mean of the training captions of each class."""
    state = trained if representation == "trained" else run.fresh_state()
    train, test = data.labeled(run.dataset.train), run.dataset.test
    tokens_ML, first_M = np.unique(train["tokens"], axis=0, return_index=True)
    label_M, text_MD = train["label"][first_M], _unit(embed_text(run, state, tokens_ML))
    classes = np.unique(label_M)
    class_CD = _unit(np.stack([text_MD[label_M == c].mean(axis=0) for c in classes]))
    rows = galleries(test)[0].rows
    predicted_N = classes[np.argmax(_unit(image_ND[rows]) @ class_CD.T, axis=1)]
    about = {"representation": representation, "by": "their training captions"}
    return cross_modal.zero_shot_row(predicted_N, test["label"][rows], **about)


def _unit(x_ND: np.ndarray) -> np.ndarray:
    return x_ND / np.maximum(np.linalg.norm(x_ND, axis=-1, keepdims=True), 1e-12)


def drawings(run: Run, trained: TrainState) -> dict[str, Drawing]:
    """Show what each tower finds for test examples sampled at random."""

    def nearest_captions(path: Any) -> None:
        test, gallery = run.dataset.test, galleries(run.dataset.test)[0]
        order = np.random.default_rng(run.plan.seed).permutation(len(gallery.rows))[:SHOWN]
        rows = gallery.rows[order]
        z_QD = _embedding(run, trained, "image", {"image": test["image"][rows]})
        y_MD = _embedding(run, trained, "text", {"tokens": test["tokens"][gallery.texts]})
        similarity, index = neighbors.knn_neighbors(y_MD, z_QD, k=ANSWERS)
        caption_M, caption_Q = (_written(run, of) for of in (gallery.texts, rows))
        figures.nearest_captions(
            path,
            test["image"][rows],
            [[caption_M[i] for i in nearest] for nearest in index],
            similarity,
            np.take_along_axis(gallery.correct_NM[order], index, axis=1),
            caption_Q,
        )

    return {"nearest_captions": nearest_captions}


def _embedding(run: Run, state: TrainState, of: str, batch: dict[str, np.ndarray]) -> np.ndarray:
    """Embed a batch on one device, for a picture."""
    embed = jax.jit(run.objective.embed[of])
    return np.asarray(embed(state.params, state.model_state, batch)["embedding"])


def _written(run: Run, rows: np.ndarray) -> list[str]:
    tokens = run.dataset.test["tokens"][rows]
    return [captions.caption_of(each, run.dataset.vocabulary) for each in tokens]
