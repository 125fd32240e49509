"""Our own contender of `train_step.py`: the step that the command trains with, and its parts."""

import functools
from typing import Any

import jax
import numpy as np
import optax
from work import Contender

from contrastive_jax import augment, data, losses, parallel, training
from contrastive_jax.encoders import heads, resnet
from contrastive_jax.training import compiler_options, optim
from contrastive_jax.types import TrainState
from experiments import simclr
from experiments.run import lifecycle
from experiments.run.command_line import as_kwargs

INCLUDES = (
    "gather from uint8 on the device, two views, encoder, head, NT-Xent, gradients, SGD; also the "
    "online linear probe, the health gauges and the gradient norm that every step reports"
)


def contender(config: Any, images: np.ndarray) -> Contender:
    lifecycle.set_up_jax()
    mesh = parallel.make_mesh()
    batch_size = config.data.batch_size
    examples = {"image": images, "label": np.arange(len(images), dtype=np.int32) % 10}
    feed = data.feed(examples, batch_size, seed=0)
    lengths = {"steps": 10_000, "steps_per_epoch": len(images) // batch_size}
    optimizer, _ = optim.make(**as_kwargs(config, "optimizer"), batch_size=batch_size, **lengths)
    objective = simclr.build(config, mesh, 10)
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
    """Each part of the step compiled alone, on the arrays that the part before it gave."""
    modules = {
        "encoder": resnet.make(**as_kwargs(config, "encoder")),
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
        "optimiser": (update, state.params, state),
    }
    return {name: functools.partial(_run, *call) for name, call in calls.items()}


def _run(function: Any, *args: Any) -> None:
    jax.block_until_ready(function(*args))
