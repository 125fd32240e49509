"""NNCLR: the positive is the nearest neighbor of the other view (arXiv 2104.14548).

    z_v = g(f(x_v)),   p_v = q(z_v),   n_v = the support nearest to z_v
    loss: (InfoNCE of n_1 with all p_2 + InfoNCE of n_2 with all p_1) / 2   (equations 2 to 4)

The supports are a queue of older z_1, in the model state.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from contrastive_jax import losses, queue
from contrastive_jax._numerics import unit
from contrastive_jax.objectives import image_model, parts
from contrastive_jax.objectives.image_model import Views
from contrastive_jax.types import Batch, LossOutput, ModelState, Objective, Params


def make(
    encoder: nn.Module,
    head: nn.Module,
    predictor: nn.Module,
    views: Views,
    *,
    n_classes: int,
    temperature: float = 0.1,
    queue_size: int = 4096,
) -> Objective:
    """Make NNCLR's objective.

    Args:
      encoder: f, images [N,H,W,C] float32 to features [N,F], called with `train=`.
      head: g, features [N,F] to embeddings [N,D], called with `train=`.
      predictor: q, embeddings [N,D] to predictions [N,D], called with `train=`.
      views: of two random views; see `augment.make_views`.
      n_classes: classes of the online probe; images of class -1 are left out of it. 0: no probe.
      temperature: of the softmax, positive.
      queue_size: supports; at least the batch.

    Raises:
      ValueError: a number out of range; when traced, other than two views, a batch beyond the
        queue, or predictions of other dimensions than the embeddings.
    """
    if temperature <= 0:
        raise ValueError(f"nnclr temperature is {temperature}; give a positive number")
    if queue_size < 1:
        raise ValueError(f"nnclr queue_size is {queue_size}; give at least the batch size")
    model = image_model.make(encoder, head, n_classes)

    def init(key: jax.Array, batch: Batch) -> tuple[Params, ModelState]:
        model_key, queue_key = jax.random.split(key)
        params, statistics = parts.init(model, views, model_key, batch, predictor=predictor)
        embed = image_model.embedder(model, views)["image"]
        outputs = jax.eval_shape(embed, params, statistics, batch)
        supports = queue.make_queue(queue_key, queue_size, outputs["embedding"].shape[-1])
        return params, {**statistics, "queue": supports}

    def loss(
        params: Params, model_state: ModelState, batch: Batch, key: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, LossOutput]:
        del step
        x_BVHWC = parts.two_views("NNCLR", views, batch, key)
        h_BVF, z_BVD, statistics = image_model.encode_separately(
            model, params, model_state, x_BVHWC, key
        )
        p_BVD, of_predictor = parts.apply_to_views(
            predictor, "predictor", params, model_state, z_BVD
        )
        unit_BVD = jax.lax.stop_gradient(unit(z_BVD))
        supports = model_state["queue"]
        similarity_BVK = unit_BVD @ supports.keys_KD.T
        nearest_BVD = supports.keys_KD[similarity_BVK.argmax(axis=-1)]
        first, second = (
            losses.info_nce(nearest_BVD[:, v], p_BVD[:, 1 - v], temperature).mean()
            for v in range(2)
        )
        state = {**statistics, **of_predictor, "queue": queue.push(supports, unit_BVD[:, 0])}
        near = {"neighbor_similarity": jnp.mean(similarity_BVK.max(axis=-1))}
        contrastive = (first + second) / 2
        return parts.output(
            model, params, batch, h_BVF, z_BVD, contrastive, state, near, temperature
        )

    return Objective(init, loss, image_model.embedder(model, views), image_model.AUXILIARY)
