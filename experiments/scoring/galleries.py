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


class Gallery(NamedTuple):
    """Test images, their different captions, and what cannot be distinguished."""

    name: str
    rows: np.ndarray  # [N] images of the test set
    texts: np.ndarray  # [M] rows whose captions are all different
    correct_NM: np.ndarray  # bool: the image's own caption, or that of one equal to the byte
    strict_NM: np.ndarray  # bool: the image's own caption


class Ranked(NamedTuple):
    """The ranks that a representation gives to the correct answers of some queries."""

    task: str  # "image to text, Sans"
    representation: str
    gallery: int  # answers searched
    rank_N: np.ndarray
    strict_N: np.ndarray  # of the own answer alone
    n_correct_N: np.ndarray


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
    image_ND: np.ndarray, text_ND: np.ndarray, gallery: Gallery, representation: str
) -> list[Ranked]:
    """Rank captions for the images of a gallery, and images for its captions."""
    image, text = image_ND[gallery.rows], text_ND[gallery.texts]
    correct, strict, name = gallery.correct_NM, gallery.strict_NM, gallery.name
    made = {"representation": representation}
    return [
        rank(image, text, correct, strict, task=f"image to text, {name}", **made),
        rank(text, image, correct.T, strict.T, task=f"text to image, {name}", **made),
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
