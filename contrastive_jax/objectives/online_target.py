"""What BYOL and MoCo v3 share: an online branch that predicts what a moving target embeds.

    q_v = q(g(f(x_v))),   t_v = g'(f'(x_v)),   theta' <- tau theta' + (1 - tau) theta

Only the online branch has a gradient, and a predictor q. Each view has batch statistics of its own.
"""

from collections.abc import Callable

import flax.linen as nn
import jax

from contrastive_jax.objectives import ema, image_model, parts
from contrastive_jax.objectives.image_model import ImageModel, Views
from contrastive_jax.types import Batch, LossOutput, ModelState, Objective, Params


def make(
    method: str,
    model: ImageModel,
    predictor: nn.Module,
    views: Views,
    view_loss: Callable[[jax.Array, jax.Array], jax.Array],
    *,
    steps: int,
    momentum: float,
    temperature: float | None = None,
) -> Objective:
    """Make the objective of a method with an online and a target branch.

        loss = view_loss(q_1, t_2) + view_loss(q_2, t_1)

    Args:
      method: its name, for messages.
      model: f, g and the online probe.
      predictor: q, embeddings [N,D] to predictions [N,D], called with `train=`.
      views: of two random views.
      view_loss: (predictions [B,D], target's embeddings [B,D]) to a scalar.
      steps: of the whole training.
      momentum: tau of the first step; it rises to 1 as half a cosine.
      temperature: of the softmax whose entropy is among the metrics.

    Returns:
      An objective whose model state is {"encoder", "head", "predictor": batch statistics,
      "target": {"params", "statistics"}}; `embed` is the trained encoder, not the target.

    Raises:
      ValueError: a momentum outside [0, 1]; when traced, other than two views.
    """
    ema.check(method.lower().replace(" ", "_"), momentum)

    def init(key: jax.Array, batch: Batch) -> tuple[Params, ModelState]:
        params, statistics = parts.init(model, views, key, batch, predictor=predictor)
        return params, {**statistics, "target": ema.copy(params, statistics, ("encoder", "head"))}

    def loss(
        params: Params, model_state: ModelState, batch: Batch, key: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, LossOutput]:
        x_BVHWC = parts.two_views(method, views, batch, key)
        h_BVF, z_BVD, statistics = image_model.encode_separately(
            model, params, model_state, x_BVHWC, key
        )
        q_BVD, of_predictor = parts.apply_to_views(
            predictor, "predictor", params, model_state, z_BVD
        )
        target = ema.follow(model_state["target"], params, momentum, step, steps)
        _, t_BVD, of_target = image_model.encode_separately(
            model, target["params"], target["statistics"], x_BVHWC, key
        )
        first, second = (view_loss(q_BVD[:, v], t_BVD[:, 1 - v]) for v in range(2))
        state = {**statistics, **of_predictor, "target": {**target, "statistics": of_target}}
        return parts.output(
            model, params, batch, h_BVF, z_BVD, first + second, state, temperature=temperature
        )

    return Objective(init, loss, image_model.embedder(model, views), image_model.AUXILIARY)
