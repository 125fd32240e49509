"""MoCo: a queue of keys from a slowly moving encoder (He et al. 2020, arXiv 1911.05722).

    q = g(f(x_1)),   k = g'(f'(x_2)),   theta' <- m theta' + (1 - m) theta
    loss: InfoNCE of q with k against the queue of older keys

The moving encoder and the queue live in the model state. Batch statistics are global, and those of
queries and keys apart, so that no device can tell its own keys: nothing needs to be shuffled.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from contrastive_jax import losses, queue
from contrastive_jax.evaluation import diagnostics
from contrastive_jax.objectives import image_model as image_parts
from contrastive_jax.objectives.image_model import Views
from contrastive_jax.types import Batch, LossOutput, ModelState, Objective, Params

GAUGE_EXAMPLES = 1024  # as in SimCLR


def make(
    encoder: nn.Module,
    head: nn.Module,
    views: Views,
    *,
    n_classes: int,
    temperature: float = 0.1,
    queue_size: int = 4096,
    momentum: float = 0.99,
) -> Objective:
    """MoCo as an objective: the first view is the query, the second the key.

    Args:
      encoder: f, images [N,H,W,C] float32 to features [N,F], called with `train=`.
      head: g, features [N,F] to embeddings [N,D], called with `train=`.
      views: of two random views; see `augment.make_views`.
      n_classes: classes of the online probe; images of class -1 are left out of it.
      temperature: of the softmax, positive.
      queue_size: K, older keys that serve as negatives; at least the batch.
      momentum: m in [0, 1): 0 makes the moving encoder a copy.

    Returns:
      An objective whose model state is {"encoder", "head": batch statistics, "target": {"params",
      "statistics"}, "queue"}; `embed` is the trained encoder, not the moving one.

    Raises:
      ValueError: a number out of range; when traced, other than two views or a batch beyond K.
    """
    if temperature <= 0:
        raise ValueError(f"moco temperature is {temperature}; give a positive number")
    if not 0 <= momentum < 1:
        raise ValueError(f"moco momentum is {momentum}; give a number of 0 or more, below 1")
    if queue_size < 1:
        raise ValueError(f"moco queue_size is {queue_size}; give at least the batch size")
    parts = image_parts.make(encoder, head, n_classes)

    def init(key: jax.Array, batch: Batch) -> tuple[Params, ModelState]:
        parts_key, queue_key = jax.random.split(key)
        x = views.evaluate(batch["image"][:1])
        params, statistics = image_parts.init(parts, parts_key, x)
        outputs = jax.eval_shape(embed, params, statistics, batch)
        keys = queue.make_queue(queue_key, queue_size, outputs["embedding"].shape[-1])
        target = jax.tree.map(jnp.copy, {"params": _moving(params), "statistics": statistics})
        return params, {**statistics, "target": target, "queue": keys}

    def loss(
        params: Params, model_state: ModelState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, LossOutput]:
        x_BVHWC = views.train(key, batch["image"], batch["index"])
        if x_BVHWC.shape[1] != 2:
            raise ValueError(f"MoCo was given {x_BVHWC.shape[1]} views; set augment.n_views to 2")
        statistics = {name: model_state[name] for name in ("encoder", "head")}
        h, query_BD, new_statistics = image_parts.train_mode(
            parts, params, statistics, x_BVHWC[:, 0]
        )
        target = _follow(model_state["target"], params, momentum)
        _, key_BD, target_statistics = image_parts.train_mode(
            parts, target["params"], target["statistics"], x_BVHWC[:, 1]
        )
        key_BD = _unit(jax.lax.stop_gradient(key_BD))
        keys = model_state["queue"]
        contrastive = losses.queue_info_nce(query_BD, key_BD, keys.keys_KD, temperature).mean()
        online, online_metrics = image_parts.online_probe(parts, params, h, batch["label"])

        pairs_BVD = jnp.stack([query_BD, key_BD], axis=1)[:GAUGE_EXAMPLES]
        gauges = diagnostics.summary(jax.lax.stop_gradient(pairs_BVD), temperature)
        target = {**target, "statistics": target_statistics}
        new_state = {**new_statistics, "target": target, "queue": queue.push(keys, key_BD)}
        metrics = {"loss": contrastive, **gauges, **online_metrics}
        return contrastive + online, LossOutput(new_state, metrics)

    embed = image_parts.embedder(parts, views)
    return Objective(init, loss, embed)


def _moving(params: Params) -> Params:
    """What the moving encoder copies: everything but the probe."""
    return {name: part for name, part in params.items() if name != "probe"}


def _follow(target: ModelState, params: Params, momentum: float) -> ModelState:
    """theta' <- m theta' + (1 - m) theta, before the keys are made."""
    moved = jax.tree.map(
        lambda slow, fast: momentum * slow + (1.0 - momentum) * jax.lax.stop_gradient(fast),
        target["params"],
        _moving(params),
    )
    return {**target, "params": moved}


def _unit(z_BD: jax.Array) -> jax.Array:
    """Keys of length one, as the queue begins with."""
    length = jnp.linalg.norm(z_BD, axis=-1, keepdims=True)
    return z_BD / jnp.maximum(length, 1e-12)
