"""Fuzzing: from any finite numbers a loss and its gradients are finite numbers, else ValueError.

The embeddings of an example are cut from one matrix, so that they coincide and oppose one another.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from contrastive_jax import losses
from contrastive_jax.losses._common import bounded
from tests import drawn

QUICK_COMPILE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


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


def labelled(loss, **options):
    return Case(lambda x, y, t: loss(x, y.label, t, **options), ("BD",), "B")


TWO = ("BD", "BD")
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
    "own_negatives_info_nce": Case(
        lambda q, k, n, y, t: losses.own_negatives_info_nce(q, k, n, t), (*TWO, "BKD"), "B"
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
    "nt_logistic": views(losses.nt_logistic),
    "nt_logistic semi-hard": views(losses.nt_logistic, semi_hard=True),
    "margin_contrastive": Case(
        lambda x, y, given, t: losses.margin_contrastive(x, y, given.label % 2 == 0, t), TWO, "B"
    ),
    "nt_margin": views(losses.nt_margin),
    "nt_margin semi-hard": views(losses.nt_margin, semi_hard=True),
    "lifted_structure": labelled(losses.lifted_structure),
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
        lambda x, y, t: losses.learned_temperature(jnp.maximum(x, -80.0)), ("",), ""
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
        CASES[f"{name} {kind}"] = labelled(getattr(losses, name), distance=kind)
CASES["batch_all_triplet soft"] = Case(
    lambda x, y, t: losses.batch_all_triplet(x, y.label, None), ("BD",), "B"
)
each_loss = pytest.mark.parametrize("name", CASES)


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
)


def shapes_of(case: Case, sizes: dict[str, int]) -> list[tuple[int, ...]]:
    return [tuple(sizes[axis] for axis in axes) for axes in case.embeddings]


def build(case: Case, how: Setting, recipe: drawn.Recipe) -> tuple[Any, Given, np.ndarray]:
    """The arguments of one example; its embeddings are cut from one matrix."""
    B, D = how.sizes["B"], how.sizes["D"]
    shapes = shapes_of(case, how.sizes)
    ends = np.cumsum([max(1, int(np.prod(shape))) for shape in shapes])
    flat = drawn.rows(recipe, -(-int(ends[-1]) // D), D, how.dtype).reshape(-1)
    parts = np.split(flat[: ends[-1]], ends[:-1])
    embeddings = tuple(x.reshape(shape) for x, shape in zip(parts, shapes, strict=True))
    label = drawn.labels(recipe, B, how.label_dtype)
    same = (label[:, None] == label[None, :]).astype(np.float32)
    score = (label % 3).astype(np.float32)
    given = Given(label, score, same / same.sum(axis=1, keepdims=True))
    return embeddings, given, drawn.temperature(recipe)


def stack(examples: list[Any]) -> Any:
    return jax.tree.map(lambda *x: np.stack(x), *examples)


@functools.cache
def losses_and_gradients(name: str, how_index: int | None):
    """Jitted: arguments of many examples -> the losses of each, and the gradients of their sum."""
    case, how = CASES[name], QUICK if how_index is None else SLOW[how_index]
    form = {} if how.block_size is None or not case.in_blocks else {"block_size": how.block_size}

    def total(differentiable, given):
        embeddings, temperature = differentiable
        per_anchor = case.loss(*embeddings, given, temperature, **form)
        return per_anchor.sum(), per_anchor

    def one(embeddings, given, temperature):
        (_, out), grads = jax.value_and_grad(total, has_aux=True)((embeddings, temperature), given)
        return out, grads

    return jax.jit(jax.vmap(one), compiler_options=QUICK_COMPILE if how_index is None else None)


def check_finite(name: str, how_index: int | None, recipes: list[drawn.Recipe]) -> None:
    case, how = CASES[name], QUICK if how_index is None else SLOW[how_index]
    arguments = stack([build(case, how, recipe) for recipe in recipes])
    value, (d_embeddings, d_temperature) = jax.device_get(
        losses_and_gradients(name, how_index)(*arguments)
    )
    anchors = tuple(how.sizes[axis] for axis in case.anchors)
    assert value.dtype == np.float32
    assert value.shape == (len(recipes), *anchors)
    for what, x in {"value": value, "temperature": d_temperature}.items():
        refuse(what, ~np.isfinite(x), recipes)
    for x in d_embeddings:
        # What is beyond the largest float16 may round to infinity.
        wrong = np.isnan(x) if how.dtype == jnp.float16 else ~np.isfinite(x.astype(np.float32))
        refuse("gradient", wrong, recipes)


def refuse(what: str, wrong: np.ndarray, recipes: list[drawn.Recipe]) -> None:
    lanes = np.flatnonzero(wrong.reshape(len(recipes), -1).any(axis=1))
    assert len(lanes) == 0, f"{what} is not finite for {recipes[lanes[0]]}, {len(lanes)} in all"


def test_every_public_loss_is_fuzzed():
    assert {name.split()[0] for name in CASES} == set(losses.__all__)


@each_loss
def test_losses_and_gradients_are_finite_numbers(name):
    drawn.each_of(drawn.recipes, functools.partial(check_finite, name, None), 2 * drawn.LANES)


@pytest.mark.slow
@each_loss
@pytest.mark.parametrize("how", range(len(SLOW)))
def test_losses_and_gradients_are_finite_numbers_of_every_form(name, how):
    case, B = CASES[name], SLOW[how].sizes["B"]
    if case.needs_two and B < 2:
        with pytest.raises(ValueError, match="expected at least 2"):
            check_finite(name, how, [drawn.Recipe("normal", 1.0, 1.0, 0.0, "equal", 0)])
        return
    drawn.each_of(drawn.recipes, functools.partial(check_finite, name, how), drawn.EXAMPLES)


def test_a_dissimilar_pair_has_no_loss_however_far_apart():
    far = jnp.array([[1e30, -1e30]])
    assert losses.margin_contrastive(far, -far, jnp.array([True])) == 0


def test_a_row_is_shrunk_only_where_its_square_leaves_float32():
    x = jnp.array([[1e15, -3.0], [2.5, 0.1]])
    np.testing.assert_array_equal(bounded(x), x)
    np.testing.assert_allclose(bounded(4e10 * x[:1]), x[:1], rtol=1e-6)
    assert jnp.isnan(bounded(jnp.array([[jnp.inf, 1.0]]))).any()  # a run still notices it


def test_a_temperature_that_is_known_is_checked_whatever_holds_it():
    z = jnp.ones((2, 2, 2))
    for temperature in (0.0, np.float32(0), jnp.float32(0)):
        with pytest.raises(ValueError, match="above 0: raise it"):
            losses.nt_xent(z, temperature)
    assert jax.jit(losses.nt_xent).lower(z, jnp.float32(0)) is not None  # not known when traced


LABELLED = (
    *("sup_con", "symmetric_info_nce", "joint_info_nce", "multi_positive_info_nce", "siglip"),
    *("lifted_structure", "multi_similarity", "circle", "ranked_list"),
    *("batch_all_triplet", "batch_hard_triplet", "batch_semi_hard_triplet"),
)
SCORED = ("cosine_regression", "cosent", "angle")
WITHOUT_TEMPERATURE = (
    *("n_pair", "angular", "nt_margin", "cosine_regression", "alignment", "barlow_twins"),
    *("vicreg", "negative_cosine", "spread_out", "learned_temperature"),
)
WRONG_TEMPERATURES = (0.0, -1.0, float("nan"), float("inf"), np.float32(0), np.ones(2, np.float32))
WRONG_BLOCK_SIZES = (0, -1, 2.5, True)


class Arguments(NamedTuple):
    """What a loss is traced with, no numbers but the temperature."""

    embeddings: list[jax.ShapeDtypeStruct]
    given: Given
    temperature: Any = 0.5
    form: Any = ()


def arguments_of(case: Case, sizes: dict[str, int]) -> Arguments:
    B = sizes["B"]
    array = jax.ShapeDtypeStruct
    embeddings = [array(shape, jnp.float32) for shape in shapes_of(case, sizes)]
    given = Given(array((B,), jnp.int32), array((B,), jnp.float32), array((B, B), jnp.float32))
    return Arguments(embeddings, given)


def traced(case: Case, arguments: Arguments) -> jax.ShapeDtypeStruct:
    def loss(embeddings, given):
        return case.loss(*embeddings, given, arguments.temperature, **dict(arguments.form))

    return jax.eval_shape(loss, arguments.embeddings, arguments.given)


def reshaped(x: jax.ShapeDtypeStruct, *shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, x.dtype)


def retyped(x: jax.ShapeDtypeStruct, dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, dtype)


def faults(name: str) -> list[str]:
    """What can be wrong with the arguments of a loss."""
    case, loss = CASES[name], name.split()[0]
    kinds = {
        "rank": True,
        "dtype": loss != "learned_temperature",
        "batch": any("B" in axes for axes in case.embeddings[1:]),
        "float labels": loss in LABELLED or "ids" in name,
        "length of labels": loss in (*LABELLED, "margin_contrastive") or "ids" in name,
        "length of scores": loss in SCORED,
        "size of targets": loss == "soft_info_nce",
        "temperature": loss not in WITHOUT_TEMPERATURE and "soft" not in name.split(),
        "block size": case.in_blocks,
    }
    return [kind for kind, possible in kinds.items() if possible]


def spoiled(name: str, kind: str, draw: Callable[[Any], Any]) -> Arguments:
    """Right arguments but for one thing."""
    case = CASES[name]
    right = arguments_of(case, QUICK.sizes)
    embeddings, given = list(right.embeddings), right.given
    first = 1 if kind == "batch" else 0
    named = [
        i for i in range(first, len(embeddings)) if kind != "batch" or "B" in case.embeddings[i]
    ]
    i = draw(st.sampled_from(named))
    x, n = embeddings[i], draw(st.sampled_from((1, 3, 5, 64)))
    match kind:
        case "rank":
            grown = (*x.shape, n) if draw(st.booleans()) or not x.shape else x.shape[1:]
            embeddings[i] = reshaped(x, *grown)
        case "dtype":
            embeddings[i] = retyped(x, draw(st.sampled_from((jnp.int32, jnp.uint8, jnp.bool_))))
        case "batch":
            embeddings[i] = reshaped(x, n, *x.shape[1:])
        case "float labels":
            dtype = draw(st.sampled_from((jnp.float32, jnp.bfloat16, jnp.bool_)))
            given = given._replace(label=retyped(given.label, dtype))
        case "length of labels":
            given = given._replace(label=reshaped(given.label, n))
        case "length of scores":
            given = given._replace(score=reshaped(given.score, n))
        case "size of targets":
            given = given._replace(target=reshaped(given.target, 4, n))
        case "temperature":
            return right._replace(temperature=draw(st.sampled_from(WRONG_TEMPERATURES)))
        case "block size":
            size = draw(st.sampled_from(WRONG_BLOCK_SIZES))
            return right._replace(form=(("block_size", size),))
    return right._replace(embeddings=embeddings, given=given)


def check_refused(name: str, draw: Callable[[Any], Any]) -> None:
    kind = draw(st.sampled_from(faults(name)))
    arguments = spoiled(name, kind, draw)
    with pytest.raises(ValueError, match=".") as caught:
        traced(CASES[name], arguments)
    assert str(caught.value).count("\n") < 3


def check_any_shape(name: str, draw: Callable[[Any], Any]) -> None:
    case = CASES[name]
    sizes = {axis: draw(st.integers(0, 3)) for axis in "BVDKF"}
    arguments = arguments_of(case, sizes)
    if case.in_blocks:
        size = draw(st.sampled_from((None, 1, 2, 100)))
        arguments = arguments._replace(form=(("block_size", size),))
    try:
        out = traced(case, arguments)
    except ValueError:
        return
    assert out.shape == tuple(sizes[axis] for axis in case.anchors)
    assert out.dtype == jnp.float32


EXAMPLES_TRACED = [6, pytest.param(200, marks=pytest.mark.slow)]


@pytest.mark.parametrize("examples", EXAMPLES_TRACED)
@each_loss
def test_bad_input_is_refused_with_a_value_error(name, examples):
    drawn.each(functools.partial(check_refused, name), examples)


@pytest.mark.parametrize("examples", [2, EXAMPLES_TRACED[1]])
@each_loss
def test_sizes_down_to_nothing_are_refused_or_give_one_number_per_anchor(name, examples):
    drawn.each(functools.partial(check_any_shape, name), examples)
