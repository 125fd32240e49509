"""StaticEmbedding: word vectors whose mean is a text's vector, as an `encoders.bag`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from contrastive_jax.sentence_folder import _files

FOLDER = "0_StaticEmbedding"  # where 3.2, the first version that has it, writes it
TABLE = "embedding.weight"
_OTHER_NAME = "embeddings"  # of model2vec
UNLIMITED = 2**20  # tokens of a text, where the tokenizer says nothing


def settings(path: Path, normalize: bool) -> dict[str, Any]:
    """Find the settings of `encoders.bag.make` for a file of tensors; only shapes are read.

    Raises:
      DataError: the file is missing or damaged, or holds another tensor.
    """
    shapes = _files.shapes(path)
    name = _OTHER_NAME if _OTHER_NAME in shapes else TABLE
    others = sorted(set(shapes) - {name})
    if name not in shapes or len(shapes[name]) != 2 or others:
        _files.refuse(path, f"it has {shapes}", f"Supported is one table, {TABLE}.")
    n_tokens, dim = shapes[name]
    scale = "unit" if normalize else "mean"
    return {"n_tokens": n_tokens, "dim": dim, "repeats": 1.0, "scale": scale}


def params(path: Path) -> dict[str, Any]:
    """Read the parameters of the bag: the table, and a weight of 1 for each token."""
    [table] = _files.tensors(path).values()
    table = np.ascontiguousarray(table, np.float32)
    return {"weight": np.ones(len(table), np.float32), "embedding": {"embedding": table}}


def tensors(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Multiply the weights into the table; a weight of 1 leaves its row as it is."""
    table = np.asarray(params["embedding"]["embedding"])
    return {TABLE: np.asarray(params["weight"])[:, None] * table}


def without_special_tokens(tokenizer_json: str) -> str:
    """Take out what adds special tokens, which StaticEmbedding leaves out.

    >>> without_special_tokens('{"post_processor": {"type": "BertProcessing"}}')
    '{"post_processor": null}'
    """
    return json.dumps({**json.loads(tokenizer_json), "post_processor": None}, ensure_ascii=False)


def max_length(tokenizer_json: str) -> int:
    """Read where the tokenizer cuts a text."""
    return (json.loads(tokenizer_json).get("truncation") or {}).get("max_length", UNLIMITED)


def cut_at(tokenizer_json: str, max_length: int) -> str:
    """Have a tokenizer cut texts; there is no other file that would say so."""
    limit = {"direction": "Right", "max_length": max_length, "strategy": "LongestFirst"}
    limit = None if max_length >= UNLIMITED else {**limit, "stride": 0}
    kept = json.loads(without_special_tokens(tokenizer_json))
    changed = {**kept, "truncation": limit, "padding": None}
    return json.dumps(changed, ensure_ascii=False)
