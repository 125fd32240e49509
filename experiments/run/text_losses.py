"""The losses of pairs of texts: `loss.kind` -> the function, and what it reads of a batch."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from contrastive_jax import losses
from contrastive_jax.objectives import dual
from experiments.run import guide
from experiments.run.losses import keys_of_loss
from experiments.run.sections import Choice, Key


def triplet(
    query_BD: jax.Array,
    document_BD: jax.Array,
    negatives_BKD: jax.Array,
    margin: float | None = 1.0,
    *,
    distance: str = "euclidean",
    negatives_mask_BK: jax.Array,
) -> jax.Array:
    """Compute the mean triplet loss of a query over its negatives, [B]; 0 without any."""
    rows_BKD = [jnp.broadcast_to(x[:, None], negatives_BKD.shape) for x in (query_BD, document_BD)]
    flat = (x.reshape(-1, x.shape[-1]) for x in (*rows_BKD, negatives_BKD))
    loss_BK = losses.triplet(*flat, margin, distance=distance).reshape(negatives_mask_BK.shape)
    kept_BK = negatives_mask_BK.astype(jnp.float32)
    return jnp.sum(loss_BK * kept_BK, axis=1) / jnp.maximum(jnp.sum(kept_BK, axis=1), 1.0)


KINDS: dict[str, Callable[..., jax.Array]] = {
    "angle": losses.angle,
    "cosent": losses.cosent,
    "cosine_regression": losses.cosine_regression,
    "guided_info_nce": losses.guided_info_nce,
    "info_nce": losses.info_nce,
    "joint_info_nce": losses.joint_info_nce,
    "kl_distillation": losses.kl_distillation,
    "margin_mse": losses.margin_mse,
    "multi_positive_info_nce": losses.multi_positive_info_nce,
    "per_query_info_nce": losses.per_query_info_nce,
    "siglip": losses.siglip,
    "symmetric_info_nce": losses.symmetric_info_nce,
    "triplet": triplet,
}
GRADED = ("angle", "cosent", "cosine_regression")  # of pairs with scores
ARGUMENTS = {  # arrays of a batch by the names that the losses have for them
    "id": "ids_B",
    "negatives": "negatives_BKD",
    "negatives_mask": "negatives_mask_BK",
    "negatives_id": "negatives_ids_BK",
    "score": "score_B",
    "scores": "scores_BC",
    "query_guide": "guide_query_BF",
    "document_guide": "guide_key_BF",
    "negatives_guide": "guide_negatives_BKF",
}
LACKING = {  # what to give where an array is not there
    "negatives": "data.n_negatives, and pairs with negatives",
    "negatives_mask": "data.n_negatives, and pairs with negatives",
    "score": "a number 'score' in every row of the pairs",
    "scores": "'pos_scores' and 'neg_scores' in every row of the pairs, and data.n_negatives; "
    "negatives that are mined in training have none",
    "query_guide": "loss.guide, a folder of a sentence encoder",
    "document_guide": "loss.guide, a folder of a sentence encoder",
}


def _options(kind: str) -> dict[str, Key]:
    return keys_of_loss(KINDS[kind]) | (guide.KEYS if kind == "guided_info_nce" else {})


LOSS = Choice(
    key="kind",
    default="info_nce",
    common={"matryoshka": Key(None, tuple[int, ...] | None)},
    options={kind: _options(kind) for kind in KINDS},
)


def pair_loss(
    kind: str, matryoshka: tuple[int, ...] | None, **options: Any
) -> Callable[..., jax.Array]:
    """Make the loss of what `dual` gives, in the arguments that the library's function takes.

    Args:
      kind: of `KINDS`.
      matryoshka: sizes of embeddings, each a prefix of the next, that all have this loss.
      options: what is no array and no temperature.
    """
    loss = KINDS[kind]
    taken = inspect.signature(loss).parameters

    def of(split: dict[str, jax.Array], scale: dict[str, jax.Array], **axis: Any) -> jax.Array:
        _check_arrays(kind, split)
        sides = [split[name] for name in (*dual.SIDES, "negatives") if name in split]
        named = {
            ARGUMENTS[key]: value
            for key, value in split.items()
            if ARGUMENTS.get(key) in taken and key != "negatives"
        }

        def whole(query_BD: jax.Array, document_BD: jax.Array, *given: jax.Array) -> jax.Array:
            negatives = {"negatives_BKD": given[0]} if given else {}
            return loss(query_BD, document_BD, **negatives, **named, **scale, **options, **axis)

        return losses.matryoshka(whole, *sides, dims=matryoshka) if matryoshka else whole(*sides)

    def gathered(split: Any, scale: Any, axis_name: str | None = None) -> jax.Array:
        return of(split, scale, axis_name=axis_name)

    return gathered if "axis_name" in taken else of


def _check_arrays(kind: str, split: dict[str, jax.Array]) -> None:
    """Refuse a batch that lacks what the loss cannot do without."""
    taken = inspect.signature(KINDS[kind]).parameters
    for key, name in ARGUMENTS.items():
        needed = name in taken and taken[name].default is inspect.Parameter.empty
        if needed and key not in split:
            raise ValueError(f"loss.kind {kind!r} needs {LACKING[key]}")


def check_negatives(kind: str, n_negatives: int, first_NK: Any = None) -> None:
    """Refuse negatives that the loss does not read, and a loss that lacks them.

    Args:
      kind: of `KINDS`.
      n_negatives: of a pair.
      first_NK: those before the first refresh, -1 for none, where they are mined in training.

    Raises:
      ValueError: naming the losses that fit.
    """
    negatives = {
        name: inspect.signature(KINDS[name]).parameters.get("negatives_BKD") for name in KINDS
    }
    readers = [name for name, parameter in negatives.items() if parameter is not None]
    if n_negatives and kind not in readers:
        raise ValueError(
            f"loss.kind {kind!r} reads no negatives, and data.n_negatives is {n_negatives}; "
            f"give one of {readers}, or 0"
        )
    own = negatives[kind]
    alone = own is not None and (kind == "per_query_info_nce" or own.default is own.empty)
    if alone and not n_negatives:
        raise ValueError(f"loss.kind {kind!r} contrasts with negatives alone; set data.n_negatives")
    if alone and first_NK is not None and not (first_NK >= 0).any():
        raise ValueError(
            f"loss.kind {kind!r} contrasts with negatives alone, and the data has none for the "
            "steps before the first refresh; give data.negatives_path"
        )
