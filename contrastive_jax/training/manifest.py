"""The manifest of a checkpoint: each leaf's shape, dtype and CRC32, sealed by a checksum."""

import json
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from contrastive_jax.errors import CheckpointError
from contrastive_jax.training.checksums import crc32, is_key


class DamagedError(Exception):
    """Data that is not what was saved; the message says which."""


def entry(leaf: jax.Array, array: np.ndarray) -> dict[str, Any]:
    """Describe a leaf that is stored as `array`: {"shape", "dtype", "crc32"}, "impl" of keys."""
    key = {"impl": str(jax.random.key_impl(leaf))} if is_key(leaf) else {}
    return {"shape": list(leaf.shape), "dtype": str(leaf.dtype), "crc32": crc32(array), **key}


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """Add the CRC32 of finite JSON to it: {"content", "crc32"}."""
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    return {"content": json.loads(text), "crc32": zlib.crc32(text.encode())}


def unseal(sealed: Mapping[str, Any]) -> dict[str, Any]:
    """The content that was sealed; ValueError when it has changed since."""
    if seal(sealed["content"])["crc32"] != sealed["crc32"]:
        raise ValueError("its checksum differs")
    return sealed["content"]


def require_same_architecture(
    entries: Mapping[str, Any], targets: Mapping[str, Any], where: str
) -> None:
    """CheckpointError for the first leaf that differs in shape or dtype, or is on one side only."""
    for name in sorted(entries.keys() | targets.keys()):
        saved, wanted = entries.get(name), targets.get(name)
        saved_as = f"{saved['dtype']}{saved['shape']}" if saved else "absent"
        wanted_as = f"{wanted.dtype}{list(wanted.shape)}" if wanted is not None else "absent"
        if saved_as != wanted_as:
            raise CheckpointError(
                f"{where} is of another architecture:\n"
                f"{name} is {saved_as} in the checkpoint and {wanted_as} in the model.\n"
                "Run with the config of that run, or in another workdir."
            )


def verified(name: str, stored: Any, entry: Mapping[str, Any], target: Any) -> Any:
    """The leaf that `stored` holds, on the host, of the shape and dtype of `target`.

    Args:
      name: of the leaf, for the message.
      stored: an array that was read back, None for none.
      entry: of the leaf, of the architecture of `target`.
      target: a jax.ShapeDtypeStruct or array.

    Raises:
      DamagedError: it is not what was saved.
    """
    spec = _stored_as(target)
    if stored is None and 0 in spec.shape:  # Orbax stores no array without elements
        stored = np.zeros(spec.shape, spec.dtype)
    if stored is None:
        raise DamagedError(f"{name} is missing")
    array = np.asarray(stored)
    same_kind = (array.shape, array.dtype) == (spec.shape, spec.dtype)
    if not same_kind or crc32(array) != entry["crc32"]:
        raise DamagedError(f"{name} is not what was saved (CRC32)")
    if is_key(target):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=entry["impl"])
    return array


def split_bytes(
    data: Any, entries: Mapping[str, Any], targets: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint of the first format: one array of bytes, split by the entries.

    Args:
      data: uint8[n], the bytes of all leaves.
      entries: by name, with "start" and "size" in bytes.
      targets: of the same architecture.
    """
    arrays = {}
    for name, entry in entries.items():
        part = np.asarray(data)[entry["start"] : entry["start"] + entry["size"]]
        spec = _stored_as(targets[name])
        if part.nbytes == entry["size"]:
            arrays[name] = part.view(spec.dtype).reshape(spec.shape)
    return arrays


def _stored_as(target: Any) -> Any:
    return jax.eval_shape(jax.random.key_data, target) if is_key(target) else target
