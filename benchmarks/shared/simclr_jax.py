"""Train as the command does: the contender `contrastive_jax`, its step and the parts of it."""

import functools
from typing import Any

import jax
import numpy as np
import optax

from benchmarks.shared.work import Contender
from contrastive_jax import augment, data, encoders, losses, parallel, training
from contrastive_jax.encoders import heads
from contrastive_jax.training import compiler_options, optim
from contrastive_jax.types import RunInfo, TrainState
from experiments import simclr
from experiments.run import lifecycle
from experiments.run.sections import as_kwargs

INCLUDES = (
    "gather from uint8 on the device, two views, encoder, head, NT-Xent, gradients, SGD; also the "
    "online linear probe, the diagnostics and the gradient norm that every step reports"
)


STEPS, N_CLASSES = 10_000, 10


def contender(config: Any, images: np.ndarray) -> Contender:
    """Make the step on resident images, as a run has it."""
    lifecycle.set_up_jax()
    mesh = parallel.make_mesh()
    batch_size = config.data.batch_size
    examples = {"image": images, "label": np.arange(len(images), dtype=np.int32) % N_CLASSES}
    feed = data.feed(examples, batch_size, seed=0)
    objective = simclr.build(config, RunInfo(mesh, STEPS, N_CLASSES))
    optimizer, _ = optim.make(
        **as_kwargs(config, "optimizer"),
        batch_size=batch_size,
        steps=STEPS,
        steps_per_epoch=len(images) // batch_size,
        auxiliary=objective.auxiliary,
    )
    train_step = training.make_train_step(objective, optimizer, feed, mesh)
    key = parallel.put_replicated(training.stream_key(0, training.AUGMENT_STREAM), mesh)
    resident = parallel.put_replicated(dict(feed.resident), mesh)
    state = training.make_init(objective, optimizer, feed, mesh)(0)
    count = {
        name: sum(p.size for p in jax.tree.leaves(state.params[name]))
        for name in ("encoder", "head")
    }
    done = 0

    def step() -> None:
        nonlocal state, done
        sent = parallel.put_batch(feed.batch_at(done), mesh)
        state, _ = train_step(state, resident, sent, key)
        done += 1

    def parts() -> dict[str, Any]:
        return _parts(config, optimizer, feed, resident, state, key)

    return Contender(step, lambda: jax.block_until_ready(state), parts, count, INCLUDES)


def _parts(
    config: Any, optimizer: Any, feed: Any, resident: Any, state: TrainState, key: jax.Array
) -> dict[str, Any]:
    """Compile each part of the step alone, on the output of the part before it."""
    modules = {
        "encoder": encoders.make(**as_kwargs(config, "encoder")),
        "head": heads.make(**as_kwargs(config, "head")),
    }
    views = augment.make_views(**as_kwargs(config, "augment"))
    sent = feed.batch_at(0)
    options = compiler_options.for_steps(parallel.make_mesh())
    jit = functools.partial(jax.jit, compiler_options=options)

    @jit
    def two_views(resident, sent, key):
        batch = feed.assemble(resident, sent)
        x = views.train(key, batch["image"], batch["index"])
        return x.reshape(-1, *x.shape[2:])

    def apply(params, x):
        for name, module in modules.items():
            variables = {"params": params[name], "batch_stats": state.model_state[name]}
            x, _ = module.apply(variables, x, train=True, mutable=["batch_stats"])
        return x

    @jit
    def backward(params, x, grad):
        return jax.vjp(lambda params: apply(params, x), params)[1](grad)[0]

    @jit
    @jax.value_and_grad
    def loss(z):
        z_BVD = z.reshape(-1, 2, z.shape[-1])
        return losses.nt_xent(z_BVD, config.loss.temperature).mean()

    @jit
    def update(grads, state):
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        return optax.apply_updates(state.params, updates), opt_state

    x = two_views(resident, sent, key)
    forward = jit(apply)
    z = forward(state.params, x)
    calls = {
        "gather and augment": (two_views, resident, sent, key),
        "forward": (forward, state.params, x),
        "forward and backward": (backward, state.params, x, z),
        "loss": (loss, z),
        "optimizer": (update, state.params, state),
    }
    return {name: functools.partial(_run, *call) for name, call in calls.items()}


def _run(function: Any, *args: Any) -> None:
    jax.block_until_ready(function(*args))
