"""The length of a training, its first state and its step, for any objective."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from contrastive_jax import parallel
from contrastive_jax.parallel import Mesh
from contrastive_jax.training import compiler_options
from contrastive_jax.types import Batch, Feed, Metrics, Objective, TrainState

# Every random stream has a root key of its own, folded from the seed by a constant.
INIT_STREAM, AUGMENT_STREAM, REFRESH_STREAM = 0, 1, 2


class Plan(NamedTuple):
    """How long to train, how often to say so, and from which seed."""

    steps: int
    seed: int
    log_every: int
    chunk_size: int | None = None


def plan(
    epochs: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    log_every: int = 50,
    chunk_size: int | None = None,
    *,
    steps_per_epoch: int,
) -> Plan:
    """The length of a run by the keys of the config's `train`.

    Args:
      epochs: passes over the training set; or give `steps`.
      steps: optimizer steps; it wins over `epochs`.
      seed: of parameters, data order and augmentation.
      log_every: steps between rows of metrics.jsonl.
      chunk_size: examples encoded at a time, and encoded again in the backward pass (GradCache), so
        that the activations of only these are in memory; None encodes the batch as a whole. Batch
        norm then sees the statistics of a chunk.
      steps_per_epoch: whole batches in the training set.

    Raises:
      ValueError: neither length is given, or a number is out of range.

    >>> plan(epochs=2, steps_per_epoch=10).steps
    20
    """
    if steps is None and epochs is None:
        raise ValueError("train.steps and train.epochs are both None; give one of them")
    total = steps if steps is not None else round(epochs * steps_per_epoch)  # type: ignore
    if total < 1:
        raise ValueError(f"train lasts {total} steps (steps={steps}, epochs={epochs}); give more")
    if log_every < 1:
        raise ValueError(f"train.log_every is {log_every}; give at least 1")
    if not 0 <= seed < 2**32:
        raise ValueError(f"train.seed is {seed}; give a number from 0 to 2**32 - 1")
    return Plan(total, seed, log_every, chunk_size)


def stream_key(seed: int, stream: int) -> jax.Array:
    """The root key of one stream of a seed; fold the step and the example index into it."""
    return jax.random.fold_in(jax.random.key(seed), stream)


def batch_spec(feed: Feed) -> Any:
    """Shapes and dtypes of a batch of this feed, without making one."""
    return jax.eval_shape(feed.assemble, dict(feed.resident), sent_spec(feed))


def sent_spec(feed: Feed) -> dict[str, Any]:
    """What has the shapes and dtypes of the arrays that the host sends for a step."""
    return dict(feed.batch_at(0) if feed.spec is None else feed.spec)


def make_init(
    objective: Objective, optimizer: optax.GradientTransformation, feed: Feed, mesh: Mesh
) -> Callable[[int], TrainState]:
    """A function from a seed to a fresh state, born where it lies on the mesh; compiled once."""
    init = jax.jit(
        _initializer(objective, optimizer, feed),
        out_shardings=_shardings(objective, optimizer, feed, mesh),
        compiler_options=compiler_options.for_single_use(mesh),
    )
    return lambda seed: init(stream_key(seed, INIT_STREAM))


def abstract_state(
    objective: Objective, optimizer: optax.GradientTransformation, feed: Feed, mesh: Mesh
) -> TrainState:
    """Shapes, dtypes and shardings of a state, without making one: what a restore needs."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    shapes = jax.eval_shape(_initializer(objective, optimizer, feed), key)
    return jax.tree.map(
        lambda s, sharding: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding),
        shapes,
        parallel.state_sharding(mesh, shapes),
    )


def _shardings(
    objective: Objective, optimizer: optax.GradientTransformation, feed: Feed, mesh: Mesh
) -> Any:
    if parallel.FSDP not in mesh.axis_names:  # one for all, without a trace
        return parallel.replicated(mesh)
    state = abstract_state(objective, optimizer, feed, mesh)
    return jax.tree.map(lambda x: x.sharding, state)


def _initializer(
    objective: Objective, optimizer: optax.GradientTransformation, feed: Feed
) -> Callable[[jax.Array], TrainState]:
    spec = batch_spec(feed)

    def init(key: jax.Array) -> TrainState:
        batch = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), spec)
        params, model_state = objective.init(key, batch)
        return TrainState(jnp.zeros((), jnp.int32), params, model_state, optimizer.init(params))

    return init


def make_step(
    objective: Objective, optimizer: optax.GradientTransformation, feed: Feed
) -> Callable[[TrainState, Batch, Batch, jax.Array], tuple[TrainState, Metrics]]:
    """One step as a pure function of (state, resident arrays, sent arrays, key)."""

    def train_step(state, resident, sent, key):
        batch = feed.assemble(resident, sent)
        key = jax.random.fold_in(key, state.step)
        loss_and_grad = jax.value_and_grad(objective.loss, has_aux=True)
        (total, out), grads = loss_and_grad(state.params, state.model_state, batch, key, state.step)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        norms = {"grad_norm": optax.tree.norm(grads), "update_norm": optax.tree.norm(updates)}
        metrics = {"total_loss": total, **norms, **out.metrics}
        model_state = out.model_state
        if isinstance(opt_state, optax.ApplyIfFiniteState):  # it may have left this step out
            in_a_row, total_left_out = opt_state.notfinite_count, opt_state.total_notfinite
            before_or_after = functools.partial(jnp.where, in_a_row > 0)
            model_state = jax.tree.map(before_or_after, state.model_state, out.model_state)
            metrics |= {"skipped": total_left_out, "skipped_in_a_row": in_a_row}
        return TrainState(state.step + 1, params, model_state, opt_state), metrics

    return train_step


def make_train_step(
    objective: Objective, optimizer: optax.GradientTransformation, feed: Feed, mesh: Mesh
) -> Any:
    """`make_step` under `jax.jit`: the state is donated, and lies on the mesh as it did."""

    def loss(params, model_state, *rest):
        return objective.loss(*parallel.gathered(mesh, (params, model_state)), *rest)

    shardings = _shardings(objective, optimizer, feed, mesh)
    in_parts = parallel.FSDP in mesh.axis_names
    return jax.jit(
        make_step(objective._replace(loss=loss) if in_parts else objective, optimizer, feed),
        donate_argnums=0,
        out_shardings=(shardings, parallel.replicated(mesh)),
        compiler_options=compiler_options.for_steps(mesh),
    )


def lowered_step(
    objective: Objective, optimizer: optax.GradientTransformation, feed: Feed, mesh: Mesh
) -> Any:
    """`make_train_step` lowered for what `run` calls it with, without an array on a device."""

    def like(tree: Any, sharding: Any) -> Any:
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
        )

    everywhere = parallel.replicated(mesh)
    key = jax.eval_shape(functools.partial(stream_key, 0, AUGMENT_STREAM))
    return make_train_step(objective, optimizer, feed, mesh).lower(
        abstract_state(objective, optimizer, feed, mesh),
        like(dict(feed.resident), everywhere),
        like(sent_spec(feed), parallel.batched(mesh)),
        like(key, everywhere),
    )
