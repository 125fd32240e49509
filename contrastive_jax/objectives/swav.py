"""SwAV: predict the other view's cluster, of equally large ones (arXiv 2006.09882).

    s_v = z_v . c_k of unit vectors,   q_v = Sinkhorn(s_v / epsilon) over the global batch
    loss: mean over large t and all v != t of -q_t . log softmax(s_v / temperature)   (equation 5)

A queue of older embeddings for each large view may join the assignment of a small batch.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from contrastive_jax import queue
from contrastive_jax._numerics import unit
from contrastive_jax.encoders.heads import Prototypes
from contrastive_jax.objectives import image_model, multi_crop, parts, sinkhorn
from contrastive_jax.objectives.multi_crop import Crops
from contrastive_jax.types import Batch, LossOutput, ModelState, Objective, Params


def make(
    encoder: nn.Module,
    head: nn.Module,
    views: Crops,
    *,
    n_classes: int,
    n_prototypes: int = 3000,
    temperature: float = 0.1,
    epsilon: float = 0.05,
    iterations: int = 3,
    queue_size: int = 0,
    queue_from_step: int = 0,
    frozen_steps: int = 0,
) -> Objective:
    """Make SwAV's objective.

    Args:
      encoder: f, images [N,H,W,C] float32 to features [N,F], called with `train=`.
      head: g, features [N,F] to embeddings [N,D], called with `train=`.
      views: of at least two large views, and of small ones; see `augment.make_views`.
      n_classes: classes of the online probe; images of class -1 are left out of it. 0: no probe.
      n_prototypes: K.
      temperature: of the softmax, positive.
      epsilon: smoothness of the assignment, positive.
      iterations: of Sinkhorn's algorithm.
      queue_size: older embeddings of each large view in the assignment, at least a batch; 0: none.
      queue_from_step: the first step that reads the queue, once it is full.
      frozen_steps: first steps that leave the prototypes without a gradient.

    Raises:
      ValueError: a number out of range; when traced, fewer than two large views, or a batch beyond
        the queue.
    """
    for name, value in {"temperature": temperature, "epsilon": epsilon}.items():
        if value <= 0:
            raise ValueError(f"swav {name} is {value}; give a positive number")
    least = {"n_prototypes": (n_prototypes, 1), "iterations": (iterations, 1)}
    for name, (count, low) in {**least, "queue_size": (queue_size, 0)}.items():
        if count < low:
            raise ValueError(f"swav {name} is {count}; give at least {low}")
    model, prototypes = image_model.make(encoder, head, n_classes), Prototypes(n_prototypes)

    def init(key: jax.Array, batch: Batch) -> tuple[Params, ModelState]:
        params, state = parts.init(model, views, key, batch, prototypes=prototypes)
        if queue_size:
            x_BTHWC = jax.eval_shape(views.train, key, batch["image"], batch["index"])
            dim = params["prototypes"]["kernel"].shape[0]
            keys = jax.random.split(key, x_BTHWC.shape[1])
            state["queues"] = [queue.make_queue(k, queue_size, dim) for k in keys]
        return params, state

    def loss(
        params: Params, model_state: ModelState, batch: Batch, key: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, LossOutput]:
        _, h_BTF, z_BVD, state = multi_crop.encode(model, params, model_state, views, batch, key)
        large, frozen = h_BTF.shape[1], step < frozen_steps
        score_BVK = multi_crop.scores(prototypes, params, z_BVD, frozen)
        score_BTK = jax.lax.stop_gradient(score_BVK[:, :large])
        if queue_size:
            keys_TQD = jnp.stack([older.keys_KD for older in state["queues"]])
            of_queue_TQK = jax.lax.stop_gradient(multi_crop.scores(prototypes, params, keys_TQD))
        else:
            of_queue_TQK = jnp.zeros((large, 0, n_prototypes), jnp.float32)
        reads_queue = step >= max(queue_from_step, -(-queue_size // len(z_BVD)))
        q_BTK = sinkhorn.assign(score_BTK, of_queue_TQK, reads_queue, epsilon, iterations)
        swapped = multi_crop.swapped_cross_entropy(q_BTK, score_BVK / temperature)
        z_BTD = z_BVD[:, :large]
        if queue_size:
            pushed = [queue.push(q, unit(z_BTD[:, v])) for v, q in enumerate(state["queues"])]
            state = {**state, "queues": pushed}
        return parts.output(model, params, batch, h_BTF, z_BTD, swapped, state)

    return Objective(init, loss, image_model.embedder(model, views), image_model.AUXILIARY)
