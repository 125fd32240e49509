"""Barlow Twins: the cross-correlation of two views is the identity (arXiv 2103.03230).

z_v = g(f(x_v)),   C_ab = correlation over the global batch of z_1's feature a and z_2's b
loss: sum_a (1 - C_aa)^2 + lambda sum_{a != b} C_ab^2   (equations 1 and 2)
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
    off_diagonal: float = 5e-3,
    scale: float = 1.0,
) -> Objective:
    """Make the objective of Barlow Twins.

    Args:
      encoder: f, images [N,H,W,C] float32 to features [N,F], called with `train=`.
      head: g, features [N,F] to embeddings [N,D], called with `train=`.
      views: of two random views; see `augment.make_views`.
      n_classes: classes of the online probe; images of class -1 are left out of it. 0: no probe.
      off_diagonal: lambda, 0 or more.
      scale: of the whole loss, which is a sum over D^2 entries; positive.

    Raises:
      ValueError: a number out of range; when traced, other than two views.
    """
    if off_diagonal < 0:
        raise ValueError(f"barlow off_diagonal is {off_diagonal}; give 0 or more")
    if scale <= 0:
        raise ValueError(f"barlow scale is {scale}; give a positive number")
    model = image_model.make(encoder, head, n_classes)

    def init(key: jax.Array, batch: Batch) -> tuple[Params, ModelState]:
        return image_model.init(model, key, views.evaluate(batch["image"][:1]))

    def loss(
        params: Params, model_state: ModelState, batch: Batch, key: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, LossOutput]:
        del step
        x_BVHWC = parts.two_views("Barlow Twins", views, batch, key)
        h_BVF, z_BVD, state = image_model.encode_separately(
            model, params, model_state, x_BVHWC, key
        )
        correlation = scale * losses.barlow_twins(z_BVD[:, 0], z_BVD[:, 1], off_diagonal)
        return parts.output(model, params, batch, h_BVF, z_BVD, correlation, state)

    return Objective(init, loss, image_model.embedder(model, views), image_model.AUXILIARY)
