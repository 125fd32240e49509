"""Compute with several processes: a loss around the ring, its gradient, a shared stop.

python -m tests.faults.across --coordinator=HOST:PORT --num_processes=2 --process_id=0
"""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np

from contrastive_jax import losses, parallel
from contrastive_jax.evaluation import neighbors
from contrastive_jax.training.checkpoint import digest
from experiments.run import multihost

B, V, D = 8, 2, 6
DENSE = functools.partial(losses.nt_xent, temperature=0.5)
RING = functools.partial(losses.nt_xent, temperature=0.5, block_size=4)


def check() -> None:
    """Compare what all processes computed with what this one computes alone."""
    mesh = parallel.make_mesh()
    x_BVF = np.random.default_rng(0).normal(size=(B, V, D)).astype(np.float32)
    weights = np.random.default_rng(1).normal(size=(D, D)).astype(np.float32)
    x = parallel.put_batch({"x": x_BVF}, mesh)["x"]
    for shard in x.addressable_shards:  # its share of the global batch, by index
        np.testing.assert_array_equal(shard.data, x_BVF[shard.index])
    assert len(x.addressable_shards) == jax.local_device_count() < mesh.devices.size
    w = parallel.put_replicated(weights, mesh)
    local = parallel.local_copy({"w": w})["w"]
    assert local.is_fully_addressable
    jointly = jax.jit(_value_and_grad(parallel.shard_loss(RING, mesh)))(w, x)
    alone = jax.jit(_value_and_grad(DENSE))(weights, x_BVF)
    for got, want in zip(jax.device_get(jointly), jax.device_get(alone), strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-6)
    _check_search(x_BVF.reshape(-1, D))
    _check_parts(weights)
    _check_stop(mesh)


def _check_search(x_ND) -> None:
    """Split a bank over the devices of all processes; each knows what was found."""
    for one, all_of_them in zip(
        *(
            neighbors.knn_neighbors(x_ND, x_ND, k=5, block_size=2, devices=devices)
            for devices in (jax.local_devices()[:1], jax.devices())
        ),
        strict=True,
    ):
        np.testing.assert_array_equal(all_of_them, one)


def _check_parts(weights) -> None:
    """A state in parts over all processes is gathered, and digested as the whole one."""
    mesh = parallel.make_mesh(fsdp=jax.device_count())
    parallel._SMALL = 1
    state = {"w": np.tile(weights, (jax.device_count(), 1))}
    split = jax.tree.map(
        lambda x, s: jax.make_array_from_callback(x.shape, s, lambda index: x[index]),
        state,
        parallel.state_sharding(mesh, state),
    )
    assert split["w"].addressable_data(0).shape == weights.shape
    local = parallel.local_copy(split)["w"]
    assert local.is_fully_addressable
    np.testing.assert_array_equal(local, state["w"])
    assert digest(split) == digest({"w": jnp.asarray(state["w"])})


def _value_and_grad(loss):
    def mean(w, x_BVF):
        return loss(x_BVF @ w).mean()

    return jax.value_and_grad(mean)


def _check_stop(mesh) -> None:
    """Let all stop at the same call, the one after a process wanted to."""
    calls: list[int] = []

    def last_wants() -> bool:
        calls.append(len(calls))
        return jax.process_index() == jax.process_count() - 1 and len(calls) >= 3

    stop = parallel.any_process(mesh, last_wants)
    assert [stop() for _ in range(5)] == [False, False, False, True, True]


def main(argv: list[str]) -> int:
    """Join, compare, print that it is equal."""
    flags = dict(word.removeprefix("--").split("=", 1) for word in argv[1:])
    jax.config.update("jax_numpy_rank_promotion", "raise")
    with multihost.joined(flags):
        check()
        print("equal", jnp.int32(jax.device_count()), file=sys.stderr)
    return 0


if __name__ == "__main__":
    multihost.leave(main(sys.argv))
