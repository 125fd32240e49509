"""The public losses as the fuzzing tests call them, and the arguments of one sampled example."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from contrastive_jax import losses
from tests import sampled


class Given(NamedTuple):
    """What a loss may ask for beside embeddings and temperature."""

    label: Any  # [B] integers
    score: Any  # [B] float
    target: Any  # [B, B] float, rows sum to one


class Case(NamedTuple):
    """loss(*embeddings, given, temperature, **form), the axes of its arguments and of its value.

    A scalar margin takes the temperature's place where a loss has no temperature.
    """

    loss: Callable[..., jax.Array]
    embeddings: tuple[str, ...]
    anchors: str
    in_blocks: bool = False  # form is block_size=...
    needs_two: bool = False  # examples


def views(loss, **options):
    return Case(lambda z, y, t, **form: loss(z, t, **options, **form), ("BVD",), "BV", True)


def pairs(loss, **options):
    return Case(lambda q, k, y, t, **form: loss(q, k, t, **options, **form), TWO, "B", True)


def pairs_with_ids(loss):
    return Case(lambda q, k, y, t, **form: loss(q, k, t, ids_B=y.label, **form), TWO, "B", True)


def labeled(loss, **options):
    return Case(lambda x, y, t: loss(x, y.label, t, **options), ("BD",), "B")


def proxies(loss, weights="KD", anchors="B"):
    return Case(lambda x, w, y, t: loss(x, y.label, w, t), ("BD", weights), anchors)


ALL_DIRECTIONS = ("query_to_key", "key_to_query", "query_to_query", "key_to_key")
TWO = ("BD", "BD")


def given(n, y):
    """Explicit negatives, some of them padding, some of an id of the batch."""
    K = n.shape[1] if n.ndim == 3 else 1
    label_BK = jnp.repeat(y.label[:, None], K, axis=1)
    return {
        "negatives_BKD": n,
        "negatives_mask_BK": label_BK != 0,
        "negatives_ids_BK": label_BK[::-1],
        "ids_B": y.label,
    }


def scores(y, n):
    return y.score[:, None] * jnp.arange(1 + n.shape[1], dtype=jnp.float32)


CASES = {
    "nt_xent": views(losses.nt_xent),
    "info_nce": pairs(losses.info_nce),
    "info_nce ids negatives": Case(
        lambda q, k, n, y, t, **form: losses.info_nce(
            q, k, t, negatives_BKD=n, ids_B=y.label, **form
        ),
        (*TWO, "BKD"),
        "B",
        True,
    ),
    "info_nce given ids": Case(
        lambda q, k, n, y, t, **form: losses.info_nce(
            q, k, t, **given(n, y), directions=ALL_DIRECTIONS, **form
        ),
        (*TWO, "BKD"),
        "B",
        True,
    ),
    "per_query_info_nce given ids": Case(
        lambda q, k, n, y, t: losses.per_query_info_nce(q, k, temperature=t, **given(n, y)),
        (*TWO, "BKD"),
        "B",
    ),
    "hardness_info_nce given ids": Case(
        lambda q, k, n, y, t, **form: losses.hardness_info_nce(
            q, k, t, weighted="all", **given(n, y), **form
        ),
        (*TWO, "BKD"),
        "B",
        True,
    ),
    "guided_info_nce given ids": Case(
        lambda q, k, f, g, n, m, y, t, **form: losses.guided_info_nce(
            q, k, f, g, t, guide_negatives_BKF=m, **given(n, y), **form
        ),
        (*TWO, "BF", "BF", "BKD", "BKF"),
        "B",
        True,
    ),
    "labeled_nt_xent": Case(
        lambda z, y, t, **form: losses.labeled_nt_xent(z, y.label, t, **form),
        ("BVD",),
        "BV",
        True,
    ),
    "symmetric_info_nce": pairs_with_ids(losses.symmetric_info_nce),
    "sup_con": Case(
        lambda z, y, t, **form: losses.sup_con(z, y.label, t, **form), ("BVD",), "BV", True
    ),
    "sup_con inside": Case(
        lambda z, y, t, **form: losses.sup_con(z, y.label, t, positives="inside", **form),
        ("BVD",),
        "BV",
        True,
    ),
    "per_query_info_nce": Case(
        lambda q, k, n, y, t: losses.per_query_info_nce(q, k, n, t), (*TWO, "BKD"), "B"
    ),
    "queue_info_nce": Case(
        lambda q, k, n, y, t, **form: losses.queue_info_nce(q, k, n, t, **form),
        (*TWO, "KD"),
        "B",
        True,
    ),
    "joint_info_nce": pairs_with_ids(losses.joint_info_nce),
    "guided_info_nce": Case(
        lambda q, k, f, g, y, t, **form: losses.guided_info_nce(
            q, k, f, g, t, margin=0.1, relative=True, **form
        ),
        (*TWO, "BF", "BF"),
        "B",
        True,
    ),
    "decoupled": views(losses.decoupled),
    "decoupled sigma": views(losses.decoupled, sigma=0.5),
    "debiased_nt_xent": views(losses.debiased_nt_xent, beta=2.0),
    "hardness_info_nce": pairs(losses.hardness_info_nce),
    "multi_positive_info_nce": Case(
        lambda q, k, y, t, **form: losses.multi_positive_info_nce(q, k, y.label, t, **form),
        TWO,
        "B",
        True,
    ),
    "soft_info_nce": Case(lambda q, k, y, t: losses.soft_info_nce(q, k, y.target, t), TWO, "B"),
    "n_pair": Case(lambda a, p, y, t, **form: losses.n_pair(a, p, **form), TWO, "B", True),
    "angular": Case(lambda a, p, y, t, **form: losses.angular(a, p, 80.0, **form), TWO, "B", True),
    "siglip": Case(
        lambda a, b, y, t, **form: losses.siglip(a, b, t, 10.0 * t, ids_B=y.label, **form),
        TWO,
        "B",
        True,
    ),
    "siglip positive": Case(
        lambda a, b, y, t, **form: losses.siglip(
            a, b, t, 10.0 * t, ids_B=y.label, same_id="positive", **form
        ),
        TWO,
        "B",
        True,
    ),
    "nt_logistic": views(losses.nt_logistic),
    "nt_logistic semi-hard": views(losses.nt_logistic, semi_hard=True),
    "margin_contrastive": Case(
        lambda x, y, given, t: losses.margin_contrastive(x, y, given.label % 2 == 0, t), TWO, "B"
    ),
    "margin_contrastive linear": Case(
        lambda x, y, given, t: losses.margin_contrastive(
            x, y, given.label % 2 == 0, t, distance="cosine", hinge="linear"
        ),
        TWO,
        "B",
    ),
    **{
        f"online_contrastive {kind}": Case(
            lambda x, y, given, t, kind=kind: losses.online_contrastive(
                x, y, given.label % 2 == 0, t, distance=kind
            ),
            TWO,
            "B",
        )
        for kind in ("cosine", "euclidean")
    },
    "arc_face": proxies(lambda x, y, w, t: losses.arc_face(x, y, w, scale=t)),
    "cos_face": proxies(lambda x, y, w, t: losses.cos_face(x, y, w, scale=t)),
    "proxy_nca": proxies(losses.proxy_nca),
    "proxy_nca all": proxies(functools.partial(losses.proxy_nca, denominator="all")),
    "soft_triple": proxies(lambda x, y, w, t: losses.soft_triple(x, y, w, scale=t), "KVD"),
    "proxy_anchor": proxies(lambda x, y, w, t: losses.proxy_anchor(x, y, w, scale=t), anchors=""),
    "margin_mse": Case(
        lambda q, k, n, y, t: losses.margin_mse(q, k, n, scores(y, n)), (*TWO, "BKD"), "B"
    ),
    "kl_distillation": Case(
        lambda q, k, n, y, t: losses.kl_distillation(q, k, n, scores(y, n), t),
        (*TWO, "BKD"),
        "B",
    ),
    "koleo": Case(lambda x, y, t: losses.koleo(x, t), ("BD",), "B"),
    "nt_margin": views(losses.nt_margin),
    "nt_margin semi-hard": views(losses.nt_margin, semi_hard=True),
    "lifted_structure": labeled(losses.lifted_structure),
    "multi_similarity": Case(
        lambda x, y, t: losses.multi_similarity(x, y.label, t, 10.0 * t), ("BD",), "B"
    ),
    "circle": Case(lambda x, y, t: losses.circle(x, y.label, scale=9.0 * t), ("BD",), "B"),
    "ranked_list": Case(
        lambda x, y, t: losses.ranked_list(x, y.label, temperature=t), ("BD",), "B"
    ),
    "cosine_regression": Case(
        lambda x, y, given, t: losses.cosine_regression(x, y, given.score), TWO, "B"
    ),
    "cosent": Case(lambda x, y, given, t: losses.cosent(x, y, given.score, t), TWO, ""),
    "angle": Case(lambda x, y, given, t: losses.angle(x, y, given.score, t), TWO, ""),
    "cosent tuples": Case(
        lambda x, y, given, t: losses.cosent(x, y, scores(given, y)[:, 1:], t), ("BD", "BKD"), ""
    ),
    "angle tuples": Case(
        lambda x, y, given, t: losses.angle(x, y, scores(given, y)[:, 1:], t), ("BD", "BKD"), ""
    ),
    "alignment": Case(lambda x, y, given, t: losses.alignment(x, y), TWO, "B"),
    "alignment alpha": Case(lambda x, y, given, t: losses.alignment(x, y, 1.0), TWO, "B"),
    "uniformity": Case(lambda x, y, t: losses.uniformity(x, t), ("BD",), "", needs_two=True),
    "barlow_twins": Case(lambda x, y, given, t: losses.barlow_twins(x, y), TWO, "", needs_two=True),
    "vicreg": Case(lambda x, y, given, t: losses.vicreg(x, y), TWO, "", needs_two=True),
    "negative_cosine": Case(lambda x, y, given, t: losses.negative_cosine(x, y), TWO, "B"),
    "spread_out": Case(lambda x, y, given, t: losses.spread_out(x, y), TWO, "", needs_two=True),
    "matryoshka": Case(
        lambda z, y, t: losses.matryoshka(
            functools.partial(losses.nt_xent, temperature=t), z, dims=(1, z.shape[-1])
        ),
        ("BVD",),
        "BV",
    ),
    # Below -80 the temperature itself leaves float32.
    "learned_temperature": Case(
        lambda x, y, t: losses.learned_temperature(jnp.maximum(x.astype(jnp.float32), -80.0)),
        ("",),
        "",
    ),
}
for kind in ("euclidean", "squared", "cosine"):
    for margin in ("hard", "soft"):
        of = (lambda t: t) if margin == "hard" else (lambda t: None)
        CASES[f"triplet {kind} {margin}"] = Case(
            lambda a, p, n, y, t, kind=kind, of=of: losses.triplet(a, p, n, of(t), distance=kind),
            ("BD", "BD", "BD"),
            "B",
        )
    for name in ("batch_all_triplet", "batch_hard_triplet", "batch_semi_hard_triplet"):
        CASES[f"{name} {kind}"] = labeled(getattr(losses, name), distance=kind)
CASES["batch_all_triplet soft"] = Case(
    lambda x, y, t: losses.batch_all_triplet(x, y.label, None), ("BD",), "B"
)


class Setting(NamedTuple):
    """What a compilation fixes."""

    sizes: dict[str, int]
    dtype: Any = jnp.float32
    label_dtype: Any = np.int32
    block_size: int | None = None


QUICK = Setting({"B": 4, "V": 2, "D": 4, "K": 3, "F": 2})
SLOW = (
    QUICK,
    Setting({"B": 5, "V": 3, "D": 2, "K": 1, "F": 3}, jnp.bfloat16, np.int8),
    Setting({"B": 1, "V": 2, "D": 2, "K": 2, "F": 1}, jnp.float16, np.int64),
    Setting({"B": 5, "V": 2, "D": 6, "K": 2, "F": 2}, block_size=3),
    Setting({"B": 3, "V": 2, "D": 2, "K": 2, "F": 2}, jnp.float16, np.int32, block_size=2),
)


def shapes_of(case: Case, sizes: dict[str, int]) -> list[tuple[int, ...]]:
    return [tuple(sizes[axis] for axis in axes) for axes in case.embeddings]


def build(case: Case, how: Setting, recipe: sampled.Recipe) -> tuple[Any, Given, np.ndarray]:
    """The arguments of one example.

    Its embeddings are cut from one matrix, so that they coincide and oppose one another.
    """
    B, D = how.sizes["B"], how.sizes["D"]
    shapes = shapes_of(case, how.sizes)
    ends = np.cumsum([max(1, int(np.prod(shape))) for shape in shapes])
    flat = sampled.rows(recipe, -(-int(ends[-1]) // D), D, how.dtype).reshape(-1)
    parts = np.split(flat[: ends[-1]], ends[:-1])
    embeddings = tuple(x.reshape(shape) for x, shape in zip(parts, shapes, strict=True))
    label = sampled.labels(recipe, B, how.label_dtype)
    same = (label[:, None] == label[None, :]).astype(np.float32)
    score = (label % 3).astype(np.float32)
    given = Given(label, score, same / same.sum(axis=1, keepdims=True))
    return embeddings, given, sampled.temperature(recipe)
