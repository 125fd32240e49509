"""SimCLR: agreement between two augmented views of an image (Chen et al. 2020, arXiv 2002.05709).

    image -> views x_1, x_2 -> h_v = f(x_v) -> z_v = g(h_v) -> pair loss of z_1 and z_2

With a loss that reads the labels, the same page is supervised contrastive learning (Khosla et al.
2020, arXiv 2004.11362). A linear probe learns beside the encoder, behind a stop-gradient, and
says in every step what the features are worth.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from contrastive_jax.evaluation import diagnostics
from contrastive_jax.objectives import image_model as image_parts
from contrastive_jax.objectives.image_model import Views
from contrastive_jax.types import Batch, LossOutput, ModelState, Objective, Params

GAUGE_EXAMPLES = 1024  # the gauges of a step hold an [N, N] matrix of at most this many examples


def make(
    encoder: nn.Module,
    head: nn.Module,
    views: Views,
    pair_loss: Callable[[jax.Array, jax.Array], jax.Array],
    *,
    n_classes: int,
    temperature: float,
    views_apart: bool = False,
) -> Objective:
    """SimCLR as an objective.

    Args:
      encoder: f, images [N,H,W,C] float32 to features [N,F], called with `train=`.
      head: g, features [N,F] to embeddings [N,D], called with `train=`.
      views: `train(key, image_BHWC, index_B)` -> [B,V,H,W,C] and `evaluate(image_BHWC)`.
      pair_loss: (z_BVD, label_B) -> one loss for each anchor, [B,V]; see `parallel.shard_loss`.
      n_classes: classes of the online probe; images of class -1 are left out of it.
      temperature: of the softmax whose entropy is among the metrics.
      views_apart: encode one view after the other, each with batch statistics of its own, where
        else all views of the batch go through the encoder together.

    Returns:
      An objective whose parameters are {"encoder", "head", "probe"} and whose model state is the
      batch statistics of the first two.
    """
    parts = image_parts.make(encoder, head, n_classes)

    def init(key: jax.Array, batch: Batch) -> tuple[Params, ModelState]:
        return image_parts.init(parts, key, views.evaluate(batch["image"][:1]))

    def loss(
        params: Params, model_state: ModelState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, LossOutput]:
        x_BVHWC = views.train(key, batch["image"], batch["index"])
        examples, n_views = x_BVHWC.shape[:2]
        encode = image_parts.encode_apart if views_apart else image_parts.encode_together
        h_BVF, z_BVD, new_state = encode(parts, params, model_state, x_BVHWC)

        contrastive = pair_loss(z_BVD, batch["label"]).mean()
        labels, h = jnp.repeat(batch["label"], n_views), h_BVF.reshape(examples * n_views, -1)
        online, online_metrics = image_parts.online_probe(parts, params, h, labels)

        gauges = diagnostics.summary(jax.lax.stop_gradient(z_BVD[:GAUGE_EXAMPLES]), temperature)
        metrics = {"loss": contrastive, **gauges, **online_metrics}
        return contrastive + online, LossOutput(new_state, metrics)

    return Objective(init, loss, image_parts.embedder(parts, views))
