"""Multi-crop: large views of an image and smaller ones, and what compares them.

Views of one size go through the encoder jointly, so that a small view costs what its pixels cost.
The head takes the features of all sizes in one batch, so that its batch statistics are of all
views, as in the code of SwAV and DINO; those of the encoder are of one size at a time.
"""

from collections.abc import Callable
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from contrastive_jax.objectives import image_model
from contrastive_jax.objectives.image_model import ImageModel, Views
from contrastive_jax.types import Batch, ModelState, Params


class Crops(Views, Protocol):
    """Views with smaller ones beside them, as `augment.make_views` makes them."""

    @property
    def small(self) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array] | None: ...


def encode(
    model: ImageModel,
    params: Params,
    model_state: ModelState,
    views: Crops,
    batch: Batch,
    key: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array, ModelState]:
    """Make and encode the views of a batch.

    Returns:
      The large views [B,T,H,W,C], their features [B,T,F], the embeddings of all views, the large
      ones first, [B,T+S,D], and the model state with the new batch statistics.

    Raises:
      ValueError: when traced, fewer than two large views.
    """
    x_BTHWC = views.train(key, batch["image"], batch["index"])
    if x_BTHWC.shape[1] < 2:
        raise ValueError(f"augment.n_views is {x_BTHWC.shape[1]}; give at least 2")
    h_BTF, of_encoder = image_model.features_jointly(model, params, model_state, x_BTHWC, key)
    h_BVF = h_BTF
    if views.small is not None:
        x_BSHWC = views.small(key, batch["image"], batch["index"])
        small_key = jax.random.fold_in(key, x_BTHWC.shape[1])
        h_BSF, of_encoder = image_model.features_jointly(
            model, params, of_encoder, x_BSHWC, small_key
        )
        h_BVF = jnp.concatenate([h_BTF, h_BSF], axis=1)
    z_BVD, of_head = image_model.project_jointly(model, params, model_state, h_BVF, key)
    return x_BTHWC, h_BTF, z_BVD, {**model_state, **of_encoder, **of_head}


def scores(
    prototypes: nn.Module, params: Params, z: jax.Array, frozen: jax.Array | bool = False
) -> jax.Array:
    """Compare embeddings [..., D] with the prototypes, [..., K]; frozen ones have no gradient."""
    held = jax.tree.map(jax.lax.stop_gradient, params["prototypes"])
    chosen = jax.tree.map(
        lambda still, moving: jnp.where(frozen, still, moving), held, params["prototypes"]
    )
    score: Any = prototypes.apply({"params": chosen}, z, train=True)
    return score


def swapped_cross_entropy(target_BTK: jax.Array, logits_BVK: jax.Array) -> jax.Array:
    """Average the cross-entropy of each view with the target of each other large view.

        loss = mean_i mean_{t, v != t} -q_it . log softmax(s_iv)

    Args:
      target_BTK: probabilities of the large views, without a gradient.
      logits_BVK: of all views, the large ones first.

    >>> target = jnp.array([[[1.0, 0.0], [0.0, 1.0]]])
    >>> round(float(swapped_cross_entropy(target, jnp.zeros((1, 2, 2)))), 4)  # log 2
    0.6931

    Caron et al. 2020 (SwAV, arXiv 2006.09882), equation 5; 2021 (DINO, 2104.14294), equation 3.
    """
    log_p_BVK = jax.nn.log_softmax(logits_BVK, axis=-1)
    cross_BTV = -jnp.einsum("btk,bvk->btv", jax.lax.stop_gradient(target_BTK), log_p_BVK)
    T, V = cross_BTV.shape[1:]
    other_TV = ~jnp.eye(T, V, dtype=bool)
    return jnp.where(other_TV, cross_BTV.mean(axis=0), 0.0).sum() / (T * (V - 1))
