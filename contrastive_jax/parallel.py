"""Data parallelism over a mesh: a sharded batch, losses over all keys, a state whole or in parts.

The compiler does the rest: the training step is one `jax.jit` over global arrays,
so that batch statistics are global, and only losses and searches run inside `jax.shard_map`.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from contrastive_jax._numerics import as_array

AXIS, FSDP = "data", "fsdp"
_SMALL = 2**14  # elements of an array that costs less to hold whole than to gather in every step


def make_mesh(devices: Sequence[Any] | None = None, fsdp: int = 1) -> Mesh:
    """Make a mesh over devices; the batch is split over all of them.

    Args:
      devices: of jax; all of them by default.
      fsdp: how many devices share one copy of the state, see `state_sharding`. They become a second
        axis of the mesh; 1 gives every device the whole state.

    Raises:
      ValueError: `fsdp` does not divide the number of devices.

    >>> make_mesh(jax.devices()[:1]).axis_names
    ('data',)
    """
    devices = jax.devices() if devices is None else devices
    if fsdp < 1 or len(devices) % fsdp:
        raise ValueError(
            f"parallel.fsdp is {fsdp}, and there are {len(devices)} devices; give a divisor of them"
        )
    shape, names = (len(devices),), (AXIS,)
    if fsdp > 1:
        shape, names = (len(devices) // fsdp, fsdp), (AXIS, FSDP)
    # Split, so that parts of 8 lie on a torus of 4 x 4 x 4 as well.
    placed = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    return Mesh(placed, names, axis_types=(AxisType.Auto,) * len(names))


def mesh_of_parts(parts: int, devices: Sequence[Any] | None = None) -> Mesh:
    """Make a mesh over no more devices than there are parts of some work.

    Args:
      parts: at least 1.
      devices: of jax; those of this process by default, which computes without the others.

    >>> mesh_of_parts(1).size
    1
    """
    return make_mesh((jax.local_devices() if devices is None else devices)[:parts])


def replicated(mesh: Mesh) -> NamedSharding:
    """Make the sharding of arrays that every device holds whole: the state, a resident dataset.

    >>> replicated(make_mesh()).is_fully_replicated
    True
    """
    return NamedSharding(mesh, P())


def batched(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Make the sharding of arrays that are split by examples along an axis.

    >>> tuple(batched(make_mesh(), axis=1).spec)
    (None, 'data')
    """
    return NamedSharding(mesh, P(*[None] * axis, _all_axes(mesh)))


def _all_axes(mesh: Mesh) -> Any:
    return mesh.axis_names if len(mesh.axis_names) > 1 else AXIS


def state_sharding(mesh: Mesh, state: Any) -> Any:
    """Decide how each array of a training state lies on a mesh (ZeRO stage 3, FSDP).

    With an axis "fsdp" in the mesh an array is split along its longest axis that this divides:
    parameters, moments and EMA targets alike. Small arrays and the others are on every device.

    Args:
      mesh: of `make_mesh`.
      state: a pytree of arrays or jax.ShapeDtypeStruct.

    Returns:
      A NamedSharding for each leaf.

    >>> weights = {"kernel": jax.ShapeDtypeStruct((768, 3072), jnp.float32)}
    >>> state_sharding(make_mesh(jax.devices()[:1]), weights)["kernel"].is_fully_replicated
    True

    Rajbhandari et al. 2020 (ZeRO, arXiv 1910.02054), section 5.3.
    """
    parts = mesh.shape.get(FSDP, 1)

    def of_leaf(x: Any) -> NamedSharding:
        divisible = [axis for axis, size in enumerate(x.shape) if size % parts == 0]
        if parts == 1 or x.size < _SMALL or not divisible:
            return replicated(mesh)
        longest = max(divisible, key=lambda axis: x.shape[axis])
        return NamedSharding(mesh, P(*[None] * longest, FSDP))

    return jax.tree.map(of_leaf, state)


def gathered(mesh: Mesh, tree: Any) -> Any:
    """Ask, inside a compiled function, for arrays that every device holds whole.

    Their gradient comes back in parts, summed over the devices. Without an axis "fsdp" in the mesh
    the tree is returned as it is.
    """
    if FSDP not in mesh.axis_names:
        return tree
    return jax.tree.map(lambda x: _gather(replicated(mesh), state_sharding(mesh, x), x), tree)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _gather(whole: NamedSharding, parts: NamedSharding, x: jax.Array) -> jax.Array:
    return jax.lax.with_sharding_constraint(x, whole)


_gather.defvjp(
    lambda whole, parts, x: (_gather(whole, parts, x), None),
    lambda whole, parts, _, g: (jax.lax.with_sharding_constraint(g, parts),),
)


def put_batch(host_batch: Mapping[str, Any], mesh: Mesh, axis: int = 0) -> dict[str, jax.Array]:
    """Place host arrays of the global batch on the mesh, split along the axis of examples.

    Every process passes the whole array and keeps the rows of its devices.

    >>> tuple(put_batch({"label": np.zeros(8)}, make_mesh())["label"].sharding.spec)
    ('data',)
    """
    return {name: _put(x, batched(mesh, axis)) for name, x in host_batch.items()}


def put_replicated(host_tree: Any, mesh: Mesh) -> Any:
    """Place a pytree of host arrays on every device of the mesh.

    >>> put_replicated([np.zeros(3)], make_mesh())[0].is_fully_replicated
    True
    """
    return jax.tree.map(lambda x: _put(whole(x), replicated(mesh)), host_tree)


def _put(x: Any, sharding: NamedSharding) -> jax.Array:
    if sharding.is_fully_addressable:
        return jax.device_put(x, sharding)
    x = np.asarray(x)
    places = sharding.addressable_devices_indices_map(x.shape)
    parts = [jax.device_put(x[rows], device) for device, rows in places.items()]
    return jax.make_array_from_single_device_arrays(x.shape, sharding, parts)


def whole(x: Any) -> Any:
    """Gather an array that is split over several processes; all of them have to call this.

    >>> whole(np.arange(3))
    array([0, 1, 2])
    """
    if not isinstance(x, jax.Array) or x.is_fully_addressable or x.is_fully_replicated:
        return x
    everywhere = replicated(x.sharding.mesh)  # type: ignore[attr-defined]
    return jax.jit(lambda x: x, out_shardings=everywhere)(x)


def local_copy(tree: Any) -> Any:
    """Take a copy of arrays on one device of this process, to compute without the other processes.

    All processes have to call this, where arrays are split over them.

    >>> local_copy(put_replicated([np.zeros(3)], make_mesh()))[0].shape
    (3,)
    """

    def copy(x: jax.Array) -> jax.Array:
        x = whole(x)
        here = x.addressable_data(0)
        return here if x.is_fully_replicated else jax.device_put(x, next(iter(here.devices())))

    return jax.tree.map(copy, tree)


def any_process(mesh: Mesh, local: Callable[[], bool]) -> Callable[[], bool]:
    """Make a function, called by all processes in step, that is true when `local()` is in any.

    It answers for the call before, so that it does not wait for the device.

    >>> stop = any_process(make_mesh(), lambda: True)
    >>> stop()
    True
    """
    if jax.process_count() == 1:
        return local
    reduce = jax.jit(jnp.any, out_shardings=replicated(mesh))
    pending: list[jax.Array] = []

    def agreed() -> bool:
        here = np.full(len(mesh.local_devices), local())
        pending.append(reduce(jax.make_array_from_process_local_data(batched(mesh), here)))
        return len(pending) > 1 and bool(jax.device_get(pending.pop(0)))

    return agreed


def shard_loss(
    loss: Callable[..., jax.Array], mesh: Mesh, n_sharded: int | None = None
) -> Callable:
    """Compute a loss of global arrays with each device's anchors against the keys of all devices.

    The gradient is exact when taken *outside*, of the mean over the global batch. A gradient
    taken inside of `shard_map` and averaged again is too large by the number of devices.

    A loss without a keyword `axis_name` is returned as it is: its rows do not meet (`triplet`), or
    the compiler gathers them where they do (`cosent`).

    Args:
      loss: any of `losses`, or a function with a keyword `axis_name` that returns one number per
        anchor, or a scalar that is the same on every device, such as `losses.vicreg`.
      mesh: a mesh of `make_mesh`.
      n_sharded: how many leading arguments are split by examples, the others being the same on
        every device; None splits every array that is no scalar.

    Returns:
      The loss as a function of global arrays. Arrays given by keyword (`ids_B`, `negatives_BKD`)
      are split by examples as well; options (`block_size`) stay as they are.

    Raises:
      ValueError: when called, with integers that JAX would cut.

    >>> from contrastive_jax import losses
    >>> loss = jax.jit(shard_loss(losses.nt_xent, make_mesh()))
    >>> z_BVD = jax.random.normal(jax.random.key(0), (16, 2, 8))
    >>> loss(z_BVD).shape
    (16, 2)
    """
    if "axis_name" not in inspect.signature(loss).parameters:
        return loss

    axis = _all_axes(mesh)

    def sharded(*args: Any, **named: Any) -> jax.Array:
        flat, tree = jax.tree.flatten_with_path((args, named))
        arrays = {
            i: as_array(_name(path), x)
            for i, (path, x) in enumerate(flat)
            if isinstance(x, np.ndarray | jax.Array)
        }
        specs = {
            i: P(axis) if _is_split(flat[i][0], x, n_sharded) else P() for i, x in arrays.items()
        }

        if not named and len(arrays) == len(flat):  # without options: the loss itself
            given, specs_of = (jax.tree.unflatten(tree, x.values())[0] for x in (arrays, specs))
            scalar = jax.eval_shape(loss, *given).ndim == 0
            alone = functools.partial(loss, axis_name=axis)
            out = P() if scalar else P(axis)
            return jax.shard_map(alone, mesh=mesh, in_specs=specs_of, out_specs=out)(*given)

        def call(arrays: dict[int, jax.Array], **mapped: Any) -> jax.Array:
            leaves = [arrays.get(i, x) for i, (_, x) in enumerate(flat)]
            args, named = jax.tree.unflatten(tree, leaves)
            return loss(*args, **named, **mapped)

        scalar = jax.eval_shape(call, arrays).ndim == 0
        island = functools.partial(call, axis_name=axis)
        out = P() if scalar else P(axis)
        return jax.shard_map(island, mesh=mesh, in_specs=(specs,), out_specs=out)(arrays)

    return sharded


class Best(NamedTuple):
    """What a search found for each query, the best first; of equal scores the lower row."""

    score: jax.Array  # [Q, K]
    row: jax.Array  # [Q, K] int32


def shard_search(search: Callable[..., Any], mesh: Mesh) -> Callable:
    """Search a bank whose rows are split over the devices, with the result of one device.

    Each device searches its own rows for K, and of what all of them found, brought together by one
    gather, the best K are kept.

    Args:
      search: (part of the bank, its first row, *queries) -> a `Best` or a pytree of them, whose
        rows are those of the whole bank.
      mesh: a mesh of `make_mesh`.

    Returns:
      (bank, *queries) -> the same of the whole bank, on every device. The number of devices divides
      the rows of the bank; `search` gives those that pad it a score of -inf.

    >>> def largest(part_M, first, k=2):
    ...     score_K, row_K = jax.lax.top_k(part_M, k)
    ...     return Best(score_K[None], first + row_K[None])
    >>> shard_search(largest, make_mesh(jax.devices()[:1]))(jnp.array([1.0, 3.0, 3.0])).row
    Array([[1, 2]], dtype=int32)
    """
    axis = _all_axes(mesh)

    def of_part(part: jax.Array, *queries: Any) -> Any:
        found = search(part, jax.lax.axis_index(axis) * len(part), *queries)
        return jax.tree.map(merged, found, is_leaf=lambda x: isinstance(x, Best))

    def merged(found: Best) -> Best:
        gather = functools.partial(jax.lax.all_gather, axis_name=axis, axis=1, tiled=True)
        score_QA, row_QA = gather(found.score), gather(found.row)
        # top_k prefers the earlier of equals, and earlier devices have the lower rows.
        score_QK, place_QK = jax.lax.top_k(score_QA, found.score.shape[1])
        return Best(score_QK, jnp.take_along_axis(row_QA, place_QK, axis=1))

    return _on_parts(of_part, mesh)


def shard_sum(fn: Callable[..., Any], mesh: Mesh) -> Callable:
    """Sum over the devices what a function makes of each one's part, by one all-reduce.

    Args:
      fn: (part of the arrays, *same) -> a pytree of arrays.
      mesh: a mesh of `make_mesh`.

    Returns:
      (arrays, *same) -> the sum, on every device. The number of devices divides the rows of the
      arrays.

    >>> shard_sum(jnp.sum, make_mesh(jax.devices()[:1]))(jnp.arange(4))
    Array(6, dtype=int32)
    """

    def of_part(*args: Any) -> Any:
        return jax.lax.psum(fn(*args), _all_axes(mesh))

    return _on_parts(of_part, mesh)


def _on_parts(fn: Callable[..., Any], mesh: Mesh) -> Callable:
    """Map over the parts of the first argument a function with one result for all devices."""

    def mapped(split: Any, *same: Any) -> Any:
        specs = P(_all_axes(mesh)), *[P()] * len(same)
        # That the results are equal is beyond the check of what varies over devices.
        island = functools.partial(jax.shard_map, mesh=mesh, out_specs=P(), check_vma=False)
        return island(fn, in_specs=specs)(split, *same)

    return mapped


def _name(path: Any) -> str:
    """Name an array of the pair (arguments by position, arguments by keyword)."""
    by_keyword = path[0].idx == 1
    return path[1].key if by_keyword else f"argument {path[1].idx}"


def _is_split(path: Any, x: jax.Array, n_sharded: int | None) -> bool:
    by_keyword = path[0].idx == 1
    return x.ndim > 0 and (n_sharded is None or by_keyword or path[1].idx < n_sharded)
