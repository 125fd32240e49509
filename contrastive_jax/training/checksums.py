"""The leaves of a state by name, as bytes on the host, and the digest of a whole state."""

import hashlib
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from contrastive_jax import parallel


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
        sha.update(_bytes(host_array(leaf)))
    return sha.hexdigest()


def named_leaves(state: Any) -> dict[str, Any]:
    """The leaves by path; ValueError for one that is no jax array."""
    leaves = by_path(state)
    for name, leaf in leaves.items():
        if not isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
            raise ValueError(f"{name} is a {type(leaf).__name__}: make it a jax array.")
    if len({name.replace("/", ".") for name in leaves}) < len(jax.tree.leaves(state)):
        raise ValueError("Two leaves of the state have the same path: a key holds a '/' or a '.'.")
    return leaves


def by_path(tree: Any) -> dict[str, Any]:
    """The leaves of any tree by path: keys, indices and field names, joined by slashes."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def host_array(leaf: jax.Array) -> np.ndarray:
    """The array that a checkpoint stores for a leaf; of typed keys, their integers."""
    return np.asarray(parallel.whole(jax.random.key_data(leaf) if is_key(leaf) else leaf))


def is_key(leaf: Any) -> bool:
    """Whether a leaf is an array of typed PRNG keys."""
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def crc32(array: np.ndarray) -> int:
    """The CRC32 of the bytes of an array in row-major order."""
    return zlib.crc32(_bytes(array))


def _bytes(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
