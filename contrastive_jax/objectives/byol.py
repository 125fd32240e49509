"""BYOL: predict the target's embedding of the other view (Grill et al. 2020, arXiv 2006.07733).

    p_v = q(g(f(x_v))),   t_v = g'(f'(x_v)),   theta' <- tau theta' + (1 - tau) theta
    loss: |p_1 - t_2|^2 + |p_2 - t_1|^2 of unit vectors   (equation 2, symmetric)

No pair is negative. What keeps it from collapsing is that only the predictor's side has a gradient.
"""

import flax.linen as nn
import jax

from contrastive_jax import losses
from contrastive_jax.objectives import image_model, online_target
from contrastive_jax.objectives.image_model import Views
from contrastive_jax.types import Objective


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
    model = image_model.make(encoder, head, n_classes)

    def view_loss(p_BD: jax.Array, target_BD: jax.Array) -> jax.Array:
        return 2 + 2 * losses.negative_cosine(p_BD, target_BD).mean()

    return online_target.make(
        "BYOL", model, predictor, views, view_loss, steps=steps, momentum=momentum
    )
