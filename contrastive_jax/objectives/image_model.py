"""What the image objectives share: encoder, projection head, online probe, evaluation mode.

The encoder and the head see views in batches of [B*V], example after example: joining the views
behind one another instead would move every image between devices.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from contrastive_jax.frozen import covers
from contrastive_jax.grad_cache import encode_in_chunks
from contrastive_jax.types import Batch, EmbedFn, Metrics, ModelState, Params

DIAGNOSED = 1024  # the diagnostics of a step hold an [N, N] matrix of at most so many examples
AUXILIARY = ("probe", "loss")  # parameters of what measures the encoder, and of the loss
_DROPOUT = 1  # folded into the key of a step, for modules that are random in training


class Views(Protocol):
    """Two pure functions from uint8 images to float images, as `augment.make_views` makes them."""

    @property
    def train(self) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]: ...

    @property
    def evaluate(self) -> Callable[[jax.Array], jax.Array]: ...


class ImageModel(NamedTuple):
    """f, images [N,H,W,C] to features [N,F]; g, features to embeddings [N,D]; the online probe."""

    encoder: nn.Module
    head: nn.Module
    probe: nn.Module | None
    chunk_size: int | None = None  # examples encoded at a time in training
    frozen: str = ""  # a module whose parameters all match stays in evaluation mode


def make(
    encoder: nn.Module,
    head: nn.Module,
    n_classes: int,
    *,
    chunk_size: int | None = None,
    frozen: str = "",
) -> ImageModel:
    """Join an encoder and a head, with an online probe where there are classes.

    With `chunk_size`, training encodes so many examples at a time and each chunk again in the
    backward pass (GradCache), so that the activations of only one are in memory. Without batch
    norm the gradient is that of the plain step. With it, each chunk is normalized by statistics of
    its own, and the running ones move once a step, by the mean of those of the chunks.
    """
    probe = nn.Dense(n_classes, kernel_init=nn.initializers.zeros) if n_classes else None
    return ImageModel(encoder, head, probe, chunk_size, frozen)


def init(model: ImageModel, key: jax.Array, x_BHWC: jax.Array) -> tuple[Params, ModelState]:
    """Make the parameters {"encoder", "head", "probe"} and the first two's batch statistics."""
    encoder_key, head_key, probe_key = jax.random.split(key, 3)
    encoder_variables = model.encoder.init(encoder_key, x_BHWC, train=False)
    h = model.encoder.apply(encoder_variables, x_BHWC, train=False)
    variables: dict[str, Any] = {
        "encoder": encoder_variables,
        "head": model.head.init(head_key, h, train=False),
    }
    if model.probe is not None:
        variables["probe"] = model.probe.init(probe_key, h)
    params = {name: v["params"] for name, v in variables.items() if "params" in v}
    return params, {name: variables[name].get("batch_stats", {}) for name in ("encoder", "head")}


def embedding_dim(model: ImageModel, params: Params, statistics: ModelState, x: jax.Array) -> int:
    """The size D of the embeddings, from shapes alone."""
    _, z, _ = jax.eval_shape(lambda: _train_mode(model, params, statistics, x, jax.random.key(0)))
    return z.shape[-1]


def train_mode(
    model: ImageModel, params: Params, statistics: ModelState, x_NHWC: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array, ModelState]:
    """Compute features h, embeddings z and the new batch statistics of views."""
    return _in_chunks(model, _train_mode, params, statistics, x_NHWC, key)


def _train_mode(
    model: ImageModel, params: Params, statistics: ModelState, x_NHWC: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array, ModelState]:
    h, of_encoder = _apply(model, "encoder", params, statistics, x_NHWC, key)
    z, of_head = _apply(model, "head", params, statistics, h, key)
    return h, z, {"encoder": of_encoder, "head": of_head}


def encode_jointly(
    model: ImageModel, params: Params, statistics: ModelState, x_BVHWC: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array, ModelState]:
    """Encode all views in one call: h_BVF, z_BVD and batch statistics over all of them."""
    return _in_chunks(model, _jointly, params, statistics, x_BVHWC, key)


def _jointly(
    model: ImageModel, params: Params, statistics: ModelState, x_BVHWC: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array, ModelState]:
    h_BVF, of_encoder = features_jointly(model, params, statistics, x_BVHWC, key)
    z_BVD, of_head = project_jointly(model, params, statistics, h_BVF, key)
    return h_BVF, z_BVD, {**of_encoder, **of_head}


def features_jointly(
    model: ImageModel, params: Params, statistics: ModelState, x_BVHWC: jax.Array, key: jax.Array
) -> tuple[jax.Array, ModelState]:
    """Compute the features h_BVF of views of one size, and the encoder's batch statistics."""
    return _folded(model, "encoder", params, statistics, x_BVHWC, key)


def project_jointly(
    model: ImageModel, params: Params, statistics: ModelState, h_BVF: jax.Array, key: jax.Array
) -> tuple[jax.Array, ModelState]:
    """Compute the embeddings z_BVD of the features of all views, and the head's statistics."""
    return _folded(model, "head", params, statistics, h_BVF, key)


def _folded(
    model: ImageModel,
    name: str,
    params: Params,
    statistics: ModelState,
    x_BV: jax.Array,
    key: jax.Array,
) -> tuple[jax.Array, ModelState]:
    """Apply a module to all views in one call, with batch statistics over all of them."""
    y, of_module = _apply(model, name, params, statistics, x_BV.reshape(-1, *x_BV.shape[2:]), key)
    return y.reshape(*x_BV.shape[:2], -1), {name: of_module}


def encode_separately(
    model: ImageModel, params: Params, statistics: ModelState, x_BVHWC: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array, ModelState]:
    """Encode one view after the other, each with batch statistics of its own."""
    encoded = []
    for view in range(x_BVHWC.shape[1]):
        view_key = jax.random.fold_in(key, view)
        h, z, statistics = train_mode(model, params, statistics, x_BVHWC[:, view], view_key)
        encoded.append((h, z))
    h_of_views, z_of_views = zip(*encoded, strict=True)
    return jnp.stack(h_of_views, axis=1), jnp.stack(z_of_views, axis=1), statistics


def _in_chunks(
    model: ImageModel,
    encode: Callable[..., tuple[jax.Array, jax.Array, ModelState]],
    params: Params,
    statistics: ModelState,
    x: jax.Array,
    key: jax.Array,
) -> tuple[jax.Array, jax.Array, ModelState]:
    """Encode the examples of x chunk by chunk, or all of them where the model has no chunks."""
    if model.chunk_size is None:
        return encode(model, params, statistics, x, key)

    def of_chunk(params: Params, x: jax.Array, key: jax.Array) -> tuple[Any, ModelState]:
        h, z, new = encode(model, params, statistics, x, key)
        return (h, z), new

    (h, z), new = encode_in_chunks(
        of_chunk, params, x, key, chunk_size=model.chunk_size, has_aux=True
    )
    return h, z, new


def _apply(
    model: ImageModel,
    name: str,
    params: Params,
    statistics: ModelState,
    x: jax.Array,
    key: jax.Array,
) -> tuple[Any, Any]:
    variables = {"params": params.get(name, {}), "batch_stats": statistics[name]}
    rngs = {"dropout": jax.random.fold_in(key, _DROPOUT)}
    module = model.encoder if name == "encoder" else model.head
    train = not covers(variables["params"], name, model.frozen)
    y, updated = module.apply(variables, x, train=train, mutable=["batch_stats"], rngs=rngs)
    return y, updated.get("batch_stats", {})


def embedder(model: ImageModel, views: Views) -> Mapping[str, EmbedFn]:
    """Make `Objective.embed`: encoder and head in evaluation mode.

    Images in uint8 are those of the data set; images in float are views already, in [0, 1] and of
    the size that the encoder is shown, and are taken as they are.
    """

    def embed(params: Params, model_state: ModelState, batch: Batch) -> dict[str, jax.Array]:
        x = as_shown(views, batch["image"])
        encoder = {"params": params["encoder"], "batch_stats": model_state["encoder"]}
        h: Any = model.encoder.apply(encoder, x, train=False)
        head = {"params": params.get("head", {}), "batch_stats": model_state["head"]}
        z: Any = model.head.apply(head, h, train=False)
        return {"features": h, "embedding": z}

    return {"image": embed}


def as_shown(views: Views, image_BHWC: jax.Array) -> jax.Array:
    """Turn images of the data set into what the encoder is shown; float images are that already."""
    is_view = jnp.issubdtype(image_BHWC.dtype, jnp.floating)
    return image_BHWC if is_view else views.evaluate(image_BHWC)


def diagnosed(z_BVD: jax.Array) -> jax.Array:
    """Take every so many-th example of a batch, `DIAGNOSED` of a large one, without a gradient.

    The first ones would lie on the first devices, which would have to send them to the others.

    >>> diagnosed(jnp.zeros((4096, 2, 8))).shape
    (1024, 2, 8)
    """
    every = max(len(z_BVD) // DIAGNOSED, 1)
    n = min(len(z_BVD), DIAGNOSED)
    return jax.lax.stop_gradient(z_BVD[: n * every].reshape(n, every, *z_BVD.shape[1:])[:, 0])


def online_probe(
    model: ImageModel, params: Params, h_NF: jax.Array, batch: Batch
) -> tuple[jax.Array | float, Metrics]:
    """Score features by a linear probe that learns beside the encoder.

    Cross-entropy and accuracy over the labeled rows, without a gradient to the features; each
    example has N / B rows. Without a probe or labels: 0 and no metrics.
    """
    if model.probe is None or "label" not in batch:
        return 0.0, {}
    label_N = jnp.repeat(batch["label"], len(h_NF) // len(batch["label"]))
    logits_NK: Any = model.probe.apply({"params": params["probe"]}, jax.lax.stop_gradient(h_NF))
    loss, accuracy = cross_entropy(logits_NK, label_N)
    return loss, {"online_loss": loss, "online_accuracy": accuracy}


def cross_entropy(logits_NK: jax.Array, label_N: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Average softmax cross-entropy and accuracy over the labeled rows (label >= 0).

    >>> loss, accuracy = cross_entropy(jnp.zeros((3, 2)), jnp.array([0, 1, -1]))
    >>> round(float(loss), 4), float(accuracy)  # log 2; ties go to class 0
    (0.6931, 0.5)
    """
    labeled_N = label_N >= 0
    count = jnp.maximum(labeled_N.sum(), 1)
    each_N = optax.softmax_cross_entropy_with_integer_labels(logits_NK, jnp.maximum(label_N, 0))
    correct_N = (logits_NK.argmax(axis=-1) == label_N) & labeled_N
    return jnp.where(labeled_N, each_N, 0.0).sum() / count, correct_N.sum() / count
