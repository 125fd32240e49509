"""SimCLR: agreement between two augmented views of an image (Chen et al. 2020, arXiv 2002.05709).

    image -> views x_1, x_2 -> h_v = f(x_v) -> z_v = g(h_v) -> pair loss of z_1 and z_2

With a loss that reads the labels, this is supervised contrastive learning (Khosla et al.
2020, arXiv 2004.11362). A linear probe learns beside the encoder, behind a stop-gradient, and
says in every step what the features are worth.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from contrastive_jax.evaluation import diagnostics
from contrastive_jax.objectives import image_model
from contrastive_jax.objectives.image_model import Views
from contrastive_jax.types import Batch, LossOutput, ModelState, Objective, Params

LOSS_KEY = 2  # folded into a key for what the loss draws; the modules fold in smaller numbers


def make(
    encoder: nn.Module,
    head: nn.Module,
    views: Views,
    pair_loss: Callable[..., jax.Array],
    *,
    n_classes: int,
    reads_labels: bool = False,
    temperature: float | Callable[[Params], jax.Array | float] | None = None,
    views_separately: bool = False,
    init_loss: Callable[[jax.Array, int], Params] | None = None,
    chunk_size: int | None = None,
) -> Objective:
    """Make SimCLR's objective.

    Args:
      encoder: f, images [N,H,W,C] float32 to features [N,F], called with `train=`.
      head: g, features [N,F] to embeddings [N,D], called with `train=`.
      views: `train(key, image_BHWC, index_B)` -> [B,V,H,W,C] and `evaluate(image_BHWC)`.
      pair_loss: z_BVD, or (z_BVD, label_B) where it reads labels, to one loss for each anchor,
        [B,V], or to a scalar; see `parallel.shard_loss`.
      n_classes: classes of the online probe; images of class -1 are left out of it. 0: no probe.
      reads_labels: whether `pair_loss` takes the labels.
      temperature: of the softmax whose entropy is among the metrics; None leaves it out. One that
        is learned is a function of the loss's parameters, and a metric itself.
      views_separately: encode one view after the other, each with batch statistics of its own,
        where else all views of the batch go through the encoder jointly.
      init_loss: (key, D) -> parameters of the loss: a learned temperature, class proxies. With it
        `pair_loss` takes two more arguments, these parameters and a key.
      chunk_size: examples encoded at a time, see `image_model.make`.

    Returns:
      An objective whose parameters are {"encoder", "head", "probe", "loss"} and whose model state
      is the batch statistics of the first two.
    """
    model = image_model.make(encoder, head, n_classes, chunk_size=chunk_size)
    encode = image_model.encode_separately if views_separately else image_model.encode_jointly

    def init(key: jax.Array, batch: Batch) -> tuple[Params, ModelState]:
        x = views.evaluate(batch["image"][:1])
        params, statistics = image_model.init(model, key, x)
        if init_loss is not None:
            dim = image_model.embedding_dim(model, params, statistics, x)
            params["loss"] = init_loss(jax.random.fold_in(key, LOSS_KEY), dim)
        return params, statistics

    def loss(
        params: Params, model_state: ModelState, batch: Batch, key: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, LossOutput]:
        del step
        x_BVHWC = views.train(key, batch["image"], batch["index"])
        h_BVF, z_BVD, new_state = encode(model, params, model_state, x_BVHWC, key)

        labels = (batch["label"],) if reads_labels else ()
        of_loss = params.get("loss", {})
        own = () if init_loss is None else (of_loss, jax.random.fold_in(key, LOSS_KEY))
        contrastive = pair_loss(z_BVD, *labels, *own).mean()
        h_NF = h_BVF.reshape(-1, h_BVF.shape[-1])
        online, online_metrics = image_model.online_probe(model, params, h_NF, batch)

        z_BVD = image_model.diagnosed(z_BVD)
        if callable(temperature):
            used = jax.lax.stop_gradient(jnp.asarray(temperature(of_loss)))
            learned = {"temperature": used}
        else:
            used, learned = temperature, {}
        metrics = {"loss": contrastive, **diagnostics.summary(z_BVD, used), **online_metrics}
        return contrastive + online, LossOutput(new_state, {**metrics, **learned})

    embed = image_model.embedder(model, views)
    return Objective(init, loss, embed, image_model.AUXILIARY, chunk_size=chunk_size)
