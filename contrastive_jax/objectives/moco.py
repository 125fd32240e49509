"""MoCo: a queue of keys from a slowly moving encoder (He et al. 2020, arXiv 1911.05722).

    q = g(f(x_1)),   k = g'(f'(x_2)),   theta' <- m theta' + (1 - m) theta
    loss: InfoNCE of q with k against the queue of older keys

The moving encoder and the queue live in the model state. Batch statistics are global, and those of
queries and keys apart, so that no device can tell its own keys: nothing needs to be shuffled.
MoCo v2 (Chen et al. 2020, arXiv 2003.04297) is this with an MLP for g, blurred views and another
temperature; MoCo v3 is `moco_v3`.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from contrastive_jax import losses, queue
from contrastive_jax._numerics import unit
from contrastive_jax.evaluation import diagnostics
from contrastive_jax.objectives import ema, image_model
from contrastive_jax.objectives import temperature as tempered
from contrastive_jax.objectives.image_model import Views
from contrastive_jax.types import Batch, LossOutput, ModelState, Objective, Params


def make(
    encoder: nn.Module,
    head: nn.Module,
    views: Views,
    *,
    n_classes: int,
    temperature: float | str = 0.1,
    temperature_start: float = 0.1,
    temperature_min: float = 0.01,
    queue_size: int = 4096,
    momentum: float = 0.99,
    block_size: int | None = None,
    matryoshka: tuple[int, ...] | None = None,
    chunk_size: int | None = None,
) -> Objective:
    """Make MoCo's objective: the first view is the query, the second the key.

    Args:
      encoder: f, images [N,H,W,C] float32 to features [N,F], called with `train=`.
      head: g, features [N,F] to embeddings [N,D], called with `train=`.
      views: of two random views; see `augment.make_views`.
      n_classes: classes of the online probe; images of class -1 are left out of it. 0: no probe.
      temperature: of the softmax, positive, or "learned".
      temperature_start, temperature_min: where a learned one starts, and what it stays above.
      queue_size: K, older keys that serve as negatives; at least the batch.
      momentum: m in [0, 1): 0 makes the moving encoder a copy.
      block_size: side of the tiles of the loss, None for the dense form.
      matryoshka: sizes of embeddings, each a prefix of the next, that all have the loss.
      chunk_size: examples encoded at a time, see `image_model.make`.

    Returns:
      An objective whose model state is {"encoder", "head": batch statistics, "target": {"params",
      "statistics"}, "queue"}; `embed` is the trained encoder, not the moving one.

    Raises:
      ValueError: a number out of range; when traced, other than two views or a batch beyond K.
    """
    scale = tempered.make(temperature, temperature_start, temperature_min, section="moco")
    if not 0 <= momentum < 1:
        raise ValueError(f"moco momentum is {momentum}; give a number of 0 or more, below 1")
    if queue_size < 1:
        raise ValueError(f"moco queue_size is {queue_size}; give at least the batch size")
    model = image_model.make(encoder, head, n_classes, chunk_size=chunk_size)
    embed = image_model.embedder(model, views)

    def init(key: jax.Array, batch: Batch) -> tuple[Params, ModelState]:
        model_key, queue_key = jax.random.split(key)
        params, statistics = image_model.init(model, model_key, views.evaluate(batch["image"][:1]))
        outputs = jax.eval_shape(embed["image"], params, statistics, batch)
        keys = queue.make_queue(queue_key, queue_size, outputs["embedding"].shape[-1])
        target = ema.copy(params, statistics, ("encoder", "head"))
        learned = {} if scale.fixed is not None else {"loss": scale.init()}
        return {**params, **learned}, {**statistics, "target": target, "queue": keys}

    def loss(
        params: Params, model_state: ModelState, batch: Batch, key: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, LossOutput]:
        del step
        x_BVHWC = views.train(key, batch["image"], batch["index"])
        if x_BVHWC.shape[1] != 2:
            raise ValueError(f"MoCo was given {x_BVHWC.shape[1]} views; set augment.n_views to 2")
        query_key, key_key = (jax.random.fold_in(key, view) for view in range(2))
        statistics = {name: model_state[name] for name in ("encoder", "head")}
        h_BF, query_BD, new_statistics = image_model.train_mode(
            model, params, statistics, x_BVHWC[:, 0], query_key
        )
        target = ema.move(model_state["target"], params, momentum)  # before the keys are made
        _, key_BD, target_statistics = image_model.train_mode(
            model, target["params"], target["statistics"], x_BVHWC[:, 1], key_key
        )
        key_BD = unit(jax.lax.stop_gradient(key_BD))
        keys = model_state["queue"]
        used = scale.value(params.get("loss", {}))
        info_nce = functools.partial(losses.queue_info_nce, temperature=used, block_size=block_size)
        vectors = (query_BD, key_BD, keys.keys_KD)
        nested = losses.matryoshka(info_nce, *vectors, dims=matryoshka or (query_BD.shape[-1],))
        contrastive = nested.mean()
        online, online_metrics = image_model.online_probe(model, params, h_BF, batch)

        pairs_BVD = image_model.diagnosed(jnp.stack([query_BD, key_BD], axis=1))
        diagnosed = diagnostics.summary(pairs_BVD, scale.fixed or jax.lax.stop_gradient(used))
        target = {**target, "statistics": target_statistics}
        new_state = {**new_statistics, "target": target, "queue": queue.push(keys, key_BD)}
        metrics: dict[str, Any] = {"loss": contrastive, **diagnosed, **online_metrics}
        if scale.fixed is None:
            metrics["temperature"] = jax.lax.stop_gradient(jnp.asarray(used))
        return contrastive + online, LossOutput(new_state, metrics)

    return Objective(init, loss, embed, image_model.AUXILIARY, chunk_size=chunk_size)
