"""Image and text in one space (CLIP, Radford et al. 2021, arXiv 2103.00020; SigLIP, 2303.15343).

    image -> view x -> z = g(f(x)),   caption -> tokens t -> y = h(t),   pair loss of z and y

Pairs whose ids are equal depict the same thing and are no negatives of one another. Temperature and
bias are trained beside the towers. A linear probe says in every step what the features are worth.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from contrastive_jax.evaluation import diagnostics
from contrastive_jax.objectives import image_model
from contrastive_jax.objectives.image_model import Views
from contrastive_jax.objectives.temperature import Temperature
from contrastive_jax.types import Batch, EmbedFn, LossOutput, ModelState, Objective, Params


def make(
    encoder: nn.Module,
    head: nn.Module,
    text: nn.Module,
    views: Views,
    pair_loss: Callable[..., jax.Array],
    *,
    n_classes: int,
    temperature: Temperature,
    bias: float | None = None,
) -> Objective:
    """Make the objective of two towers.

    Args:
      encoder: f, images [N,H,W,C] float32 to features [N,F], called with `train=`.
      head: g, features [N,F] to embeddings [N,D], called with `train=`.
      text: h, tokens [N,L] int32 to embeddings [N,D], called with `train=`.
      views: the first view of `train` is what the image tower is shown; see `augment.make_views`.
      pair_loss: (image_BD, text_BD, ids_B, scale) to [B], `scale` being [temperature] or
        [temperature, bias]; see `parallel.shard_loss`.
      n_classes: classes of the online probe; 0: no probe.
      temperature: fixed or learned.
      bias: of losses that have one, learned from this start where the temperature is learned.

    Returns:
      An objective whose parameters are {"encoder", "head", "text", "loss", "probe"}. Batches hold
      "image", "tokens" and "id"; it embeds both "image" and "text".
    """
    model = image_model.make(encoder, head, n_classes)

    def init(key: jax.Array, batch: Batch) -> tuple[Params, ModelState]:
        image_key, text_key = jax.random.split(key)
        params, state = image_model.init(model, image_key, views.evaluate(batch["image"][:1]))
        params["text"] = text.init(text_key, batch["tokens"][:1], train=False)["params"]
        if learned := temperature.init():
            params["loss"] = learned | ({} if bias is None else {"bias": jnp.float32(bias)})
        return params, state

    def scale_of(params: Params) -> jax.Array:
        """[temperature] or [temperature, bias]."""
        own = params.get("loss", {})
        values = [temperature.value(own)] + ([] if bias is None else [own.get("bias", bias)])
        return jnp.stack([jnp.asarray(value, jnp.float32) for value in values])

    def loss(
        params: Params, model_state: ModelState, batch: Batch, key: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, LossOutput]:
        del step
        x_BVHWC = views.train(key, batch["image"], batch["index"])
        h_BF, z_BD, new_state = image_model.train_mode(
            model, params, model_state, x_BVHWC[:, 0], key
        )
        y_BD: Any = text.apply({"params": params["text"]}, batch["tokens"], train=True)
        scale = scale_of(params)
        contrastive = pair_loss(z_BD, y_BD, batch["id"], scale).mean()
        online, online_metrics = image_model.online_probe(model, params, h_BF, batch)

        both_BVD = jnp.stack([z_BD, y_BD], axis=1)[: image_model.DIAGNOSED]
        measured = diagnostics.summary(jax.lax.stop_gradient(both_BVD), scale[0])
        metrics = {"loss": contrastive, "temperature": scale[0], **measured, **online_metrics}
        if bias is not None:
            metrics["bias"] = scale[1]
        return contrastive + online, LossOutput(new_state, metrics)

    def embed_text(params: Params, model_state: ModelState, batch: Batch) -> dict[str, jax.Array]:
        y_BD: Any = text.apply({"params": params["text"]}, batch["tokens"], train=False)
        return {"embedding": y_BD}

    embed: dict[str, EmbedFn] = {**image_model.embedder(model, views), "text": embed_text}
    return Objective(init, loss, embed, image_model.AUXILIARY)
