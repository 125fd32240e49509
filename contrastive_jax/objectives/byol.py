"""BYOL: predict the target's embedding of the other view (Grill et al. 2020, arXiv 2006.07733).

    p_v = q(g(f(x_v))),   t_v = g'(f'(x_v)),   theta' <- tau theta' + (1 - tau) theta
    loss: |p_1 - t_2|^2 + |p_2 - t_1|^2 of unit vectors   (equation 2, symmetric)

No pair is negative. What keeps it from collapsing is that only the predictor's side has a gradient.
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
    momentum: float = 0.996,
) -> Objective:
    """Make BYOL's objective.

    Args:
      encoder: f, images [N,H,W,C] float32 to features [N,F], called with `train=`.
      head: g, features [N,F] to embeddings [N,D], called with `train=`.
      predictor: q, embeddings [N,D] to predictions [N,D], called with `train=`.
      views: of two random views; see `augment.make_views`.
      n_classes: classes of the online probe; images of class -1 are left out of it. 0: no probe.
      steps: of the whole training.
      momentum: tau of the first step; it rises to 1 as half a cosine.

    Returns:
      An objective whose model state is {"encoder", "head", "predictor": batch statistics,
      "target": {"params", "statistics"}}; `embed` is the trained encoder, not the target.

    Raises:
      ValueError: a momentum outside [0, 1]; when traced, other than two views, or predictions of
        other dimensions than the embeddings.
    """
    ema.check("byol", momentum)
    model = image_model.make(encoder, head, n_classes)

    def init(key: jax.Array, batch: Batch) -> tuple[Params, ModelState]:
        params, statistics = parts.init(model, views, key, batch, predictor=predictor)
        return params, {**statistics, "target": ema.copy(params, statistics, ("encoder", "head"))}

    def loss(
        params: Params, model_state: ModelState, batch: Batch, key: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, LossOutput]:
        x_BVHWC = parts.two_views("BYOL", views, batch, key)
        h_BVF, z_BVD, statistics = image_model.encode_separately(
            model, params, model_state, x_BVHWC, key
        )
        p_BVD, of_predictor = parts.apply_to_views(
            predictor, "predictor", params, model_state, z_BVD
        )
        target = ema.follow(model_state["target"], params, momentum, step, steps)
        _, target_BVD, of_target = image_model.encode_separately(
            model, target["params"], target["statistics"], x_BVHWC, key
        )
        first, second = (
            losses.negative_cosine(p_BVD[:, v], target_BVD[:, 1 - v]).mean() for v in range(2)
        )
        distance = 4 + 2 * (first + second)
        state = {**statistics, **of_predictor, "target": {**target, "statistics": of_target}}
        return parts.output(model, params, batch, h_BVF, z_BVD, distance, state)

    return Objective(init, loss, image_model.embedder(model, views), image_model.AUXILIARY)
