"""The leaves of a state as named, verified bytes: what a checkpoint holds and a digest sums up."""

import hashlib
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


class DamagedError(Exception):
    """Bytes that are not what was saved; the message names the leaf."""


def digest(state: Any) -> str:
    """SHA-256 of a state: equal bits give an equal string, on any number of devices.

    Args:
        state: a pytree of arrays; paths, dtypes, shapes and bytes all count.

    Example:
        >>> digest({"w": jnp.zeros(2)}) == digest({"w": jnp.zeros(2)})
        True
        >>> digest({"w": jnp.zeros(2)}) == digest({"w": -jnp.zeros(2)})
        False
    """
    sha = hashlib.sha256()
    for name, leaf in named_leaves(state).items():
        sha.update(f"{name} {leaf.dtype} {leaf.shape}\n".encode())
        sha.update(_bytes(_bits(leaf)))
    return sha.hexdigest()


def named_leaves(state: Any) -> dict[str, Any]:
    """The leaves by path; ValueError for one that is no jax array."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    by_path = {jax.tree_util.keystr(p, simple=True, separator="/"): leaf for p, leaf in leaves}
    if len(by_path) < len(leaves):
        raise ValueError("Two leaves of the state have the same path: a key holds a '/'.")
    for name, leaf in by_path.items():
        if not isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
            raise ValueError(f"{name} is a {type(leaf).__name__}: make it a jax array.")
    return by_path


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _bits(leaf: jax.Array) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _bytes(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def pack(state: Any) -> tuple[np.ndarray, dict[str, Any]]:
    """The bytes of all leaves, a copy, since the next step is given their buffers; the index."""
    parts, index, start = [], {}, 0
    for name, leaf in named_leaves(state).items():
        part = _bytes(_bits(leaf))
        entry = {"shape": list(leaf.shape), "dtype": str(leaf.dtype), "crc32": zlib.crc32(part)}
        key = {"impl": str(jax.random.key_impl(leaf))} if _is_key(leaf) else {}
        index[name] = {**entry, "start": start, "size": part.nbytes, **key}
        parts.append(np.frombuffer(part, np.uint8))
        start += part.nbytes
    return np.concatenate(parts), index


def unpack(data: Any, index: dict[str, Any], targets: dict[str, Any]) -> dict[str, Any]:
    """The leaves by path, on the host, each verified; they are of the targets' architecture."""
    leaves = {}
    for name, entry in index.items():
        part = np.asarray(data)[entry["start"] : entry["start"] + entry["size"]]
        if part.nbytes != entry["size"] or zlib.crc32(_bytes(part)) != entry["crc32"]:
            raise DamagedError(f"{name} is not what was saved (CRC32)")
        target = targets[name]
        bits = jax.eval_shape(jax.random.key_data, target) if _is_key(target) else target
        array = part.view(bits.dtype).reshape(bits.shape)
        if _is_key(target):
            array = jax.random.wrap_key_data(jnp.asarray(array), impl=entry["impl"])
        leaves[name] = array
    return leaves


def place(value: Any, target: Any) -> jax.Array:
    """A leaf on the target's devices, and uncommitted or weakly typed where the target is."""
    if getattr(target, "weak_type", False):
        weak = jnp.full(target.shape, np.zeros([], target.dtype).item())
        value = weak.at[...].set(value) if weak.dtype == target.dtype else value
    sharding = target.sharding if getattr(target, "committed", True) else None
    if sharding is None or sharding.is_fully_addressable:
        return jax.device_put(value, sharding)
    # device_put would compile a comparison between the processes for each shape
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])
