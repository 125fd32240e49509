"""Export an encoder: safetensors with torchvision's names, and a JSON card.

The tensors have the names and layouts of torchvision's ResNet (`conv1.weight` [O,I,H,W],
`layer1.0.bn2.running_mean`, `layer2.0.downsample.0.weight`), for every depth, stem and number of
stages. The card describes how to build the encoder again, with what the caller adds.
"""

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from contrastive_jax import augment, encoders
from contrastive_jax.errors import CheckpointError
from contrastive_jax.storage import workdir

TENSORS, CARD, SUMS = "encoder.safetensors", "card.json", "SHA256SUMS"
FORMAT = "contrastive_jax encoder, 1"
_MODULES = {
    "stem_conv": "conv1",
    "stem_norm": "bn1",
    "shortcut_conv": "downsample.0",
    "shortcut_norm": "downsample.1",
}
_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
_COUNTER = "num_batches_tracked"  # torch has it beside the statistics; JAX does not


class Exported(NamedTuple):
    """An encoder that was read back from an export."""

    embed: Callable[[Any], jax.Array]  # uint8 images [B,H,W,C] of any side -> features [B,F]
    encoder: Any  # the flax module, float images [B,size,size,C] -> features [B,F]
    variables: dict[str, Any]  # {"params", "batch_stats"}, as its `apply` takes them
    card: dict[str, Any]


def to_torch(variables: Mapping[str, Any], steps: int = 0) -> dict[str, np.ndarray]:
    """Rename a ResNet's variables to torchvision's names, filters as [O,I,H,W].

    Args:
      variables: {"params", "batch_stats"} of an encoder "resnet" of `encoders.make`.
      steps: the value of every `num_batches_tracked`; torch in evaluation does not use it.

    >>> encoder = encoders.make(depth=10, width=0.0625, stages=1)
    >>> variables = encoder.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False)
    >>> tensors = to_torch(variables)
    >>> tensors["conv1.weight"].shape, tensors["layer1.0.bn1.running_mean"].shape
    ((4, 3, 3, 3), (4,))
    """
    tensors = {}
    for path, leaf in _named(variables):
        tensors[_torch_name(path)] = np.ascontiguousarray(_to_torch_layout(np.asarray(leaf)))
        if path[-1] == "mean":
            module, _, _ = _torch_name(path).rpartition(".")
            tensors[f"{module}.{_COUNTER}"] = np.asarray(steps, np.int64)
    return tensors


def from_torch(tensors: Mapping[str, np.ndarray], encoder: Any, image_shape: Any) -> dict[str, Any]:
    """Rename tensors with torchvision's names to the variables of an encoder.

    Args:
      tensors: as `to_torch` makes them; `fc.*` and counters are ignored.
      encoder: of `encoders.make`, of the same architecture.
      image_shape: (H, W, C) of its input.

    Raises:
      CheckpointError: a tensor is missing, too many, or of another shape; it is named.

    >>> encoder = encoders.make(depth=10, width=0.0625, stages=1)
    >>> variables = encoder.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False)
    >>> again = from_torch(to_torch(variables), encoder, (8, 8, 3))
    >>> bool(jax.tree.all(jax.tree.map(jnp.array_equal, variables, again)))
    True
    """
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    wanted = jax.eval_shape(
        lambda key, x: encoder.init(key, x, train=False), jax.random.key(0), image
    )
    names = {_torch_name(path) for path, _ in _named(wanted)}
    given = {n for n in tensors if not n.endswith(_COUNTER) and not n.startswith("fc.")}
    if odd := sorted(names ^ given):
        raise CheckpointError(f"The tensors are not those of this encoder: see {odd[0]!r}.")
    leaves = [_leaf(tensors, _torch_name(path), target) for path, target in _named(wanted)]
    return jax.tree.unflatten(jax.tree.structure(wanted), leaves)


def save(
    folder: str | os.PathLike[str],
    variables: Mapping[str, Any],
    *,
    encoder: Mapping[str, Any],
    size: int,
    image_shape: tuple[int, ...],
    about: Mapping[str, Any],
    steps: int = 0,
) -> dict[str, Any]:
    """Write encoder.safetensors, card.json and SHA256SUMS; return the card.

    Args:
      folder: made if missing; an older export in it is replaced.
      variables: {"params", "batch_stats"} of the encoder.
      encoder: the keywords of `encoders.make`, its name among them (or "resnet").
      size: side in pixels of the encoder's input.
      image_shape: (H, W, C) of the data set's images, before they are resized.
      about: finite JSON that goes into the card as it is: data, config, scores, versions.
      steps: of training.

    Raises:
      ValueError: an encoder other than a ResNet, or settings that it does not have.
      OSError: the folder cannot be written.

    For an example see `load`.
    """
    settings = encoders.resolved(**encoder)  # a later default must not change this encoder
    if settings["name"] != "resnet":
        raise ValueError(
            f"An encoder {settings['name']!r} cannot be exported: torchvision's names exist for "
            "ResNets."
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = to_torch(variables, steps)
    digest = _write_tensors(folder / TENSORS, tensors)
    card = {
        "format": FORMAT,
        "encoder": settings,
        "preprocessing": _preprocessing(size, image_shape),
        "torch": _for_torch(**settings),
        **about,
        "tensors": {
            "file": TENSORS,
            "sha256": digest,
            "tensors": len(tensors),
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(variables["params"])),
        },
    }
    workdir.write_text(folder / SUMS, f"{digest}  {TENSORS}\n")
    workdir.write_json(folder / CARD, card)
    return card


def load(folder: str | os.PathLike[str]) -> Exported:
    """Load an exported encoder and verify its file; its features are those of the run bit for bit.

    Args:
      folder: where `save` wrote.

    Raises:
      CheckpointError: files are missing, of another format, damaged, or do not fit each other.

    >>> import tempfile
    >>> settings = {"depth": 10, "width": 0.0625, "stages": 1}
    >>> x = jnp.zeros((1, 8, 8, 3))
    >>> variables = encoders.make(**settings).init(jax.random.key(0), x, train=False)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     card = save(
    ...         folder, variables, encoder=settings, size=8, image_shape=(8, 8, 3), about={}
    ...     )
    ...     exported = load(folder)
    >>> exported.embed(np.zeros((5, 8, 8, 3), np.uint8)).shape
    (5, 4)
    """
    card = _read_card(Path(folder))
    encoder = _encoder_of(card)
    size, channels = card["preprocessing"]["size"], card["preprocessing"]["image_shape"][-1]
    tensors = _read_tensors(Path(folder) / TENSORS, card["tensors"]["sha256"])
    variables = from_torch(tensors, encoder, (size, size, channels))
    evaluate = augment.make_views(size).evaluate

    @jax.jit
    def features(variables: dict[str, Any], image_BHWC: jax.Array) -> jax.Array:
        return encoder.apply(variables, evaluate(image_BHWC), train=False)  # type: ignore

    return Exported(lambda image: features(variables, image), encoder, variables, card)


def _encoder_of(card: Mapping[str, Any]) -> Any:
    try:
        return encoders.make(**card["encoder"])
    except ValueError as error:
        raise CheckpointError(f"The card's encoder cannot be made here: {error}") from error


def _named(variables: Any) -> list[tuple[tuple[str, ...], Any]]:
    """The leaves with the names of their modules, without that of the collection."""
    leaves = jax.tree_util.tree_leaves_with_path(dict(variables))
    return [(tuple(key.key for key in path[1:]), leaf) for path, leaf in leaves]


def _torch_name(path: tuple[str, ...]) -> str:
    *modules, leaf = path
    return ".".join([*map(_torch_module, modules), _LEAVES[leaf]])


def _torch_module(name: str) -> str:
    if block := re.fullmatch(r"stage(\d+)_block(\d+)", name):
        return f"layer{block[1]}.{int(block[2]) - 1}"
    if numbered := re.fullmatch(r"(Conv|\w*BatchNorm)_(\d+)", name):
        return f"{'conv' if numbered[1] == 'Conv' else 'bn'}{int(numbered[2]) + 1}"
    return _MODULES[name]


def _to_torch_layout(array: np.ndarray) -> np.ndarray:
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array  # HWIO to OIHW


def _leaf(tensors: Mapping[str, np.ndarray], name: str, target: Any) -> jax.Array:
    array = tensors[name]
    array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
    if array.shape != target.shape:
        raise CheckpointError(f"{name} is {array.shape} in HWIO; the encoder has {target.shape}.")
    return jnp.asarray(array, target.dtype)


def _preprocessing(size: int, image_shape: tuple[int, ...]) -> dict[str, Any]:
    steps = ["divide the uint8 image by 255; no mean is subtracted"]
    if tuple(image_shape[:2]) != (size, size):
        steps.append(
            f"resize to {size} x {size}, bilinear and antialiased, as torch's "
            "interpolate(mode='bilinear', antialias=True, align_corners=False)"
        )
    return {"image_shape": list(image_shape), "size": size, "steps": steps}


def _for_torch(depth: int, stem: str, stages: int, **others: Any) -> list[str]:
    """The steps from torchvision's ResNet to this encoder."""
    name = "ResNet(BasicBlock, [1, 1, 1, 1])" if depth == 10 else f"resnet{depth}()"
    lines = [f"torchvision.models.resnet.{name}", "fc = Identity()"]
    if stem != "imagenet":
        lines.append(f"conv1 = 3 x 3, stride {1 if stem == 'cifar' else 2}, padding 1, no bias")
        lines.append("maxpool = Identity()")
    lines += [f"layer{n} = Identity()" for n in range(stages + 1, 5)]
    lines.append("channel counts as in the tensors; eval(); input float32 [B, C, H, W] in [0, 1]")
    return lines


def _read_card(folder: Path) -> dict[str, Any]:
    if not (folder / CARD).is_file():
        raise CheckpointError(f"{folder} holds no export: it has no {CARD}.")
    card = workdir.read_json(folder / CARD)
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise CheckpointError(f"{folder / CARD} is not of the format {FORMAT!r}.")
    return card


def _write_tensors(path: Path, tensors: Mapping[str, np.ndarray]) -> str:
    """Write or replace the file as a whole; return its SHA-256."""
    import safetensors.numpy

    content = safetensors.numpy.save(dict(tensors), metadata={"format": "pt"})
    workdir.replace_file(path, lambda temporary: temporary.write_bytes(content))
    return _sha256(path)


def _read_tensors(path: Path, sha256: str) -> dict[str, np.ndarray]:
    import safetensors.numpy

    if not path.is_file() or _sha256(path) != sha256:
        raise CheckpointError(f"{path} is not the file that its card names: export it again.")
    return safetensors.numpy.load_file(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
