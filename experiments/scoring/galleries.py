"""Retrieval across modalities: what is searched, what is found, and which part of it was learned.

Every ranking is made twice: fairly, where the answers that belong to images equal to the byte are
all correct, and strictly, where only the own one is.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from contrastive_jax import data
from contrastive_jax.data import glyphs
from contrastive_jax.evaluation import cross_modal, intervals
from contrastive_jax.evaluation.results import Row

_TEXTS = ("tokens", "captions", "n_captions")  # arrays of examples


class Gallery(NamedTuple):
    """Test images, their different captions, and what cannot be distinguished."""

    name: str
    rows: np.ndarray  # [N] images of the test set
    tokens_ML: np.ndarray  # captions, all different
    correct_NM: np.ndarray  # bool: a caption of the image, or of one that is equal to the byte
    strict_NM: np.ndarray  # bool: a caption of the image


class Ranked(NamedTuple):
    """The ranks that a representation gives to the correct answers of some queries."""

    task: str  # "image to text, Sans"
    representation: str
    gallery: int  # answers searched
    rank_N: np.ndarray
    strict_N: np.ndarray  # of the own answer alone
    n_correct_N: np.ndarray


def galleries(dataset: data.Dataset) -> list[Gallery]:
    """Choose what is searched: the test images, or those of each style; of glyphs of two styles.

    Of glyphs it is a style that training shows, and one that it does not.
    """
    test, styles = dataset.test, dataset.styles
    if not styles:
        return [gallery("test", test, np.arange(data.n_examples(test)))]
    chosen = ("Sans", glyphs.UNSEEN[0]) if is_glyphs(dataset) else styles
    rows = {name: np.flatnonzero(test["style"] == styles.index(name)) for name in chosen}
    return [gallery(name, test, of) for name, of in rows.items() if len(of)]


def is_glyphs(dataset: data.Dataset) -> bool:
    """Whether a set is that of the characters of fonts."""
    return dataset.styles == tuple(glyphs.STYLES)


def gallery(name: str, test: data.Examples, rows: np.ndarray) -> Gallery:
    """Collect the different captions of some images, and which of them are correct.

    Args:
      name: of the gallery.
      test: "image" and "tokens" [N, L], or "captions" [N, T, L] of which the first "n_captions" [N]
        are there.
      rows: the images.
    """
    texts = {name: test[name][rows] for name in _TEXTS if name in test}  # images stay on disk
    row_P, tokens_PL = listed(texts)
    unique_ML, place_P = np.unique(tokens_PL, axis=0, return_inverse=True)
    strict_NM = np.zeros((len(rows), len(unique_ML)), bool)
    strict_NM[row_P, place_P.reshape(-1)] = True
    twin_N = cross_modal.twins(test["image"][rows])
    of_twins = np.zeros((twin_N.max() + 1, len(unique_ML)), bool)
    np.logical_or.at(of_twins, twin_N, strict_NM)
    return Gallery(name, rows, unique_ML, of_twins[twin_N], strict_NM)


def listed(examples: data.Examples) -> tuple[np.ndarray, np.ndarray]:
    """List all captions of images: the row of its image, [P], and the tokens of each, [P, L].

    >>> listed({"captions": np.array([[[7], [8]], [[9], [0]]]), "n_captions": np.array([2, 1])})
    (array([0, 0, 1]), array([[7],
           [8],
           [9]]))
    """
    if "captions" not in examples:
        return np.arange(len(examples["tokens"])), examples["tokens"]
    n_N1 = examples["n_captions"][:, None]
    row_P, caption_P = np.nonzero(np.arange(examples["captions"].shape[1]) < n_N1)
    return row_P, examples["captions"][row_P, caption_P]


def rank(
    query_ND: np.ndarray,
    answer_MD: np.ndarray,
    correct_NM: np.ndarray,
    strict_NM: np.ndarray,
    *,
    task: str,
    representation: str,
) -> Ranked:
    """Rank answers for queries, fairly and strictly."""
    fair, strict = (
        cross_modal.ranks(query_ND, answer_MD, correct.__getitem__)
        for correct in (correct_NM, strict_NM)
    )
    n_correct_N = correct_NM.sum(axis=1)
    return Ranked(task, representation, len(answer_MD), fair, strict, n_correct_N)


def both_ways(
    image_ND: np.ndarray, text_MD: np.ndarray, gallery: Gallery, representation: str
) -> list[Ranked]:
    """Rank the captions of a gallery for its images, and the images for the captions."""
    correct, strict, name = gallery.correct_NM, gallery.strict_NM, gallery.name
    to_text, to_image = f"image to text, {name}", f"text to image, {name}"
    made = {"representation": representation}
    return [
        rank(image_ND, text_MD, correct, strict, task=to_text, **made),
        rank(text_MD, image_ND, correct.T, strict.T, task=to_image, **made),
    ]


def rows(found: Sequence[Ranked], baseline: str) -> list[Row]:
    """Record every ranking; the trained one beside a paired test against a baseline.

    Args:
      found: rankings, of the same queries by every representation.
      baseline: the representation that learns nothing; where it is not there, nothing is tested.
    """
    weak = {ranked.task: ranked for ranked in found if ranked.representation == baseline}
    made = []
    for ranked in found:
        against = weak.get(ranked.task) if ranked.representation == "trained" else None
        made += _rows(ranked, against)
    return made


def _rows(ranked: Ranked, against: Ranked | None) -> list[Row]:
    made = cross_modal.retrieval_rows(
        ranked.rank_N,
        ranked.task,
        ranked.gallery,
        representation=ranked.representation,
        twins="answers that belong to images equal to the byte are all correct",
    )
    for row, k in zip(made, (*cross_modal.RECALL_AT, None), strict=True):
        row["without_twins"] = float(np.mean(_values(ranked.strict_N, k)))
        if k is not None:
            row["chance"] = cross_modal.chance(ranked.n_correct_N, ranked.gallery, k)
        if against is not None:
            test = intervals.paired(_values(against.rank_N, k), _values(ranked.rank_N, k))
            row["paired"] = {"against": against.representation, **intervals.record(test)}
    return made


def _values(rank_N: np.ndarray, k: int | None) -> np.ndarray:
    """The value of each query: whether it is within the first k, or 1 / rank."""
    return 1 / rank_N if k is None else rank_N <= k
