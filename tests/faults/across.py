"""What processes compute together: losses, dense and around the ring, and what `parallel` places.

python -m tests.faults.across --coordinator=HOST:PORT --num_processes=2 --process_id=0
"""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np

from contrastive_jax import losses, parallel
from experiments import processes

B, V, D = 8, 2, 6
LOSSES = {
    "dense": functools.partial(losses.nt_xent, temperature=0.5),
    "ring": functools.partial(losses.nt_xent, temperature=0.5, block_size=4),
}


def check() -> None:
    """Each process compares what all computed with what it computes alone."""
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
    sharded = {name: parallel.shard_loss(loss, mesh) for name, loss in LOSSES.items()}
    together = jax.device_get(jax.jit(_values_and_grads(sharded))(w, x))
    alone = jax.device_get(jax.jit(_values_and_grads({"": LOSSES["dense"]}))(weights, x_BVF))[""]
    for name, both in together.items():
        for got, want in zip(both, alone, strict=True):
            np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-6, err_msg=name)
    _check_stop(mesh)


def _values_and_grads(losses_by_name):
    """Of each loss of x w, with respect to w; one program, so that it is compiled once."""

    def compute(w, x_BVF):
        means = {name: lambda w, f=f: f(x_BVF @ w).mean() for name, f in losses_by_name.items()}
        return {name: jax.value_and_grad(mean)(w) for name, mean in means.items()}

    return compute


def _check_stop(mesh) -> None:
    """All hear at the same call that one process wants to stop: at the call after it did."""
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
    with processes.joined(flags):
        check()
        print("equal", jnp.int32(jax.device_count()), file=sys.stderr)
    return 0


if __name__ == "__main__":
    processes.leave(main(sys.argv))
