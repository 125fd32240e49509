"""Plain cross-entropy on labelled views: the supervised baseline, and fine-tuning of an encoder.

    image -> view x -> h = f(x) -> logits W h + b -> softmax cross-entropy with the label

From a fresh state it is the supervised baseline of SimCLR's appendix B.3 and of SupCon; from the
encoder of a run, put in place of the fresh one, it fine-tunes, as in SimCLR's appendix B.5.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from contrastive_jax.objectives.simclr import Views
from contrastive_jax.types import Batch, LossOutput, ModelState, Objective, Params


def make(encoder: nn.Module, views: Views, *, n_classes: int) -> Objective:
    """Softmax cross-entropy as an objective; every view of an example has its label.

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
        params: Params, model_state: ModelState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, LossOutput]:
        x_BVHWC = views.train(key, batch["image"], batch["index"])
        x = x_BVHWC.reshape(-1, *x_BVHWC.shape[2:])
        variables = {"params": params["encoder"], "batch_stats": model_state["encoder"]}
        h, updated = encoder.apply(variables, x, train=True, mutable=["batch_stats"])
        logits: Any = classifier.apply({"params": params["classifier"]}, h)
        label_N = jnp.repeat(batch["label"], x_BVHWC.shape[1])
        labelled_N = label_N >= 0
        each_N = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(label_N, 0))
        count = jnp.maximum(labelled_N.sum(), 1)
        mean = jnp.where(labelled_N, each_N, 0.0).sum() / count
        correct = ((logits.argmax(axis=-1) == label_N) & labelled_N).sum() / count
        new_state = {"encoder": updated.get("batch_stats", {})}
        return mean, LossOutput(new_state, {"loss": mean, "accuracy": correct})

    def embed(params: Params, model_state: ModelState, batch: Batch) -> dict[str, jax.Array]:
        variables = {"params": params["encoder"], "batch_stats": model_state["encoder"]}
        h: Any = encoder.apply(variables, views.evaluate(batch["image"]), train=False)
        logits: Any = classifier.apply({"params": params["classifier"]}, h)
        return {"features": h, "embedding": logits}

    return Objective(init, loss, embed)
