"""Cross-entropy on labeled views: the supervised baseline, and fine-tuning of an encoder.

    image -> view x -> h = f(x) -> logits W h + b -> softmax cross-entropy with the label

From a fresh state it is the supervised baseline of SimCLR's appendix B.3 and of SupCon; from the
encoder of a run, put in place of the fresh one, it fine-tunes, as in SimCLR's appendix B.5.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from contrastive_jax.objectives import image_model
from contrastive_jax.objectives.image_model import Views
from contrastive_jax.types import Batch, LossOutput, ModelState, Objective, Params


def make(encoder: nn.Module, views: Views, *, n_classes: int) -> Objective:
    """Make the objective of softmax cross-entropy; every view of an example has its label.

    Args:
      encoder: f, images [N,H,W,C] float32 to features [N,F], called with `train=`.
      views: `train(key, image_BHWC, index_B)` -> [B,V,H,W,C] and `evaluate(image_BHWC)`.
      n_classes: C; images of class -1 are left out of the loss.

    Returns:
      An objective whose parameters are {"encoder", "classifier"}, whose model state is the batch
      statistics {"encoder"}, and whose `embed` gives the class logits as "embedding" [B,C]. The
      classifier starts at zero.
    """
    classifier = nn.Dense(n_classes, kernel_init=nn.initializers.zeros)

    def init(key: jax.Array, batch: Batch) -> tuple[Params, ModelState]:
        encoder_key, classifier_key = jax.random.split(key)
        x = views.evaluate(batch["image"][:1])
        variables = encoder.init(encoder_key, x, train=False)
        h = encoder.apply(variables, x, train=False)
        linear = classifier.init(classifier_key, h)["params"]
        params = {"encoder": variables["params"], "classifier": linear}
        return params, {"encoder": variables.get("batch_stats", {})}

    def loss(
        params: Params, model_state: ModelState, batch: Batch, key: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, LossOutput]:
        del step
        x_BVHWC = views.train(key, batch["image"], batch["index"])
        x_NHWC = x_BVHWC.reshape(-1, *x_BVHWC.shape[2:])
        variables = {"params": params["encoder"], "batch_stats": model_state["encoder"]}
        rngs = {"dropout": key}
        h, updated = encoder.apply(
            variables, x_NHWC, train=True, mutable=["batch_stats"], rngs=rngs
        )
        logits: Any = classifier.apply({"params": params["classifier"]}, h)
        label_N = jnp.repeat(batch["label"], x_BVHWC.shape[1])
        mean, accuracy = image_model.cross_entropy(logits, label_N)
        new_state = {"encoder": updated.get("batch_stats", {})}
        return mean, LossOutput(new_state, {"loss": mean, "accuracy": accuracy})

    def embed(params: Params, model_state: ModelState, batch: Batch) -> dict[str, jax.Array]:
        variables = {"params": params["encoder"], "batch_stats": model_state["encoder"]}
        x = image_model.as_shown(views, batch["image"])
        h: Any = encoder.apply(variables, x, train=False)
        logits: Any = classifier.apply({"params": params["classifier"]}, h)
        return {"features": h, "embedding": logits}

    return Objective(init, loss, {"image": embed})
