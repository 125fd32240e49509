"""Training pairs as arrays: their texts as tokens, their negatives, their scores."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from contrastive_jax.data.examples import Examples, Mineable
from contrastive_jax.data.groups import joined_groups
from contrastive_jax.data.text.pairs import Pair
from contrastive_jax.data.text.tokens import Tokenizer, Tokens


class Settings(NamedTuple):
    """How texts become tokens."""

    vocabulary_size: int
    query_length: int
    document_length: int
    train_length: int | None
    query_prompt: str
    document_prompt: str


class Row(NamedTuple):
    """A training example as texts."""

    query: str
    document: str
    negatives: tuple[str, ...] = ()
    score: float | None = None
    teacher: tuple[float, ...] = ()  # of the document and of each negative, or nothing


def rows_of(train: Sequence[Pair]) -> list[Row]:
    """List an example for each positive of each pair; none of them is a negative of it."""
    found = []
    for pair in train:
        kept = [i for i, text in enumerate(pair.negatives) if text not in pair.positives]
        wrong = tuple(pair.negatives[i] for i in kept)
        whole = len(pair.negative_scores) == len(pair.negatives)
        for i, document in enumerate(pair.positives):
            own = pair.positive_scores[i : i + 1] if whole else ()
            teacher = (*own, *(pair.negative_scores[i] for i in kept if own))
            found.append(Row(pair.query, document, wrong, pair.score, teacher))
    return found


class Encoded(NamedTuple):
    """Distinct texts as tokens, and which of them each row has."""

    rows: list[Row]
    query: Tokens
    document: Tokens
    query_N: np.ndarray
    document_N: np.ndarray
    place_d: dict[str, int]
    id_M: np.ndarray  # of each document


def encode(
    rows: list[Row],
    queries: list[str],
    documents: list[str],
    tokenizer: Tokenizer,
    chosen: Settings,
) -> Encoded:
    """Turn the distinct queries and documents of rows into tokens."""
    place_q = {text: place for place, text in enumerate(queries)}
    place_d = {text: place for place, text in enumerate(documents)}
    query_N = np.array([place_q[row.query] for row in rows], np.int32)
    document_N = np.array([place_d[row.document] for row in rows], np.int32)
    query = tokenizer.encode(queries, chosen.query_length, chosen.query_prompt)
    document = tokenizer.encode(documents, chosen.document_length, chosen.document_prompt)
    id_M = joined_groups(query_N, document_N, len(queries), len(documents))
    return Encoded(rows, query, document, query_N, document_N, place_d, id_M)


def examples(of: Encoded) -> dict[str, np.ndarray]:
    """Make the arrays of the pairs."""
    return {
        "query": of.query.tokens_NL[of.query_N],
        "query_length": of.query.length_N[of.query_N],
        "document": of.document.tokens_NL[of.document_N],
        "document_length": of.document.length_N[of.document_N],
        "id": of.id_M[of.document_N],
    }


def _places(of: Encoded, n_negatives: int) -> np.ndarray:
    """The documents that are the negatives of each row, the first ones; -1 for none."""
    place_NK = np.full((len(of.rows), n_negatives), -1, np.int32)
    for place_K, row in zip(place_NK, of.rows, strict=True):
        places = [of.place_d[text] for text in row.negatives[:n_negatives]]
        place_K[: len(places)] = places
    return place_NK


def negatives(of: Encoded, n_negatives: int) -> dict[str, np.ndarray]:
    """Make the arrays of the negatives of the rows."""
    place_NK = _places(of, n_negatives)
    row_NK = np.maximum(place_NK, 0)
    return {
        "negatives": of.document.tokens_NL[row_NK],
        "negatives_length": of.document.length_N[row_NK],
        "negatives_id": of.id_M[row_NK],
        "negatives_mask": place_NK >= 0,
    }


def graded(of: Encoded) -> dict[str, np.ndarray]:
    """Make the array of the scores of pairs; {} where a row has none."""
    score_N = [row.score for row in of.rows]
    return {} if None in score_N else {"score": np.array(score_N, np.float32)}


def taught(of: Encoded, n_negatives: int) -> dict[str, np.ndarray]:
    """Make the array of a teacher's scores, 0 for padding; {} where a row has none."""
    if not all(row.teacher for row in of.rows):
        return {}
    scores_NC = np.zeros((len(of.rows), 1 + n_negatives), np.float32)
    for scores_C, row in zip(scores_NC, of.rows, strict=True):
        known = row.teacher[: 1 + n_negatives]
        scores_C[: len(known)] = known
    return {"scores": scores_NC}


def guided(
    of: Encoded, query_QG: np.ndarray, document_MG: np.ndarray, train: Examples
) -> dict[str, np.ndarray]:
    """Make the arrays of a guide's vectors, of the distinct texts, for each row."""
    found = {"query_guide": query_QG[of.query_N], "document_guide": document_MG[of.document_N]}
    if "negatives" in train:
        row_NK = np.maximum(_places(of, train["negatives"].shape[1]), 0)
        found["negatives_guide"] = document_MG[row_NK]
    return found


def mineable(of: Encoded, queries: Sequence[str], n_negatives: int) -> Mineable:
    """Gather what negatives are mined from while training, and the first ones."""
    found: list[list[int]] = [[] for _ in queries]
    for query, document in zip(of.query_N, of.document_N, strict=True):
        found[query].append(document)
    positives_QP = np.full((len(queries), max(map(len, found))), -1, np.int32)
    for row_P, documents in zip(positives_QP, found, strict=True):
        row_P[: len(documents)] = documents
    own_Q = np.array([of.place_d.get(text, -1) for text in queries], np.int32)
    first_NK = _places(of, n_negatives)
    return Mineable(
        *of.query,
        *of.document,
        corpus_id=of.id_M,
        query_N=of.query_N,
        positives_QP=positives_QP,
        excluded_QE=own_Q[:, None],
        first_NK=first_NK,
    )
