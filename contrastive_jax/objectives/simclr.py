"""SimCLR: agreement between two augmented views of an image (Chen et al. 2020, arXiv 2002.05709).

    image -> views x_1, x_2 -> h_v = f(x_v) -> z_v = g(h_v) -> pair loss of z_1 and z_2

With a loss that reads the labels, the same page is supervised contrastive learning (Khosla et al.
2020, arXiv 2004.11362). A linear probe learns beside the encoder, behind a stop-gradient, and
says in every step what the features are worth.
"""

from collections.abc import Callable
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from contrastive_jax import health
from contrastive_jax.types import Batch, LossOutput, Metrics, ModelState, Objective, Params

# The encoder and the head see views in batches of [B*V], example after example: joining the views
# behind one another instead would move every image between devices.
_GAUGE_EXAMPLES = 1024  # the gauges of a step hold an [N, N] matrix of at most this many examples


class Views(Protocol):
    """Two pure functions from uint8 images to float images, as `augment.make_views` makes them."""

    @property
    def train(self) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]: ...

    @property
    def evaluate(self) -> Callable[[jax.Array], jax.Array]: ...


def make(
    encoder: nn.Module,
    head: nn.Module,
    views: Views,
    pair_loss: Callable[[jax.Array, jax.Array], jax.Array],
    *,
    n_classes: int,
    temperature: float,
) -> Objective:
    """SimCLR as an objective.

    Args:
      encoder: f, images [N,H,W,C] float32 to features [N,F], called with `train=`.
      head: g, features [N,F] to embeddings [N,D], called with `train=`.
      views: `train(key, image_BHWC, index_B)` -> [B,V,H,W,C] and `evaluate(image_BHWC)`.
      pair_loss: (z_BVD, label_B) -> one loss for each anchor, [B,V]; see `parallel.shard_loss`.
      n_classes: classes of the online probe; images of class -1 are left out of it.
      temperature: of the softmax whose entropy is among the metrics.

    Returns:
      An objective whose parameters are {"encoder", "head", "probe"} and whose model state is the
      batch statistics of the first two.
    """
    probe = nn.Dense(n_classes, kernel_init=nn.initializers.zeros)
    modules = {"encoder": encoder, "head": head}

    def init(key: jax.Array, batch: Batch) -> tuple[Params, ModelState]:
        encoder_key, head_key, probe_key = jax.random.split(key, 3)
        x = views.evaluate(batch["image"][:1])
        encoder_variables = encoder.init(encoder_key, x, train=False)
        h = encoder.apply(encoder_variables, x, train=False)
        variables = {
            "encoder": encoder_variables,
            "head": head.init(head_key, h, train=False),
            "probe": probe.init(probe_key, h),
        }
        params = {name: v["params"] for name, v in variables.items() if "params" in v}
        statistics = {name: variables[name].get("batch_stats", {}) for name in modules}
        return params, statistics

    def apply(name: str, params: Params, state: ModelState, x: jax.Array) -> tuple[Any, Any]:
        """A module in training mode: its output and its new batch statistics."""
        variables = {"params": params.get(name, {}), "batch_stats": state[name]}
        y, updated = modules[name].apply(variables, x, train=True, mutable=["batch_stats"])
        return y, updated.get("batch_stats", {})

    def loss(
        params: Params, model_state: ModelState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, LossOutput]:
        x_BVHWC = views.train(key, batch["image"], batch["index"])
        examples, n_views = x_BVHWC.shape[:2]
        x = x_BVHWC.reshape(examples * n_views, *x_BVHWC.shape[2:])
        h, encoder_state = apply("encoder", params, model_state, x)
        z, head_state = apply("head", params, model_state, h)
        z_BVD = z.reshape(examples, n_views, -1)

        contrastive = pair_loss(z_BVD, batch["label"]).mean()
        logits: Any = probe.apply({"params": params["probe"]}, jax.lax.stop_gradient(h))
        online, online_metrics = _online_probe(logits, jnp.repeat(batch["label"], n_views))

        gauges = health.summary(jax.lax.stop_gradient(z_BVD[:_GAUGE_EXAMPLES]), temperature)
        metrics = {"loss": contrastive, **gauges, **online_metrics}
        new_state = {"encoder": encoder_state, "head": head_state}
        return contrastive + online, LossOutput(new_state, metrics)

    def embed(params: Params, model_state: ModelState, batch: Batch) -> dict[str, jax.Array]:
        outputs = {}
        x = views.evaluate(batch["image"])
        for name, output in (("encoder", "features"), ("head", "embedding")):
            variables = {"params": params.get(name, {}), "batch_stats": model_state[name]}
            x = outputs[output] = modules[name].apply(variables, x, train=False)
        return outputs

    return Objective(init, loss, embed)


def _online_probe(logits_NK: jax.Array, label_N: jax.Array) -> tuple[jax.Array, Metrics]:
    """Cross-entropy and accuracy over the labelled rows."""
    labelled = label_N >= 0
    count = jnp.maximum(labelled.sum(), 1)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits_NK, jnp.maximum(label_N, 0))
    correct = (logits_NK.argmax(axis=-1) == label_N) & labelled
    loss = jnp.where(labelled, losses, 0.0).sum() / count
    return loss, {"online_loss": loss, "online_accuracy": correct.sum() / count}
