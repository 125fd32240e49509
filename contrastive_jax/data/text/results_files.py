"""Read what a system found: a TREC run file, or the vectors of queries and documents."""

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from contrastive_jax.data._errors import first_line
from contrastive_jax.data.text import rows
from contrastive_jax.errors import DataError


class Vectors(NamedTuple):
    """Vectors of every query and every document of a collection, in its order."""

    query: np.ndarray  # [Q, D] float32
    document: np.ndarray  # [N, D] float32


def read_trec(path: Path, queries: Iterable[str]) -> dict[str, dict[str, float]]:
    """Read a run file, `query Q0 document rank score name` a line; the score decides, not the rank.

    Raises:
      DataError: as `rows.read`; a document that is there twice for a query; none of the queries.
    """
    found: dict[str, dict[str, float]] = {}
    for number, (query, document, value) in rows.read(path, _ranked):
        if document in found.setdefault(query, {}):
            raise DataError(
                f"{path}, line {number}: document {document!r} is there twice for query {query!r}\n"
                "Keep one of the lines."
            )
        found[query][document] = value
    if not found.keys() & set(queries):
        raise DataError(f"{path} has none of the queries, but {[*found][:3]}.\nCompare their ids.")
    return found


def _ranked(line: str) -> tuple[str, str, float]:
    cells = line.split()
    if len(cells) != 6:
        raise ValueError(f"{len(cells)} columns, not 6")
    try:
        value = float(cells[4])
    except ValueError:
        value = np.nan
    if np.isnan(value):
        raise ValueError(f"the score {cells[4]!r} is not a number")
    return cells[0], cells[2], value


def read_vectors(path: Path, queries: Mapping[str, str], documents: Mapping[str, str]) -> Vectors:
    """Read an .npz with `query_id` [Q], `query` [Q, D], `document_id` [N], `document` [N, D].

    It may hold more rows than those that are wanted, in any order.

    Raises:
      DataError: an array that is missing, of another shape or not finite; an id that is there
        twice; a query or document without a vector.
    """
    try:
        with path.open("rb") as file:
            arrays = np.load(file, allow_pickle=False)
            arrays = {} if isinstance(arrays, np.ndarray) else dict(arrays)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        why = first_line(error)
        raise DataError(f"{path} is no whole .npz: {why}\nGive one of arrays.") from error
    found = Vectors(
        _rows(path, arrays, "query", list(queries)),
        _rows(path, arrays, "document", list(documents)),
    )
    if found.query.shape[1] != found.document.shape[1]:
        sizes = f"{found.query.shape[1]} and {found.document.shape[1]}"
        raise DataError(
            f"{path}: queries and documents have {sizes} dimensions\nGive both as many."
        )
    return found


def _rows(path: Path, arrays: Mapping[str, np.ndarray], side: str, wanted: list[str]) -> np.ndarray:
    lacking = {side, f"{side}_id"} - set(arrays)
    if lacking:
        has = ", ".join(sorted(arrays)) or "nothing"
        raise DataError(f"{path} lacks {', '.join(sorted(lacking))}; it has {has}\nAdd it.")
    x_ND, ids = arrays[side], [str(key) for key in arrays[f"{side}_id"].ravel()]
    if x_ND.ndim != 2 or not x_ND.size or len(x_ND) != len(ids) or x_ND.dtype.kind not in "fiu":
        shape = f"{x_ND.dtype} {x_ND.shape} with {len(ids)} ids"
        raise DataError(f"{path}: {side} is {shape}\nGive numbers, one row an id.")
    place = {key: row for row, key in enumerate(ids)}
    lost = [key for key in wanted if key not in place]
    if len(place) < len(ids) or lost:
        repeated = f"{len(ids) - len(place)} ids are there twice, {len(lost)} have no vector"
        raise DataError(f"{path}, {side}: {repeated} {lost[:3]}\nGive one vector an id.")
    chosen = np.asarray(x_ND[[place[key] for key in wanted]], np.float32)
    bad = np.flatnonzero(~np.isfinite(chosen).all(axis=1))
    if len(bad):
        first = wanted[bad[0]]
        raise DataError(
            f"{path}: {len(bad)} vectors of {side} are not finite, the first is {first!r}\n"
            "Compute them again."
        )
    return chosen
