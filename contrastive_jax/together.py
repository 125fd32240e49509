"""Several seeds of one run trained at once: the step of one, vmapped over a first axis of seeds."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from contrastive_jax import parallel, train
from contrastive_jax.loop import Finished, Record, Trainee, loop
from contrastive_jax.parallel import Mesh
from contrastive_jax.types import Feed, Objective, TrainState


def run(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    feeds: Sequence[Feed],
    states: Sequence[TrainState],
    *,
    plans: Sequence[train.Plan],
    mesh: Mesh,
    records: Sequence[Record],
    on_step: Callable[[int], None] = lambda step: None,
    stop: Callable[[], bool] = lambda: False,
) -> list[Finished]:
    """Train several seeds from their states to the last step, each as `train.run` would alone.

        state_s' = step(state_s, resident, sent_s, key_s)   for all seeds s in one program

    Each seed has the parameters, order, views, rows and checkpoints that it would have alone, equal
    to rounding. Batches stay split over the devices; the state of every seed is on each device.

    Args:
      objective, optimizer: what to train; every seed the same.
      feeds: one for each seed, over the same resident arrays.
      states: where each seed begins, all at one step.
      plans: one for each seed, alike but for it.
      mesh: the devices.
      records: where the rows and checkpoints of each seed go.
      on_step, stop: as in `train.run`.

    Returns:
      What each seed leaves; its seconds are its share of those of all.

    Raises:
      ValueError: streamed data, or seeds that differ in more than the seed.
      NonFiniteError: names the record whose metrics are not finite. It ends all seeds.
      CheckpointError: a checkpoint could not be written.

    >>> from contrastive_jax import data
    >>> from contrastive_jax.types import LossOutput
    >>> line = Objective(
    ...     init=lambda key, batch: (jax.random.normal(key), ()),
    ...     loss=lambda w, state, batch, key: (w**2, LossOutput(state, {"w": w})),
    ...     embed=lambda w, state, batch: {},
    ... )
    >>> digits, mesh = data.load("digits", batch_size=256), parallel.make_mesh(jax.devices()[:1])
    >>> feeds = [data.train_feed(digits, seed) for seed in (0, 1)]
    >>> init = train.make_init(line, optax.sgd(0.1), feeds[0], mesh)
    >>> done = run(
    ...     line, optax.sgd(0.1), feeds, [init(0), init(1)], mesh=mesh,
    ...     plans=[train.Plan(2, seed, log_every=2) for seed in (0, 1)],
    ...     records=[Record(lambda step, row: None)] * 2,
    ... )
    >>> [finished.step for finished in done], done[1].state.params.shape
    ([2, 2], ())
    """
    start = _common_step(states)
    _check(feeds, plans)
    steps, _, log_every = plans[0]
    stack = jax.jit(
        lambda trees: jax.tree.map(lambda *x: jnp.stack(x), *trees),
        out_shardings=parallel.replicated(mesh),
    )
    trainee = Trainee(
        train.stages(
            objective, lambda part: train.compiled(make_step(part, optimizer, feeds[0]), mesh)
        ),
        lambda step: parallel.put_batch(_sent(feeds, step), mesh, axis=1),
        parallel.put_replicated(dict(feeds[0].resident), mesh),
        _keys([plan.seed for plan in plans], mesh),
        records,
        states=functools.partial(_apart, mesh=mesh, count=len(states)),
        rows=lambda metrics: [{k: v[i] for k, v in metrics.items()} for i in range(len(states))],
    )
    finished = loop(trainee, stack(states), start, steps, log_every, on_step=on_step, stop=stop)
    share = finished._replace(
        compile_seconds=finished.compile_seconds / len(states),
        train_seconds=finished.train_seconds / len(states),
    )
    return [share._replace(state=own) for own in trainee.states(finished.state)]


def make_step(
    objective: Objective, optimizer: optax.GradientTransformation, feed: Feed
) -> Callable[..., Any]:
    """`train.make_step` of several seeds: all it takes is stacked but for the resident arrays."""
    return jax.vmap(train.make_step(objective, optimizer, feed), in_axes=(0, None, 0, 0))


def _sent(feeds: Sequence[Feed], step: int) -> dict[str, np.ndarray]:
    """What is sent for a step, the seeds along a first axis."""
    sent = [feed.batch_at(step) for feed in feeds]
    return {name: np.stack([each[name] for each in sent]) for name in sent[0]}


def _keys(seeds: Sequence[int], mesh: Mesh) -> jax.Array:
    @functools.partial(jax.jit, out_shardings=parallel.replicated(mesh))
    def keys() -> jax.Array:
        return jnp.stack([train.stream_key(seed, train.AUGMENT_STREAM) for seed in seeds])

    return keys()


def _apart(stacked: TrainState, *, mesh: Mesh, count: int) -> list[TrainState]:
    """The state of each seed; one program takes any of them."""
    take = _take(parallel.replicated(mesh))
    return [take(stacked, np.int32(i)) for i in range(count)]


@functools.cache
def _take(sharding: Any) -> Callable[..., TrainState]:
    return jax.jit(lambda tree, i: jax.tree.map(lambda x: x[i], tree), out_shardings=sharding)


def _common_step(states: Sequence[TrainState]) -> int:
    steps = [int(jax.device_get(state.step)) for state in states]
    if len(set(steps)) != 1:
        raise ValueError(f"The seeds stand at the steps {steps}; give states of one step.")
    return steps[0]


def _check(feeds: Sequence[Feed], plans: Sequence[train.Plan]) -> None:
    if not feeds[0].resident:
        raise ValueError("Streamed data has one reader a run: train its seeds in turn.")
    first = feeds[0].resident
    if any(feed.resident[name] is not first[name] for feed in feeds for name in first):
        raise ValueError("The seeds have different images: give feeds of one dataset.")
    if len({plan._replace(seed=0) for plan in plans}) != 1:
        raise ValueError(
            f"The seeds have different plans: {list(plans)}; only the seed may differ."
        )
