"""What the image objectives share: an encoder, a head, and a linear probe that learns beside them.

The encoder and the head see views in batches of [B*V], example after example: joining the views
behind one another instead would move every image between devices.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from contrastive_jax.types import Batch, EmbedFn, Metrics, ModelState, Params


class Views(Protocol):
    """Two pure functions from uint8 images to float images, as `augment.make_views` makes them."""

    @property
    def train(self) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]: ...

    @property
    def evaluate(self) -> Callable[[jax.Array], jax.Array]: ...


class Parts(NamedTuple):
    """f, images [N,H,W,C] to features [N,F]; g, features to embeddings [N,D]; the online probe."""

    encoder: nn.Module
    head: nn.Module
    probe: nn.Module


def make(encoder: nn.Module, head: nn.Module, n_classes: int) -> Parts:
    """The parts, with a probe of `n_classes`."""
    return Parts(encoder, head, nn.Dense(n_classes, kernel_init=nn.initializers.zeros))


def init(parts: Parts, key: jax.Array, x_BHWC: jax.Array) -> tuple[Params, ModelState]:
    """Parameters {"encoder", "head", "probe"}, and the batch statistics of the first two."""
    encoder_key, head_key, probe_key = jax.random.split(key, 3)
    encoder_variables = parts.encoder.init(encoder_key, x_BHWC, train=False)
    h = parts.encoder.apply(encoder_variables, x_BHWC, train=False)
    variables = {
        "encoder": encoder_variables,
        "head": parts.head.init(head_key, h, train=False),
        "probe": parts.probe.init(probe_key, h),
    }
    params = {name: v["params"] for name, v in variables.items() if "params" in v}
    return params, {name: variables[name].get("batch_stats", {}) for name in ("encoder", "head")}


def train_mode(
    parts: Parts, params: Params, statistics: ModelState, x_NHWC: jax.Array
) -> tuple[jax.Array, jax.Array, ModelState]:
    """Features h, embeddings z and the new batch statistics of images."""
    h, of_encoder = _apply(parts.encoder, "encoder", params, statistics, x_NHWC)
    z, of_head = _apply(parts.head, "head", params, statistics, h)
    return h, z, {"encoder": of_encoder, "head": of_head}


def encode_together(
    parts: Parts, params: Params, statistics: ModelState, x_BVHWC: jax.Array
) -> tuple[jax.Array, jax.Array, ModelState]:
    """h_BVF, z_BVD and the new statistics, those of all views together: one call of the encoder."""
    examples, n_views = x_BVHWC.shape[:2]
    x = x_BVHWC.reshape(examples * n_views, *x_BVHWC.shape[2:])
    h, z, statistics = train_mode(parts, params, statistics, x)
    return h.reshape(examples, n_views, -1), z.reshape(examples, n_views, -1), statistics


def encode_apart(
    parts: Parts, params: Params, statistics: ModelState, x_BVHWC: jax.Array
) -> tuple[jax.Array, jax.Array, ModelState]:
    """The same with a call for each view in turn, whose batch statistics are of that view alone."""
    encoded = []
    for view in range(x_BVHWC.shape[1]):
        h, z, statistics = train_mode(parts, params, statistics, x_BVHWC[:, view])
        encoded.append((h, z))
    h_of_views, z_of_views = zip(*encoded, strict=True)
    return jnp.stack(h_of_views, axis=1), jnp.stack(z_of_views, axis=1), statistics


def _apply(
    module: nn.Module, name: str, params: Params, statistics: ModelState, x: jax.Array
) -> tuple[Any, Any]:
    variables = {"params": params.get(name, {}), "batch_stats": statistics[name]}
    y, updated = module.apply(variables, x, train=True, mutable=["batch_stats"])
    return y, updated.get("batch_stats", {})


def embedder(parts: Parts, views: Views) -> EmbedFn:
    """The encoder and the head in evaluation mode, on the plain images."""

    def embed(params: Params, model_state: ModelState, batch: Batch) -> dict[str, jax.Array]:
        outputs = {}
        x = views.evaluate(batch["image"])
        modules = (parts.encoder, parts.head)
        for module, name, output in zip(
            modules, ("encoder", "head"), ("features", "embedding"), strict=True
        ):
            variables = {"params": params.get(name, {}), "batch_stats": model_state[name]}
            x = outputs[output] = module.apply(variables, x, train=False)
        return outputs

    return embed


def online_probe(
    parts: Parts, params: Params, h_NF: jax.Array, label_N: jax.Array
) -> tuple[jax.Array, Metrics]:
    """Cross-entropy and accuracy over the labelled rows, without a gradient to the features."""
    logits_NK: Any = parts.probe.apply({"params": params["probe"]}, jax.lax.stop_gradient(h_NF))
    labelled = label_N >= 0
    count = jnp.maximum(labelled.sum(), 1)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits_NK, jnp.maximum(label_N, 0))
    correct = (logits_NK.argmax(axis=-1) == label_N) & labelled
    loss = jnp.where(labelled, losses, 0.0).sum() / count
    return loss, {"online_loss": loss, "online_accuracy": correct.sum() / count}
