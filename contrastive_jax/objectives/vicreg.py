"""VICReg: views agree, features vary, and do not repeat each other (arXiv 2105.04906).

    z_v = g(f(x_v))
    loss: invariance |z_1 - z_2|^2 + variance hinge(std) + covariance Cov_ab^2   (equations 1 to 6)

Variance and covariance are over the global batch, of each view.
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
    views: Views,
    *,
    n_classes: int,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
) -> Objective:
    """Make the objective of VICReg.

    Args:
      encoder: f, images [N,H,W,C] float32 to features [N,F], called with `train=`.
      head: g, features [N,F] to embeddings [N,D], called with `train=`.
      views: of two random views; see `augment.make_views`.
      n_classes: classes of the online probe; images of class -1 are left out of it. 0: no probe.
      invariance, variance, covariance: the weights of the terms, 0 or more.

    Raises:
      ValueError: a negative weight; when traced, other than two views.
    """
    weights = {"invariance": invariance, "variance": variance, "covariance": covariance}
    for name, weight in weights.items():
        if weight < 0:
            raise ValueError(f"vicreg {name} is {weight}; give 0 or more")
    model = image_model.make(encoder, head, n_classes)

    def init(key: jax.Array, batch: Batch) -> tuple[Params, ModelState]:
        return image_model.init(model, key, views.evaluate(batch["image"][:1]))

    def loss(
        params: Params, model_state: ModelState, batch: Batch, key: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, LossOutput]:
        del step
        x_BVHWC = parts.two_views("VICReg", views, batch, key)
        h_BVF, z_BVD, state = image_model.encode_separately(
            model, params, model_state, x_BVHWC, key
        )
        of_terms = invariance, variance, covariance
        total = losses.vicreg(z_BVD[:, 0], z_BVD[:, 1], of_terms)
        return parts.output(model, params, batch, h_BVF, z_BVD, total, state)

    return Objective(init, loss, image_model.embedder(model, views), image_model.AUXILIARY)
