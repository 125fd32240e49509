"""Two towers with the tensors of OpenAI's CLIP and of open_clip, and back.

Their names: `visual.conv1.weight`, `visual.transformer.resblocks.0.attn.in_proj_weight`,
`visual.proj`; without `visual.` those of the text tower; `logit_scale`, log(1 / temperature). Ours
are a ViT of style "clip", a text encoder "transformer", and two linear heads without bias.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from contrastive_jax.errors import CheckpointError

Path = tuple[str, ...]
_WHOLE: dict[Path, str] = {
    ("encoder", "class_token"): "visual.class_embedding",
    ("encoder", "position_embedding"): "visual.positional_embedding",
    ("encoder", "patch_projection", "kernel"): "visual.conv1.weight",
    ("head", "Dense_0", "kernel"): "visual.proj",
    ("text", "position_embedding"): "positional_embedding",
    ("text", "embedding", "embedding"): "token_embedding.weight",
    ("text_head", "Dense_0", "kernel"): "text_projection",
    ("loss", "log_scale"): "logit_scale",
    ("loss", "bias"): "logit_bias",
}
_NORMS: dict[Path, str] = {
    ("encoder", "norm_pre"): "visual.ln_pre",
    ("encoder", "norm"): "visual.ln_post",
    ("text", "norm"): "ln_final",
}
_IN_BLOCKS = {
    "norm1": "ln_1.",
    "norm2": "ln_2.",
    "qkv": "attn.in_proj_",
    "proj": "attn.out_proj.",
    "fc1": "mlp.c_fc.",
    "fc2": "mlp.c_proj.",
}
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}
_IGNORED = ("attn_mask", "input_resolution", "context_length", "vocab_size")  # of OpenAI's files


def from_open_clip(tensors: Mapping[str, np.ndarray], like: Any) -> Any:
    """Put tensors in the place of the parameters of two towers.

    Args:
      tensors: by the names of OpenAI and open_clip.
      like: parameters {"encoder", "head", "text", "text_head", "loss"}; others, such as a probe,
        and a temperature or bias that the tensors lack, stay.

    Raises:
      CheckpointError: tensors are missing, too many, or of another shape; they are named.
    """
    given = {name: np.asarray(x) for name, x in tensors.items() if name not in _IGNORED}
    named = [(_name(_keys(path)), path, leaf) for path, leaf in jax.tree.leaves_with_path(like)]
    wanted = {name for name, *_ in named if name is not None}
    missing = sorted(wanted - given.keys() - {"logit_scale", "logit_bias"})
    many = sorted(given.keys() - wanted - {"logit_scale", "logit_bias"})
    leaves, unfit = [], []
    for name, path, leaf in named:
        if name not in given:
            leaves.append(leaf)
            continue
        array = _from_layout(_keys(path), given[name])
        if array.shape != leaf.shape:
            unfit.append(f"{name} is {array.shape}, the towers have {leaf.shape}")
        leaves.append(jnp.asarray(array, leaf.dtype))
    problems = {"missing": missing, "too many": many, "of another shape (as JAX has it)": unfit}
    found = [f"{len(n)} {kind}: {', '.join(n[:3])}" for kind, n in problems.items() if n]
    if found:
        raise CheckpointError(
            "The tensors do not fit the towers; they are for encoder.style=clip, "
            f"text.name=transformer and a linear head without bias.\n{'; '.join(found)}."
        )
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def to_open_clip(params: Any) -> dict[str, np.ndarray]:
    """Rename the parameters of two towers to the names of open_clip, in torch's layouts.

    Raises:
      ValueError: parameters that open_clip's model has no place for.
    """
    tensors = {}
    for path, leaf in jax.tree.leaves_with_path(params):
        keys = _keys(path)
        name = _name(keys)
        if name is not None:
            tensors[name] = np.ascontiguousarray(_to_layout(keys, np.asarray(leaf)))
        elif keys[0] in ("encoder", "head", "text", "text_head"):
            raise ValueError(f"{'/'.join(keys)} has no name in open_clip")
    return tensors


def _keys(path: Any) -> Path:
    return tuple(key.key for key in path)


def _name(path: Path) -> str | None:
    """The name of a parameter; None for one that open_clip does not have."""
    if path in _WHOLE:
        return _WHOLE[path]
    leaf = _LEAVES.get(path[-1])
    if path[:-1] in _NORMS and leaf:
        return f"{_NORMS[path[:-1]]}.{leaf}"
    block = re.fullmatch(r"block(\d+)", path[1]) if len(path) == 4 else None
    if block is None or path[0] not in ("encoder", "text") or path[2] not in _IN_BLOCKS or not leaf:
        return None
    tower = "visual." if path[0] == "encoder" else ""
    return f"{tower}transformer.resblocks.{int(block[1]) - 1}.{_IN_BLOCKS[path[2]]}{leaf}"


def _is_linear(path: Path) -> bool:
    """Whether torch has a matrix as [out, in]; both projections are [in, out] there too."""
    return path[-1] == "kernel" and path[1].startswith("block")


def _to_layout(path: Path, array: np.ndarray) -> np.ndarray:
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)  # HWIO to OIHW
    return array.T if _is_linear(path) else array


def _from_layout(path: Path, array: np.ndarray) -> np.ndarray:
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    return array.T if _is_linear(path) else array
