"""Export an encoder: safetensors with torch's names, and a JSON card.

The tensors have the names and layouts of torchvision's ResNet, for every depth, stem and number of
stages, or of timm's ViT (`encoders/torch_names.py`). The card describes how to build the encoder
again, with what the caller adds.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from contrastive_jax import augment, encoders
from contrastive_jax.encoders.torch_names import from_torch, to_torch
from contrastive_jax.errors import CheckpointError
from contrastive_jax.storage import workdir

TENSORS, CARD, SUMS = "encoder.safetensors", "card.json", "SHA256SUMS"
FORMAT = "contrastive_jax encoder, 1"


class Exported(NamedTuple):
    """An encoder that was read back from an export."""

    embed: Callable[[Any], jax.Array]  # uint8 images [B,H,W,C] of any side -> features [B,F]
    encoder: Any  # the flax module, float images [B,size,size,C] -> features [B,F]
    variables: dict[str, Any]  # {"params", "batch_stats"}, as its `apply` takes them
    card: dict[str, Any]


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
      ValueError: an encoder other than a ResNet or ViT, or settings that it does not have.
      OSError: the folder cannot be written.

    For an example see `load`.
    """
    settings = encoders.resolved(**encoder)  # a later default must not change this encoder
    if settings["name"] not in _FOR_TORCH:
        raise ValueError(
            f"An encoder {settings['name']!r} cannot be exported: torch's names exist for "
            f"{' and '.join(_FOR_TORCH)}."
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = to_torch(variables, steps)
    digest = _write_tensors(folder / TENSORS, tensors)
    card = {
        "format": FORMAT,
        "encoder": settings,
        "preprocessing": _preprocessing(size, image_shape, settings["mean"], settings["std"]),
        "torch": _FOR_TORCH[settings["name"]](**settings),
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
    >>> x = np.zeros((1, 8, 8, 3), np.float32)
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
    """The card's encoder; never a "module:function", whose code would run."""
    name = card["encoder"].get("name", "resnet")
    if name not in _FOR_TORCH:
        known = ", ".join(_FOR_TORCH)
        raise CheckpointError(f"The card's encoder name is {name!r}; give one of {known}.")
    try:
        return encoders.make(**card["encoder"])
    except ValueError as error:
        raise CheckpointError(f"The card's encoder cannot be made here: {error}") from error


def _preprocessing(
    size: int, image_shape: tuple[int, ...], mean: Sequence[float], std: Sequence[float]
) -> dict[str, Any]:
    steps = ["divide the uint8 image by 255" + ("" if mean else "; no mean is subtracted")]
    if tuple(image_shape[:2]) != (size, size):
        steps.append(
            f"resize to {size} x {size}, bilinear and antialiased, as torch's "
            "interpolate(mode='bilinear', antialias=True, align_corners=False)"
        )
    if mean:
        steps.append(f"subtract {list(mean)}, divide by {list(std)}, of each channel or of all")
    return {"image_shape": list(image_shape), "size": size, "steps": steps}


def _resnet_in_torch(
    depth: int, stem: str, stages: int, bottleneck_width: float, **others: Any
) -> list[str]:
    """The steps from torchvision's ResNet to this encoder."""
    wide = "" if bottleneck_width == 1 else f"width_per_group={round(64 * bottleneck_width)}"
    name = "ResNet(BasicBlock, [1, 1, 1, 1])" if depth == 10 else f"resnet{depth}({wide})"
    lines = [f"torchvision.models.resnet.{name}", "fc = Identity()"]
    if stem != "imagenet":
        lines.append(f"conv1 = 3 x 3, stride {1 if stem == 'cifar' else 2}, padding 1, no bias")
        lines.append("maxpool = Identity()")
    lines += [f"layer{n} = Identity()" for n in range(stages + 1, 5)]
    lines.append("channel counts as in the tensors; eval(); input float32 [B, C, H, W], as above")
    return lines


def _vit_in_torch(size: str, patch_size: int, pool: str, **others: Any) -> list[str]:
    """The arguments of timm's VisionTransformer."""
    default = encoders.vit.SIZES[size]
    given = zip(("dim", "layers", "heads"), default, strict=True)
    dim, layers, heads = (others[key] or preset for key, preset in given)
    pooled = "'token'" if pool == "token" else "'avg', class_token=False, fc_norm=False"
    return [
        f"timm.models.VisionTransformer(patch_size={patch_size}, embed_dim={dim}, depth={layers}, "
        f"num_heads={heads}, num_classes=0, global_pool={pooled}, img_size=the size above)",
        "eval(); input float32 [B, C, H, W], as above",
    ]


_FOR_TORCH = {"resnet": _resnet_in_torch, "vit": _vit_in_torch}


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
