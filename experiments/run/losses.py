"""The losses of a config by name: `loss.kind` -> the function, and how a batch feeds it."""

import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from contrastive_jax import losses, parallel
from contrastive_jax.objectives import temperature as tempered
from contrastive_jax.parallel import Mesh
from contrastive_jax.types import Params
from experiments.run import feeding
from experiments.run.sections import Choice, Key, takes

LABELED = (  # what cannot be fed without labels
    feeding.views_and_labels,
    feeding.logits,
    feeding.two_sides_and_labels,
    feeding.two_sides_and_targets,
    feeding.labeled_rows,
    feeding.rows_and_proxies,
    feeding.scored_pairs,
    feeding.dissimilar_pairs,
)
MINED = (feeding.triplets, feeding.queries_and_negatives)
PROXIES = ("weights_KD", "weights_KPD")


class PairLoss(NamedTuple):
    """A loss ready for the mesh, and what the objective has to know of it."""

    # z_BVD, then label_B if it reads labels, then (params, key) if it has `init`
    function: Callable[..., jax.Array]
    reads_labels: bool
    temperature: float | Callable[[Params], jax.Array | float] | None
    init: Callable[[jax.Array, int], Params] | None = None  # (key, D) -> its own parameters


def cross_entropy(logits_BVK: jax.Array, label_B: jax.Array) -> jax.Array:
    """The supervised baseline: the embedding is taken for class logits; unlabeled rows give 0."""
    label_BV = jnp.broadcast_to(jnp.maximum(label_B, 0)[:, None], logits_BVK.shape[:2])
    loss = optax.softmax_cross_entropy_with_integer_labels(logits_BVK, label_BV)
    return jnp.where(label_B[:, None] >= 0, loss, 0.0)


# name: (the loss, what it is fed). A new loss is a line here.
KINDS: dict[str, tuple[Callable[..., jax.Array], feeding.Feeding]] = {
    "alignment": (losses.alignment, feeding.two_sides),
    "angle": (losses.angle, feeding.scored_pairs),
    "angular": (losses.angular, feeding.two_sides),
    "arc_face": (losses.arc_face, feeding.rows_and_proxies),
    "barlow_twins": (losses.barlow_twins, feeding.two_sides),
    "batch_all_triplet": (losses.batch_all_triplet, feeding.labeled_rows),
    "batch_hard_triplet": (losses.batch_hard_triplet, feeding.labeled_rows),
    "batch_semi_hard_triplet": (losses.batch_semi_hard_triplet, feeding.labeled_rows),
    "circle": (losses.circle, feeding.labeled_rows),
    "cos_face": (losses.cos_face, feeding.rows_and_proxies),
    "cosent": (losses.cosent, feeding.scored_pairs),
    "cosine_regression": (losses.cosine_regression, feeding.scored_pairs),
    "cross_entropy": (cross_entropy, feeding.logits),
    "debiased_nt_xent": (losses.debiased_nt_xent, feeding.views),
    "decoupled": (losses.decoupled, feeding.views),
    "guided_info_nce": (losses.guided_info_nce, feeding.two_sides_guided),
    "hard_negatives": (losses.debiased_nt_xent, feeding.views),
    "hardness_info_nce": (losses.hardness_info_nce, feeding.two_sides),
    "info_nce": (losses.info_nce, feeding.two_sides),
    "joint_info_nce": (losses.joint_info_nce, feeding.two_sides),
    "koleo": (losses.koleo, feeding.rows),
    "labeled_nt_xent": (losses.labeled_nt_xent, feeding.views_and_labels),
    "lifted_structure": (losses.lifted_structure, feeding.labeled_rows),
    "margin_contrastive": (losses.margin_contrastive, feeding.dissimilar_pairs),
    "multi_positive_info_nce": (losses.multi_positive_info_nce, feeding.two_sides_and_labels),
    "multi_similarity": (losses.multi_similarity, feeding.labeled_rows),
    "n_pair": (losses.n_pair, feeding.two_sides),
    "negative_cosine": (losses.negative_cosine, feeding.two_sides),
    "nt_logistic": (losses.nt_logistic, feeding.views),
    "nt_margin": (losses.nt_margin, feeding.views),
    "nt_xent": (losses.nt_xent, feeding.views),
    "online_contrastive": (losses.online_contrastive, feeding.dissimilar_pairs),
    "per_query_info_nce": (losses.per_query_info_nce, feeding.queries_and_negatives),
    "proxy_anchor": (losses.proxy_anchor, feeding.rows_and_proxies),
    "proxy_nca": (losses.proxy_nca, feeding.rows_and_proxies),
    "ranked_list": (losses.ranked_list, feeding.labeled_rows),
    "siglip": (losses.siglip, feeding.two_sides),
    "soft_info_nce": (losses.soft_info_nce, feeding.two_sides_and_targets),
    "soft_triple": (losses.soft_triple, feeding.rows_and_proxies),
    "spread_out": (losses.spread_out, feeding.two_sides),
    "sup_con": (losses.sup_con, feeding.views_and_labels),
    "symmetric_info_nce": (losses.symmetric_info_nce, feeding.two_sides),
    "triplet": (losses.triplet, feeding.triplets),
    "uniformity": (losses.uniformity, feeding.rows),
    "vicreg": (losses.vicreg, feeding.two_sides),
}


def is_array(name: str) -> bool:
    """Whether an argument is an array by its name, which ends in its dimensions: z_BVD."""
    return "_" in name and name.rpartition("_")[2].isupper()


def options_of(kind: str) -> dict[str, Key]:
    """The keys of a kind: the options in the loss's own signature, and those of what feeds it."""
    loss, feed = KINDS[kind]
    keys = keys_of_loss(loss)
    if feed in MINED:
        keys["mining"] = Key("semi_hard_negative", str)
    if "weights_KPD" in inspect.signature(loss).parameters:
        keys["n_centers"] = Key(2, int)
    return keys


def keys_of_loss(loss: Callable[..., jax.Array]) -> dict[str, Key]:
    """The options in a loss's own signature; its temperature may also be learned."""
    arrays = filter(is_array, inspect.signature(loss).parameters)
    keys = takes(loss, without=("axis_name", *arrays))
    if learnable(keys):
        keys["temperature"] = keys["temperature"]._replace(type=float | str)
        keys |= {"temperature_start": Key(0.1, float), "temperature_min": Key(0.01, float)}
    return keys


def learnable(keys: dict[str, Key]) -> bool:
    """Whether a loss has a temperature that may be traced: its signature takes an array."""
    return "temperature" in keys and jax.Array in typing.get_args(keys["temperature"].type)


SECTION = Choice(
    key="kind",
    default="nt_xent",
    common={"matryoshka": Key(None, tuple[int, ...] | None)},
    options={kind: options_of(kind) for kind in KINDS},
)


def pair_loss(
    kind: str,
    mesh: Mesh,
    *,
    n_classes: int = 0,
    matryoshka: tuple[int, ...] | None = None,
    **options: Any,
) -> PairLoss:
    """Make the loss of a config, its keys gathered over the mesh.

    Args:
      kind: of `KINDS`.
      mesh: the devices.
      n_classes: of the data; a loss with proxies has one or more for each.
      matryoshka: sizes of embeddings, each a prefix of the next, that all have this loss.
      options: the keys of that kind, see `options_of`.

    Raises:
      ValueError: a value out of range, an unknown miner.

    >>> loss = pair_loss("nt_xent", parallel.make_mesh(), temperature=0.2)
    >>> jax.jit(loss.function)(jnp.ones((8, 2, 4))).shape, loss.temperature
    ((8, 2), 0.2)
    """
    loss, feed = KINDS[kind]
    reads_labels, needs_key = feed in LABELED, False
    if feed in MINED:
        miner = options.pop("mining", "semi_hard_negative")
        if miner not in feeding.MINERS:
            raise ValueError(f"loss mining is {miner!r}; give one of {feeding.MINERS}")
        reads_labels, needs_key = miner == "easy_positive", miner == "distance_weighted_negative"
        feed = functools.partial(feed, by=miner)
    scale = _temperature(kind, options)
    centers = options.pop("n_centers", 2)
    proxies = next(filter(inspect.signature(loss).parameters.__contains__, PROXIES), None)
    learned = scale is not None and scale.fixed is None

    def init(key: jax.Array, dim: int) -> Params:
        shape = {"weights_KD": (n_classes, dim), "weights_KPD": (n_classes, centers, dim)}
        made = {proxies: jax.random.normal(key, shape[proxies])} if proxies else {}
        return made | (scale.init() if scale else {})

    known = scale and (scale.fixed or scale.value)
    own = init if learned or proxies or needs_key else None
    if feed is feeding.views and own is None and not matryoshka:  # nothing to adapt
        plain = parallel.shard_loss(functools.partial(loss, **options), mesh)
        return PairLoss(plain, False, known)
    call = parallel.shard_loss(_on_mesh(functools.partial(loss, **options), matryoshka), mesh, 1)

    def function(z_BVD: jax.Array, *rest: Any) -> jax.Array:
        rest = rest if reads_labels else (None, *rest)
        label_B, params, key = (*rest, *(None,) * (3 - len(rest)))
        fed = feed(z_BVD, label_B, key)
        named = {"temperature": scale.value(params)} if learned else {}
        shared = (params[proxies],) if proxies else ()
        loss_N = call((fed.embeddings, fed.others), (shared, named))
        return loss_N if fed.kept is None or not loss_N.ndim else jnp.where(fed.kept, loss_N, 0.0)

    return PairLoss(function, reads_labels, known, own)


def _temperature(kind: str, options: dict[str, Any]) -> tempered.Temperature | None:
    """Take the temperature out of the options, unless it is a number for the loss itself."""
    start, least = (options.pop(f"temperature_{name}", None) for name in ("start", "min"))
    if "temperature" not in options or not learnable(takes(KINDS[kind][0])):
        return None
    made = tempered.make(options["temperature"], start or 0.1, least or 0.01)
    if made.fixed is None:
        del options["temperature"]
    return made


def _on_mesh(loss: Callable[..., jax.Array], dims: tuple[int, ...] | None) -> Callable:
    """The loss of ((embeddings, others), (proxies, named)), in the arguments that it takes.

    The first pair is split by examples and the second is the same on every device.
    """

    def whole(split: Any, shared: Any, **axis: str) -> jax.Array:
        (embeddings, others), (proxies, named) = split, shared

        def of(*vectors: jax.Array) -> jax.Array:
            sides, weights = vectors[: len(embeddings)], vectors[len(embeddings) :]
            return loss(*sides, *others, *weights, **named, **axis)

        vectors = (*embeddings, *proxies)
        return losses.matryoshka(of, *vectors, dims=dims) if dims else of(*vectors)

    def gathered(split: Any, shared: Any, axis_name: str | None = None) -> jax.Array:
        return whole(split, shared, axis_name=axis_name)

    return gathered if "axis_name" in inspect.signature(loss).parameters else whole
