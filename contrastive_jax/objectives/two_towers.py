"""Image and text in one space (CLIP, Radford et al. 2021, arXiv 2103.00020; SigLIP, 2303.15343).

    image -> view x -> z = g(f(x)),   caption -> tokens t -> y = k(h(t)),   pair loss of z and y

Pairs whose ids are equal depict the same thing and are no negatives of one another. Temperature and
bias are trained beside the towers. A linear probe says in every step what the features are worth.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from contrastive_jax.evaluation import diagnostics
from contrastive_jax.frozen import covers
from contrastive_jax.grad_cache import encode_in_chunks
from contrastive_jax.objectives import image_model
from contrastive_jax.objectives.image_model import Views
from contrastive_jax.objectives.temperature import Temperature
from contrastive_jax.types import Batch, EmbedFn, LossOutput, ModelState, Objective, Params

_TEXT = 2  # folded into the key of a step


def make(
    encoder: nn.Module,
    head: nn.Module,
    text: nn.Module,
    text_head: nn.Module,
    views: Views,
    pair_loss: Callable[..., jax.Array],
    *,
    n_classes: int,
    temperature: Temperature,
    bias: float | None = None,
    chunk_size: int | None = None,
    frozen: str = "",
) -> Objective:
    """Make the objective of two towers.

    Args:
      encoder: f, images [N,H,W,C] float32 to features [N,F], called with `train=`.
      head: g, features [N,F] to embeddings [N,D], called with `train=`.
      text: h, tokens [N,L] int32 and lengths [N] to features [N,F], called with `train=`.
      text_head: k, features [N,F] to embeddings [N,D], called with `train=`; without statistics.
      views: the first view of `train` is what the image tower is shown; see `augment.make_views`.
      pair_loss: (image_BD, text_BD, ids_B, scale) to [B], `scale` being [temperature] or
        [temperature, bias]; see `parallel.shard_loss`.
      n_classes: classes of the online probe; 0: no probe.
      temperature: fixed or learned.
      bias: of losses that have one, learned from this start where the temperature is learned.
      chunk_size: pairs that each tower encodes at a time, and again in the backward pass
        (GradCache); None for all.
      frozen: a regex, see `frozen.freeze`; an encoder that it covers stays in evaluation mode.

    Returns:
      An objective whose parameters are {"encoder", "head", "text", "text_head", "loss", "probe"}.
      Batches hold "image", "tokens" and "id"; it embeds both "image" and "text". A text ends behind
      its last token that is not 0.

    Raises:
      ValueError: at `init` a head of texts with batch norm.
    """
    model = image_model.make(encoder, head, n_classes, chunk_size=chunk_size, frozen=frozen)

    def init(key: jax.Array, batch: Batch) -> tuple[Params, ModelState]:
        image_key, *text_keys = jax.random.split(key, 3)
        params, state = image_model.init(model, image_key, views.evaluate(batch["image"][:1]))
        rows = lengths(batch["tokens"][:1])
        of_text = text.init(text_keys[0], *rows, train=False)
        h: Any = text.apply(of_text, *rows, train=False)
        of_head = text_head.init(text_keys[1], h, train=False)
        if "batch_stats" in of_head:
            raise ValueError("the text tower keeps no statistics; set head.output_batch_norm=False")
        params |= {"text": of_text["params"], "text_head": of_head.get("params", {})}
        if learned := temperature.init():
            params["loss"] = learned | ({} if bias is None else {"bias": jnp.float32(bias)})
        return params, state

    def text_tower(params: Params, tokens_NL: jax.Array, key: Any = None) -> tuple[Any, Any]:
        """Features and embeddings of texts; in training there is a key."""
        train = key is not None and not covers(params["text"], "text", frozen)
        rngs = {} if key is None else {"dropout": key}
        h: Any = text.apply({"params": params["text"]}, *lengths(tokens_NL), train=train, rngs=rngs)
        return h, text_head.apply({"params": params["text_head"]}, h, train=train)

    def encode_texts(params: Params, tokens_BL: jax.Array, key: jax.Array) -> jax.Array:
        embedding = lambda params, tokens_BL, key: text_tower(params, tokens_BL, key)[1]  # noqa: E731
        if chunk_size is None:
            return embedding(params, tokens_BL, key)
        return encode_in_chunks(embedding, params, tokens_BL, key, chunk_size=chunk_size)

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
        y_BD = encode_texts(params, batch["tokens"], jax.random.fold_in(key, _TEXT))
        scale = scale_of(params)
        contrastive = pair_loss(z_BD, y_BD, batch["id"], scale).mean()
        online, online_metrics = image_model.online_probe(model, params, h_BF, batch)

        both_BVD = image_model.diagnosed(jnp.stack([z_BD, y_BD], axis=1))
        measured = diagnostics.summary(both_BVD, scale[0], across=True)
        metrics = {"loss": contrastive, "temperature": scale[0], **measured, **online_metrics}
        if bias is not None:
            metrics["bias"] = scale[1]
        return contrastive + online, LossOutput(new_state, metrics)

    def embed_text(params: Params, model_state: ModelState, batch: Batch) -> dict[str, jax.Array]:
        h, z = text_tower(params, batch["tokens"])
        return {"features": h, "embedding": z}

    embed: dict[str, EmbedFn] = {**image_model.embedder(model, views), "text": embed_text}
    return Objective(init, loss, embed, image_model.AUXILIARY, chunk_size=chunk_size)


def lengths(tokens_NL: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Tokens, and the length of each text: what comes after the last token but 0 is padding.

    >>> lengths(jnp.array([[9, 0, 7, 0], [0, 0, 0, 0]], jnp.int32))[1].tolist()
    [3, 0]
    """
    place_L = jnp.arange(1, tokens_NL.shape[1] + 1, dtype=jnp.int32)
    return tokens_NL, jnp.where(tokens_NL != 0, place_L[None], 0).max(axis=1)
