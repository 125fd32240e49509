"""Score retrieval across two modalities: which caption belongs to an image, and the other way.

For a query i with the correct answers C(i) in a gallery, ranked by cosine similarity:

    rank_i = 1 + |{j not in C(i): s_ij > s_i*}| + |{j not in C(i): s_ij = s_i*}| / 2

s_i* being the similarity of the nearest correct answer: half of those exactly level with it count
as before it. recall@k is the fraction of queries with rank_i <= k; Radford et al. 2021 (CLIP, arXiv
2103.00020), section 3.1 and table 13.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from contrastive_jax.evaluation import intervals
from contrastive_jax.evaluation.results import Row, accuracy_row

RECALL_AT = (1, 5, 10)
_QUERIES_AT_ONCE = 1024
_DECIMALS = 9  # a product may be rounded differently from one column to the next


def ranks(
    query_ND: np.ndarray, gallery_MD: np.ndarray, correct: Callable[[slice], np.ndarray]
) -> np.ndarray:
    """Rank the nearest correct answer of each query, from 1, in blocks of queries.

    Args:
      query_ND: embeddings, any float dtype.
      gallery_MD: embeddings of what is searched.
      correct: a slice of n queries to [n, M] bool: which answers are right. Where two things cannot
        be distinguished, both are.

    Returns:
      [N] float64; with ties a half may be in it.

    Raises:
      ValueError: shapes that do not fit, or a query without a correct answer.

    >>> ranks(np.eye(3), np.eye(3)[[1, 0, 2]], lambda rows: np.eye(3, dtype=bool)[rows])
    array([2.5, 2.5, 1. ])
    """
    if query_ND.ndim != 2 or gallery_MD.ndim != 2 or query_ND.shape[1] != gallery_MD.shape[1]:
        raise ValueError(
            f"queries [N, D] and gallery [M, D] must share D, got {query_ND.shape} and "
            f"{gallery_MD.shape}"
        )
    query_ND, gallery_MD = _unit(query_ND), _unit(gallery_MD)
    found = [np.zeros(0)]
    for start in range(0, len(query_ND), _QUERIES_AT_ONCE):
        rows = slice(start, min(start + _QUERIES_AT_ONCE, len(query_ND)))
        similarity_QM = np.round(query_ND[rows] @ gallery_MD.T, _DECIMALS)
        found.append(_ranks(similarity_QM, correct(rows), start))
    return np.concatenate(found)


def _ranks(similarity_QM: np.ndarray, correct_QM: np.ndarray, start: int) -> np.ndarray:
    unanswerable = np.flatnonzero(~correct_QM.any(axis=1))
    if len(unanswerable):
        raise ValueError(f"query {start + unanswerable[0]} has no correct answer in the gallery")
    best_Q1 = np.max(similarity_QM, axis=1, keepdims=True, where=correct_QM, initial=-np.inf)
    above_Q = np.sum((similarity_QM > best_Q1) & ~correct_QM, axis=1)
    level_Q = np.sum((similarity_QM == best_Q1) & ~correct_QM, axis=1)
    return 1 + above_Q + level_Q / 2


def chance(n_correct_N: np.ndarray, gallery: int, k: int) -> float:
    """Compute the recall@k of answers in a random order: the mean of 1 - C(M - c, k) / C(M, k).

    Args:
      n_correct_N: c, how many of the M answers are correct for each query.
      gallery: M.
      k: of the recall.

    >>> round(chance(np.array([1, 2]), 4, 2), 4)  # 1/2 and 5/6
    0.6667
    """
    t_K = np.arange(min(k, gallery))
    wrong_NK = np.maximum(gallery - np.asarray(n_correct_N)[:, None] - t_K, 0)
    return float(np.mean(1 - np.prod(wrong_NK / (gallery - t_K), axis=1)))


def retrieval_rows(
    rank_N: np.ndarray, task: str, gallery: int, *, representation: str, **protocol: Any
) -> list[Row]:
    """Record recall@1, 5 and 10 with Wilson intervals, and the mean reciprocal rank.

    Args:
      rank_N: of `ranks`.
      task: such as "image to text".
      gallery: how many answers were searched.
      representation: whose embeddings they are.
      protocol: what else the record should say.

    >>> rows = retrieval_rows(np.array([1.0, 2.0]), "image to text", 9, representation="trained")
    >>> [(row["measure"], row["value"]) for row in rows]
    [('recall@1', 0.5), ('recall@5', 1.0), ('recall@10', 1.0), ('MRR', 0.75)]
    """
    about = {"name": "cross-modal", "task": task, "gallery": gallery, "metric": "cosine"}
    about |= {"ties": "half of those level with the correct answer count as before it", **protocol}

    def row(measure: str, value_N: np.ndarray) -> Row:
        recorded = {**about, "measure": measure}
        found = accuracy_row(value_N, recorded, representation, "embedding", "test")
        return found | {"measure": measure}

    mean = intervals.bootstrap(1 / rank_N)
    method = f"percentile bootstrap, {mean.resamples} resamples, seed {mean.seed}"
    last = {"ci95": [mean.low, mean.high], "ci95_method": method}
    last["median_rank"] = float(np.median(rank_N))
    recalls = [row(f"recall@{k}", rank_N <= k) for k in RECALL_AT]
    return [*recalls, row("MRR", 1 / rank_N) | last]


def zero_shot_row(
    predicted_N: np.ndarray,
    label_N: np.ndarray,
    *,
    representation: str,
    candidates: int | None = None,
    **protocol: Any,
) -> Row:
    """Record the balanced accuracy of zero-shot predictions: each class weighs the same.

        value = mean_c p_c,   variance = sum_c p_c (1 - p_c) / n_c / C^2

    p_c being the accuracy of the n_c examples of class c.

    Args:
      predicted_N, label_N: classes.
      representation: whose embeddings they are.
      candidates: how many classes were to choose from, for the score of guessing; None: those that
        occur in `label_N`.
      protocol: what else the record should say.

    >>> row = zero_shot_row(np.array([0, 0, 1]), np.array([0, 0, 2]), representation="trained")
    >>> row["measure"], row["value"], row["chance"]
    ('balanced accuracy', 0.5, 0.5)
    """
    classes, n_C = np.unique(label_N, return_counts=True)
    p_C = np.array([np.mean(predicted_N[label_N == c] == c) for c in classes])
    half = 1.96 * float(np.sqrt(np.sum(p_C * (1 - p_C) / n_C))) / len(classes)
    about = {"name": "zero-shot", "classes": len(classes), **protocol}
    row = accuracy_row(predicted_N == label_N, about, representation, "embedding", "test")
    value = float(p_C.mean())
    interval = [max(0.0, value - half), min(1.0, value + half)]
    row |= {"measure": "balanced accuracy", "value": value, "accuracy": row["value"]}
    row["chance"] = 1 / (candidates or len(classes))
    return row | {"ci95": interval, "ci95_method": "normal, stratified by class"}


def prompt_vectors(
    embed: Callable[[Sequence[str]], np.ndarray], names: Sequence[str], prompts: Sequence[str]
) -> np.ndarray:
    """Make the zero-shot classifier of some classes: the mean of the unit vectors of its prompts.

        w_c = unit( mean_p unit( embed(p with the name of c in place of {}) ) )

    Args:
      embed: texts to [n, D].
      names: of the C classes.
      prompts: templates, each with a {}.

    Returns:
      [C, D] float64 of length one; a class is predicted by the largest product with an image.

    Raises:
      ValueError: a prompt without a slot for the name.

    >>> embed = lambda texts: np.array([[len(text), 1.0] for text in texts])
    >>> prompt_vectors(embed, ["cat", "horse"], ["a {}"]).shape
    (2, 2)

    Radford et al. 2021 (CLIP), section 3.1.4.
    """
    for prompt in prompts:
        if "{}" not in prompt:
            raise ValueError(f"the prompt {prompt!r} has no {{}} for the name of a class; add one")
    texts = [prompt.replace("{}", name) for name in names for prompt in prompts]
    each_CPD = _unit(embed(texts)).reshape(len(names), len(prompts), -1)
    return _unit(each_CPD.mean(axis=1))


def classify_by_captions(
    image_ND: np.ndarray, text_MD: np.ndarray, label_M: np.ndarray, temperature: float = 0.07
) -> np.ndarray:
    """Classify images by captions with classes: an ensemble of them in the space of probabilities.

        argmax_c mean_{m: label_m = c} exp( cos(image_n, text_m) / temperature )

    A class of many kinds of things has no one direction that its captions share, which their mean
    vector would need.

    Args:
      image_ND: embeddings.
      text_MD: of captions.
      label_M: their classes.
      temperature: the lower, the more the nearest captions count.

    Returns:
      [N] classes.

    >>> label = np.array([3, 3, 5])
    >>> classify_by_captions(np.eye(3), np.eye(3), label).tolist()
    [3, 3, 5]

    Radford et al. 2021 (CLIP), section 3.1.4, compares ensembles of both kinds.
    """
    text_MD, classes = _unit(text_MD), np.unique(label_M)
    found = [np.zeros(0, classes.dtype)]
    for start in range(0, len(image_ND), _QUERIES_AT_ONCE):
        image_QD = _unit(image_ND[start : start + _QUERIES_AT_ONCE])
        likely_QM = np.exp((image_QD @ text_MD.T - 1) / temperature)
        mean_QC = np.stack([likely_QM[:, label_M == c].mean(axis=1) for c in classes], axis=1)
        found.append(classes[np.argmax(mean_QC, axis=1)])
    return np.concatenate(found)


def twins(image_NHWC: np.ndarray) -> np.ndarray:
    """Number images so that those which are equal to the byte have the same number, [N] int32.

    >>> twins(np.array([[1, 2], [3, 4], [1, 2]], np.uint8)[:, :, None, None])
    array([0, 1, 0], dtype=int32)
    """
    number: dict[bytes, int] = {}
    found = [number.setdefault(image.tobytes(), len(number)) for image in image_NHWC]
    return np.array(found, np.int32)


def _unit(x_ND: np.ndarray) -> np.ndarray:
    x_ND = np.asarray(x_ND, np.float64)
    length_N1 = np.linalg.norm(x_ND, axis=-1, keepdims=True)
    return x_ND / np.where(length_N1 > 0, length_N1, 1.0)
