"""What the image methods share beside `image_model`: views, modules on embeddings, the output.

A module on the embeddings (a predictor, prototypes) is a top-level part of the parameters and of
the statistics, as the encoder and the head are.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from contrastive_jax.evaluation import diagnostics
from contrastive_jax.objectives import image_model
from contrastive_jax.objectives.image_model import ImageModel, Views
from contrastive_jax.types import Batch, LossOutput, ModelState, Params


def two_views(method: str, views: Views, batch: Batch, key: jax.Array) -> jax.Array:
    """Make the two random views of a batch, [B,2,H,W,C].

    Raises:
      ValueError: when traced, another number of views.
    """
    x_BVHWC = views.train(key, batch["image"], batch["index"])
    if x_BVHWC.shape[1] != 2:
        raise ValueError(f"{method} was given {x_BVHWC.shape[1]} views; set augment.n_views to 2")
    return x_BVHWC


def init(
    model: ImageModel, views: Views, key: jax.Array, batch: Batch, **modules: nn.Module
) -> tuple[Params, ModelState]:
    """Make the parameters and statistics of a model and of modules on its embeddings."""
    key, *keys = jax.random.split(key, 1 + len(modules))
    x_BHWC = views.evaluate(batch["image"][:1])
    params, statistics = image_model.init(model, key, x_BHWC)
    embed = image_model.embedder(model, views)["image"]
    z = jax.eval_shape(embed, params, statistics, {"image": x_BHWC})["embedding"]
    for (name, module), module_key in zip(modules.items(), keys, strict=True):
        variables = module.init(module_key, jnp.zeros(z.shape, z.dtype), train=False)
        params[name] = variables["params"]
        statistics[name] = variables.get("batch_stats", {})
    return params, statistics


def apply_to_views(
    module: nn.Module, name: str, params: Params, statistics: ModelState, z_BVD: jax.Array
) -> tuple[jax.Array, ModelState]:
    """Apply a module to the embeddings, a view at a time: outputs [B,V,K] and its statistics."""
    outputs, of_module = [], statistics[name]
    for view in range(z_BVD.shape[1]):
        variables = {"params": params[name], "batch_stats": of_module}
        output: Any
        output, updated = module.apply(
            variables, z_BVD[:, view], train=True, mutable=["batch_stats"]
        )
        of_module = updated.get("batch_stats", {})
        outputs.append(output)
    return jnp.stack(outputs, axis=1), {name: of_module}


def output(
    model: ImageModel,
    params: Params,
    batch: Batch,
    h_BVF: jax.Array,
    z_BVD: jax.Array,
    loss: jax.Array,
    model_state: ModelState,
    metrics: Mapping[str, jax.Array] | None = None,
    temperature: float | None = None,
) -> tuple[jax.Array, LossOutput]:
    """Add the online probe to a method's loss, and the diagnostics of collapse to its metrics."""
    h_NF = h_BVF.reshape(-1, h_BVF.shape[-1])
    online, of_probe = image_model.online_probe(model, params, h_NF, batch)
    diagnosed = diagnostics.summary(image_model.diagnosed(z_BVD), temperature)
    row = {"loss": loss, **(metrics or {}), **diagnosed, **of_probe}
    return loss + online, LossOutput(model_state, row)
