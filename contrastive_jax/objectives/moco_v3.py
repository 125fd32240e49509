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
    if temperature <= 0:
        raise ValueError(f"moco_v3 temperature is {temperature}; give a positive number")
    model = image_model.make(encoder, head, n_classes)

    def view_loss(q_BD: jax.Array, k_BD: jax.Array) -> jax.Array:
        return 2 * temperature * losses.info_nce(q_BD, k_BD, temperature).mean()

    return online_target.make(
        "MoCo v3",
        model,
        predictor,
        views,
        view_loss,
        temperature=temperature,
        steps=steps,
        momentum=momentum,
    )
