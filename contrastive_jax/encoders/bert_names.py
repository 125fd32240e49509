"""Tensors of Hugging Face as parameters of a `bert.SentenceEncoder`'s transformer, and back.

BERT and RoBERTa share their names (`encoder.layer.0.attention.self.query.weight` [out, in]),
DistilBERT has its own (`transformer.layer.0.attention.q_lin.weight`). In a file of a whole model
they stand behind a prefix ("bert."), beside the tensors of a head.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

Path = tuple[str, ...]
_TABLES = {
    "word_embedding": "embeddings.word_embeddings",
    "position_embedding": "embeddings.position_embeddings",
    "type_embedding": "embeddings.token_type_embeddings",
    "embedding_norm": "embeddings.LayerNorm",
}
_BERT = {
    **_TABLES,
    "layer": "encoder.layer.",
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "mlp_input": "intermediate.dense",
    "mlp_output": "output.dense",
    "mlp_norm": "output.LayerNorm",
}
_DISTILBERT = {
    **_TABLES,
    "layer": "transformer.layer.",
    "query": "attention.q_lin",
    "key": "attention.k_lin",
    "value": "attention.v_lin",
    "attention_output": "attention.out_lin",
    "attention_norm": "sa_layer_norm",
    "mlp_input": "ffn.lin1",
    "mlp_output": "ffn.lin2",
    "mlp_norm": "output_layer_norm",
}
_LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias"}
_OLD_NORMS = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
# Beside the encoder: a pooler and heads for other tasks, and constants that newer files leave out.
_IGNORED = re.compile(r"(pooler|cls|lm_head|classifier|qa_outputs|vocab_\w+)\..*|.*\.position_ids")


def to_tensors(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Rename the parameters of a transformer to Hugging Face's names, in its layouts.

    Those of DistilBERT, if it has no token types.

    >>> from contrastive_jax.encoders import bert
    >>> encoder = bert.make(10, dim=8, layers=1, heads=2, hidden_dim=16, positions=6)
    >>> one = np.ones((1, 1), np.int32)
    >>> params = encoder.init(jax.random.key(0), one, one[0], train=False)["params"]
    >>> to_tensors(params["transformer"])["encoder.layer.0.intermediate.dense.weight"].shape
    (16, 8)
    """
    names = _BERT if "type_embedding" in params else _DISTILBERT
    return {
        _name(path, names): _transposed(path, np.asarray(leaf)) for path, leaf in _leaves(params)
    }


def from_tensors(
    tensors: Mapping[str, np.ndarray], like: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Rename tensors of Hugging Face to the parameters of a transformer.

    Args:
      tensors: with or without the prefix of a whole model.
      like: parameters of the same transformer, or their shapes.

    Returns:
      float32 parameters, and the pooler's tensors, which no sentence needs.

    Raises:
      ValueError: tensors are missing, too many, or of another shape; all are named.
    """
    names = _BERT if "type_embedding" in like else _DISTILBERT
    given = _without_prefix(tensors, names["word_embedding"])
    wanted = {_name(path, names): (path, leaf.shape) for path, leaf in _leaves(like)}
    arrays = {
        name: _transposed(path, np.asarray(given[name]))
        for name, (path, _) in wanted.items()
        if name in given
    }
    _check_fit(given, {name: shape for name, (_, shape) in wanted.items()}, arrays)
    leaves = [np.asarray(arrays[name], np.float32) for name in wanted]
    pooler = {name: array for name, array in given.items() if name.startswith("pooler.")}
    return jax.tree.unflatten(jax.tree.structure(like), leaves), pooler


def _without_prefix(tensors: Mapping[str, np.ndarray], first: str) -> dict[str, np.ndarray]:
    """The encoder's tensors by their bare names: in a whole model, those behind its prefix."""
    table = next((name for name in tensors if name.endswith(f"{first}.weight")), "")
    prefix = table.removesuffix(f"{first}.weight")
    bare = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    for old, new in _OLD_NORMS.items():
        bare = {name.replace(old, new): tensor for name, tensor in bare.items()}
    return bare


def _check_fit(
    given: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], arrays: Mapping[str, Any]
) -> None:
    extra = [name for name in given.keys() - shapes.keys() if not _IGNORED.fullmatch(name)]
    unfit = [
        f"{name} ({given[name].shape})"
        for name in sorted(arrays)
        if arrays[name].shape != shapes[name]
    ]
    problems = {
        "missing": sorted(shapes.keys() - given.keys()),
        "too many": sorted(extra),
        "of another shape": unfit,
    }
    found = [f"{len(n)} {kind}: {', '.join(n)}" for kind, n in problems.items() if n]
    if found:
        raise ValueError("; ".join(found))


def _leaves(params: Any) -> Iterator[tuple[Path, Any]]:
    for path, leaf in jax.tree_util.tree_leaves_with_path(dict(params)):
        yield tuple(key.key for key in path), leaf


def _name(path: Path, names: Mapping[str, str]) -> str:
    *modules, leaf = path
    layer = re.fullmatch(r"layer(\d+)", modules[0])
    head = [f"{names['layer']}{layer[1]}", *modules[1:]] if layer else modules
    return ".".join([*(names.get(module, module) for module in head), _LEAVES[leaf]])


def _transposed(path: Path, array: np.ndarray) -> np.ndarray:
    """A matrix is [out, in] in torch and [in, out] in JAX."""
    return np.ascontiguousarray(array.T) if path[-1] == "kernel" else array
