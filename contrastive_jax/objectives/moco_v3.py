"""MoCo v3: predict the moving encoder's key among those of the batch (arXiv 2104.02057).

    q_v = p(g(f(x_v))),   k_v = g'(f'(x_v)),   theta' <- m theta' + (1 - m) theta
    loss: 2 temperature (InfoNCE of q_1 with all k_2 + InfoNCE of q_2 with all k_1)   (algorithm 1)

MoCo without a queue and with BYOL's predictor and momentum. The InfoNCE of this library is never
multiplied by the temperature; the factor, by which the size of the gradient hardly depends on the
temperature, is the method's own and is applied here. Batch statistics are of the global batch.
"""

import flax.linen as nn
import jax

from contrastive_jax import losses
from contrastive_jax.objectives import ema, image_model, parts
from contrastive_jax.objectives.image_model import Views
from contrastive_jax.types import Batch, LossOutput, ModelState, Objective, Params


def make(
    encoder: nn.Module,
    head: nn.Module,
    predictor: nn.Module,
    views: Views,
    *,
    n_classes: int,
    steps: int,
    temperature: float = 0.2,
    momentum: float = 0.99,
) -> Objective:
    """Make MoCo v3's objective.

    Args:
      encoder: f, images [N,H,W,C] float32 to features [N,F], called with `train=`; of a ViT the
        paper keeps the random patch projection (`freeze_patches` of `encoders.vit`).
      head: g, features [N,F] to embeddings [N,D], called with `train=`.
      predictor: p, embeddings [N,D] to queries [N,D], called with `train=`.
      views: of two random views; see `augment.make_views`.
      n_classes: classes of the online probe; images of class -1 are left out of it. 0: no probe.
      steps: of the whole training.
      temperature: of the softmax, positive.
      momentum: m of the first step; it rises to 1 as half a cosine.

    Returns:
      An objective whose model state is {"encoder", "head", "predictor": batch statistics,
      "target": {"params", "statistics"}}; `embed` is the trained encoder, not the moving one.

    Raises:
      ValueError: a number out of range; when traced, other than two views, or queries of other
        dimensions than the embeddings.
    """
    ema.check("moco_v3", momentum)
    if temperature <= 0:
        raise ValueError(f"moco_v3 temperature is {temperature}; give a positive number")
    model = image_model.make(encoder, head, n_classes)

    def init(key: jax.Array, batch: Batch) -> tuple[Params, ModelState]:
        params, statistics = parts.init(model, views, key, batch, predictor=predictor)
        return params, {**statistics, "target": ema.copy(params, statistics, ("encoder", "head"))}

    def loss(
        params: Params, model_state: ModelState, batch: Batch, key: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, LossOutput]:
        x_BVHWC = parts.two_views("MoCo v3", views, batch, key)
        h_BVF, z_BVD, statistics = image_model.encode_separately(
            model, params, model_state, x_BVHWC, key
        )
        q_BVD, of_predictor = parts.apply_to_views(
            predictor, "predictor", params, model_state, z_BVD
        )
        target = ema.follow(model_state["target"], params, momentum, step, steps)
        _, k_BVD, of_target = image_model.encode_separately(
            model, target["params"], target["statistics"], x_BVHWC, key
        )
        first, second = (
            losses.info_nce(q_BVD[:, v], k_BVD[:, 1 - v], temperature).mean() for v in range(2)
        )
        contrastive = 2 * temperature * (first + second)
        state = {**statistics, **of_predictor, "target": {**target, "statistics": of_target}}
        return parts.output(
            model, params, batch, h_BVF, z_BVD, contrastive, state, temperature=temperature
        )

    return Objective(init, loss, image_model.embedder(model, views), image_model.AUXILIARY)
