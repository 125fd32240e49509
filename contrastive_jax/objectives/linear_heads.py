"""Linear classifiers on augmented views of a frozen encoder, one learning rate each, in one batch.

    image -> view x -> h = f(x), frozen -> logits W_r h + b_r for each rate r -> cross-entropy

The encoder is model state, so no gradient reaches it and nothing changes it; one pass of it serves
all rates. The losses are added, and as no head sees another's parameters, each is trained as if
alone.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from contrastive_jax.objectives.image_model import Views
from contrastive_jax.types import Batch, EmbedFn, LossOutput, ModelState, Objective, Params

# Half decades: what the sources of linear protocols use, 0.1 to 30, with room at both ends.
RATES = tuple(10.0 ** (power / 2) for power in range(-6, 7))


def make(
    embed: EmbedFn,
    frozen: tuple[Params, ModelState],
    views: Views,
    *,
    n_classes: int,
    n_rates: int = len(RATES),
) -> Objective:
    """Make the objective of the heads; train it with `optimizer`.

    Args:
      embed: the method's `Objective.embed["image"]`; its "features" are read.
      frozen: the parameters and the model state that `embed` takes.
      views: `train(key, image_BHWC, index_B)` -> [B,V,H,W,C]; the first view is used.
      n_classes: C.
      n_rates: R.

    Returns:
      An objective whose parameters are {"weight": [R,F,C], "bias": [R,C]}, zero at the start, whose
      model state is `frozen`, and whose `embed` gives the logits as "embedding" [B,R,C].
    """

    def features(model_state: ModelState, image_BHWC: jax.Array) -> jax.Array:
        of_encoder, statistics = model_state
        return embed(of_encoder, statistics, {"image": image_BHWC})["features"]

    def init(key: jax.Array, batch: Batch) -> tuple[Params, ModelState]:
        del key
        h_BF = jax.eval_shape(features, frozen, batch["image"])
        weight = jnp.zeros((n_rates, h_BF.shape[1], n_classes), jnp.float32)
        return {"weight": weight, "bias": jnp.zeros((n_rates, n_classes), jnp.float32)}, frozen

    def loss(
        params: Params, model_state: ModelState, batch: Batch, key: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, LossOutput]:
        del step
        view_BHWC = views.train(key, batch["image"], batch["index"])[:, 0]
        logits_BRC = _logits(params, features(model_state, view_BHWC))
        label_BR = jnp.broadcast_to(batch["label"][:, None], logits_BRC.shape[:2])
        each_BR = optax.softmax_cross_entropy_with_integer_labels(logits_BRC, label_BR)
        loss_R = jnp.mean(each_BR, axis=0)
        accuracy_R = jnp.mean(logits_BRC.argmax(axis=-1) == label_BR, axis=0)
        metrics = {"loss": jnp.min(loss_R), "accuracy": jnp.max(accuracy_R)}
        return jnp.sum(loss_R), LossOutput(model_state, metrics)

    def embed_heads(params: Params, model_state: ModelState, batch: Batch) -> dict[str, jax.Array]:
        h_BF = features(model_state, batch["image"])
        return {"features": h_BF, "embedding": _logits(params, h_BF)}

    return Objective(init, loss, {"image": embed_heads})


def _logits(params: Params, h_BF: jax.Array) -> jax.Array:
    logits_BRC = jnp.einsum("bf,rfc->brc", h_BF, params["weight"])
    return logits_BRC + params["bias"][None, :, :]


def optimizer(
    rates: Sequence[float], steps: int, *, momentum: float = 0.9
) -> optax.GradientTransformation:
    """Make Nesterov SGD in which head r has rate r; all fall as a half cosine to zero.

    Args:
      rates: R learning rates, positive.
      steps: the length of training.
      momentum: in [0, 1).

    Raises:
      ValueError: no rates, or one that is not positive and finite.

    >>> heads = {"bias": jnp.zeros((2, 1))}
    >>> sgd = optimizer((1.0, 10.0), steps=10, momentum=0.0)
    >>> updates, _ = sgd.update({"bias": jnp.ones((2, 1))}, sgd.init(heads))
    >>> updates["bias"].tolist()
    [[-1.0], [-10.0]]
    """
    if not rates or not all(0 < rate < float("inf") for rate in rates):
        raise ValueError(f"learning rates are {tuple(rates)}; give positive numbers")
    rate_R = np.asarray(rates, np.float32)

    def scale(update: jax.Array) -> jax.Array:
        return update * rate_R.reshape(-1, *[1] * (update.ndim - 1))

    sgd = optax.sgd(optax.cosine_decay_schedule(1.0, steps), momentum or None, nesterov=True)
    return optax.chain(sgd, optax.stateless(lambda updates, _: jax.tree.map(scale, updates)))
