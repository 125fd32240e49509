"""SimSiam: predict the other view's embedding, which has no gradient (arXiv 2011.10566).

    z_v = g(f(x_v)),   p_v = q(z_v)
    loss: -(p_1 . stop(z_2) + p_2 . stop(z_1)) / 2 of unit vectors   (equations 1 to 4)

BYOL without a target encoder. The predictor keeps its first learning rate while that of the others
falls (appendix A). `embedding_std` near 0 is collapse; that of random directions is 1 / sqrt(D).
"""

import flax.linen as nn
import jax

from contrastive_jax import losses
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
    constant_rate: bool = True,
) -> Objective:
    """Make SimSiam's objective.

    Args:
      encoder: f, images [N,H,W,C] float32 to features [N,F], called with `train=`.
      head: g, features [N,F] to embeddings [N,D], called with `train=`.
      predictor: q, embeddings [N,D] to predictions [N,D], called with `train=`.
      views: of two random views; see `augment.make_views`.
      n_classes: classes of the online probe; images of class -1 are left out of it. 0: no probe.
      constant_rate: the learning rate of the predictor does not fall.

    Returns:
      An objective whose model state is the batch statistics of encoder, head and predictor.

    Raises:
      ValueError: when traced, other than two views, or predictions of other dimensions than the
        embeddings.
    """
    model = image_model.make(encoder, head, n_classes)

    def init(key: jax.Array, batch: Batch) -> tuple[Params, ModelState]:
        return parts.init(model, views, key, batch, predictor=predictor)

    def loss(
        params: Params, model_state: ModelState, batch: Batch, key: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, LossOutput]:
        del step
        x_BVHWC = parts.two_views("SimSiam", views, batch, key)
        h_BVF, z_BVD, statistics = image_model.encode_separately(
            model, params, model_state, x_BVHWC, key
        )
        p_BVD, of_predictor = parts.apply_to_views(
            predictor, "predictor", params, model_state, z_BVD
        )
        first, second = (
            losses.negative_cosine(p_BVD[:, v], z_BVD[:, 1 - v]).mean() for v in range(2)
        )
        state = {**statistics, **of_predictor}
        return parts.output(model, params, batch, h_BVF, z_BVD, (first + second) / 2, state)

    constant = ("predictor",) if constant_rate else ()
    embed = image_model.embedder(model, views)
    return Objective(init, loss, embed, image_model.AUXILIARY, constant)
