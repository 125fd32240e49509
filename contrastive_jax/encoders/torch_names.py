"""Tensors of torch as variables of an encoder, and back.

A ResNet has the names of torchvision, which timm shares (`conv1.weight` [O,I,H,W],
`layer1.0.bn2.running_mean`, `layer2.0.downsample.0.weight`); a ViT has those of timm
(`patch_embed.proj.weight`, `blocks.0.attn.qkv.weight`), and torchvision's are read as well.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from contrastive_jax.encoders import vit
from contrastive_jax.errors import CheckpointError

Path = tuple[str, ...]
COUNTER = "num_batches_tracked"  # torch has it beside the statistics; JAX does not
CLASSIFIERS = ("fc.", "head.", "heads.")
_MODULES = {
    "stem_conv": "conv1",
    "stem_norm": "bn1",
    "shortcut_conv": "downsample.0",
    "shortcut_norm": "downsample.1",
    "patch_projection": "patch_embed.proj",
    "qkv": "attn.qkv",
    "proj": "attn.proj",
    "fc1": "mlp.fc1",
    "fc2": "mlp.fc2",
}
_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
    "class_token": "cls_token",
    "position_embedding": "pos_embed",
}
_TORCHVISION_VIT = {  # pattern of a name -> timm's
    r"class_token": "cls_token",
    r"conv_proj\.": "patch_embed.proj.",
    r"encoder\.pos_embedding": "pos_embed",
    r"encoder\.ln\.": "norm.",
    r"encoder\.layers\.encoder_layer_(\d+)\.": r"blocks.\1.",
    r"(blocks\.\d+)\.ln_": r"\1.norm",
    r"(blocks\.\d+)\.self_attention\.in_proj_": r"\1.attn.qkv.",
    r"(blocks\.\d+)\.self_attention\.out_proj\.": r"\1.attn.proj.",
    r"(blocks\.\d+)\.mlp\.(0|linear_1)\.": r"\1.mlp.fc1.",
    r"(blocks\.\d+)\.mlp\.(3|linear_2)\.": r"\1.mlp.fc2.",
}


def to_torch(variables: Mapping[str, Any], steps: int = 0) -> dict[str, np.ndarray]:
    """Rename the variables of a ResNet or ViT to torch's names, in torch's layouts.

    Args:
      variables: {"params", "batch_stats"} of an encoder "resnet" or "vit" of `encoders.make`.
      steps: the value of every `num_batches_tracked`; torch in evaluation does not use it.

    >>> encoder = vit.make(patch_size=4, dim=16, layers=1, heads=2)
    >>> variables = encoder.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False)
    >>> tensors = to_torch(variables)
    >>> tensors["patch_embed.proj.weight"].shape, tensors["pos_embed"].shape
    ((16, 3, 4, 4), (1, 5, 16))
    """
    tensors = {}
    for path, leaf in _named(variables):
        name = _torch_name(path)
        tensors[name] = np.ascontiguousarray(_to_layout(path, np.asarray(leaf)))
        if path[-1] == "mean":
            tensors[f"{name.rpartition('.')[0]}.{COUNTER}"] = np.asarray(steps, np.int64)
    return tensors


def from_torch(tensors: Mapping[str, np.ndarray], encoder: Any, image_shape: Any) -> dict[str, Any]:
    """Rename tensors of torch to the variables of an encoder.

    Position embeddings of another resolution are interpolated.

    Args:
      tensors: names as torchvision or timm have them; counters and the classifier (`fc.*`,
        `head.*`, `heads.*`) are ignored.
      encoder: of `encoders.make`, of the same architecture.
      image_shape: (H, W, C) of its input.

    Raises:
      CheckpointError: tensors are missing, too many, or of another shape; they are named.

    >>> encoder = vit.make(patch_size=4, dim=16, layers=1, heads=2)
    >>> variables = encoder.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False)
    >>> again = from_torch(to_torch(variables), encoder, (8, 8, 3))
    >>> bool(jax.tree.all(jax.tree.map(jnp.array_equal, variables, again)))
    True
    """
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    wanted = jax.eval_shape(
        lambda key, x: encoder.init(key, x, train=False), jax.random.key(0), image
    )
    given = {_timm_name(name): np.asarray(tensor) for name, tensor in tensors.items()}
    given = {n: t for n, t in given.items() if not n.endswith(COUNTER)}
    given = {n: t for n, t in given.items() if not n.startswith(CLASSIFIERS)}
    targets = {_torch_name(path): (path, leaf) for path, leaf in _named(wanted)}
    arrays = {
        name: _from_layout(*targets[name], tensor)
        for name, tensor in given.items()
        if name in targets
    }
    _check_fit(given, targets, arrays)
    leaves = [jnp.asarray(arrays[name], leaf.dtype) for name, (_, leaf) in targets.items()]
    return jax.tree.unflatten(jax.tree.structure(wanted), leaves)


def _check_fit(
    given: Mapping[str, Any], targets: Mapping[str, Any], arrays: Mapping[str, Any]
) -> None:
    shapes = {name: leaf.shape for name, (_, leaf) in targets.items()}
    unfit = [
        f"{name} is {array.shape}, the encoder has {shapes[name]}"
        for name, array in sorted(arrays.items())
        if array.shape != shapes[name]
    ]
    problems = {
        "missing": sorted(targets.keys() - given.keys()),
        "too many": sorted(given.keys() - targets.keys()),
        "of another shape (as JAX has it)": unfit,
    }
    found = [f"{len(n)} {kind}: {_first(n)}" for kind, n in problems.items() if n]
    if not found:
        return
    stem = "conv1.weight" in arrays and arrays["conv1.weight"].shape != shapes["conv1.weight"]
    hint = " The first convolutions differ: compare encoder stem and width." if stem else ""
    raise CheckpointError(f"The tensors do not fit the encoder.{hint}\n{'; '.join(found)}.")


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _named(variables: Any) -> list[tuple[Path, Any]]:
    """The leaves with the names of their modules, without that of the collection."""
    leaves = jax.tree_util.tree_leaves_with_path(dict(variables))
    return [(tuple(key.key for key in path[1:]), leaf) for path, leaf in leaves]


def _torch_name(path: Path) -> str:
    *modules, leaf = path
    return ".".join([*map(_torch_module, modules), _LEAVES[leaf.removeprefix("frozen_")]])


def _torch_module(name: str) -> str:
    if block := re.fullmatch(r"stage(\d+)_block(\d+)", name):
        return f"layer{block[1]}.{int(block[2]) - 1}"
    if block := re.fullmatch(r"block(\d+)", name):
        return f"blocks.{int(block[1]) - 1}"
    if numbered := re.fullmatch(r"(Conv|\w*BatchNorm)_(\d+)", name):
        return f"{'conv' if numbered[1] == 'Conv' else 'bn'}{int(numbered[2]) + 1}"
    name = name.removeprefix("frozen_")
    return _MODULES.get(name, name)


def _timm_name(name: str) -> str:
    for pattern, timm in _TORCHVISION_VIT.items():
        name = re.sub(f"^{pattern}", timm, name)
    return name


def _to_layout(path: Path, array: np.ndarray) -> np.ndarray:
    if path[-1] == "kernel":
        return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T  # HWIO to OIHW
    if path[-1].removeprefix("frozen_") == "position_embedding":
        return array[None]
    return array[None, None] if path[-1] == "class_token" else array


def _from_layout(path: Path, target: Any, array: np.ndarray) -> Any:
    """The array as JAX has it; one with other dimensions than torch's is left for the check."""
    if path[-1] == "kernel":
        return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
    if path[-1] == "class_token":
        return array.reshape(-1)
    if path[-1].removeprefix("frozen_") == "position_embedding" and array.ndim == 3:
        return _of_resolution(array[0], target.shape)
    return array


def _of_resolution(array: np.ndarray, shape: tuple[int, int]) -> Any:
    """Position embeddings interpolated to the wanted number, if both are square grids."""
    for extra in (0, 1):
        sides = [round(max(count - extra, 0) ** 0.5) for count in (len(array), shape[0])]
        if [s * s + extra for s in sides] == [len(array), shape[0]]:
            return np.asarray(array) if sides[0] == sides[1] else _resized(array, sides[1], extra)
    return array


def _resized(array: np.ndarray, side: int, extra: int) -> np.ndarray:
    with jax.ensure_compile_time_eval():  # also where the encoder is initialized under jit
        return np.asarray(vit.resized(jnp.asarray(array, jnp.float32), (side, side), extra))
