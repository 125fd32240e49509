"""Fuzzing: wrong arguments of a loss are refused with a ValueError; sizes down to nothing too."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from tests import sampled
from tests.losses.cases import CASES, QUICK, Case, Given, shapes_of

LABELED = (
    *("sup_con", "symmetric_info_nce", "joint_info_nce", "multi_positive_info_nce", "siglip"),
    *("lifted_structure", "multi_similarity", "circle", "ranked_list"),
    *("batch_all_triplet", "batch_hard_triplet", "batch_semi_hard_triplet", "labeled_nt_xent"),
    *("arc_face", "cos_face", "proxy_nca", "soft_triple", "proxy_anchor"),
)
SCORED = ("cosine_regression", "cosent", "angle", "margin_mse", "kl_distillation")
WITHOUT_TEMPERATURE = (
    *("n_pair", "angular", "nt_margin", "cosine_regression", "alignment", "barlow_twins"),
    *("margin_mse", "vicreg", "negative_cosine", "spread_out", "learned_temperature"),
)
NOT_EVEN_ZERO = (-1.0, float("nan"), float("inf"), np.ones(2, np.float32))
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
        "float labels": loss in LABELED or "ids" in name,
        "length of labels": loss in (*LABELED, "margin_contrastive", "online_contrastive")
        or "ids" in name,
        "length of scores": loss in SCORED,
        "size of targets": loss == "soft_info_nce",
        "temperature": loss not in WITHOUT_TEMPERATURE and "soft" not in name.split(),
        "block size": case.in_blocks,
    }
    return [kind for kind, possible in kinds.items() if possible]


def spoiled(name: str, kind: str, sample: Callable[[Any], Any]) -> Arguments:
    """Right arguments but for one thing."""
    case = CASES[name]
    right = arguments_of(case, QUICK.sizes)
    embeddings, given = list(right.embeddings), right.given
    first = 1 if kind == "batch" else 0
    named = [
        i for i in range(first, len(embeddings)) if kind != "batch" or "B" in case.embeddings[i]
    ]
    i = sample(st.sampled_from(named))
    x, n = embeddings[i], sample(st.sampled_from((1, 3, 5, 64)))
    match kind:
        case "rank":
            grown = (*x.shape, n) if sample(st.booleans()) or not x.shape else x.shape[1:]
            embeddings[i] = reshaped(x, *grown)
        case "dtype":
            embeddings[i] = retyped(x, sample(st.sampled_from((jnp.int32, jnp.uint8, jnp.bool_))))
        case "batch":
            embeddings[i] = reshaped(x, n, *x.shape[1:])
        case "float labels":
            dtype = sample(st.sampled_from((jnp.float32, jnp.bfloat16, jnp.bool_)))
            given = given._replace(label=retyped(given.label, dtype))
        case "length of labels":
            given = given._replace(label=reshaped(given.label, n))
        case "length of scores":
            given = given._replace(score=reshaped(given.score, n))
        case "size of targets":
            given = given._replace(target=reshaped(given.target, 4, n))
        case "temperature":
            wrong = NOT_EVEN_ZERO if name == "ranked_list" else (0.0, np.float32(0), *NOT_EVEN_ZERO)
            return right._replace(temperature=sample(st.sampled_from(wrong)))
        case "block size":
            size = sample(st.sampled_from(WRONG_BLOCK_SIZES))
            return right._replace(form=(("block_size", size),))
    return right._replace(embeddings=embeddings, given=given)


def check_refused(name: str, sample: Callable[[Any], Any]) -> None:
    kind = sample(st.sampled_from(faults(name)))
    arguments = spoiled(name, kind, sample)
    with pytest.raises(ValueError, match=".") as caught:
        traced(CASES[name], arguments)
    assert str(caught.value).count("\n") < 3


def check_any_shape(name: str, sample: Callable[[Any], Any]) -> None:
    case = CASES[name]
    sizes = {axis: sample(st.integers(0, 3)) for axis in "BVDKF"}
    arguments = arguments_of(case, sizes)
    if case.in_blocks:
        size = sample(st.sampled_from((None, 1, 2, 100)))
        arguments = arguments._replace(form=(("block_size", size),))
    try:
        out = traced(case, arguments)
    except ValueError:
        return
    assert out.shape == tuple(sizes[axis] for axis in case.anchors)
    assert out.dtype == jnp.float32


def of_every_loss(check: Callable[[str, Callable[[Any], Any]], None], examples: int) -> None:
    for name in CASES:
        try:
            sampled.each(functools.partial(check, name), examples)
        except BaseException as error:
            error.add_note(f"in {name}")
            raise


each_number = pytest.mark.parametrize("examples", [2, pytest.param(200, marks=pytest.mark.slow)])


@each_number
def test_bad_input_is_refused_with_a_value_error(examples):
    of_every_loss(check_refused, examples)


@each_number
def test_sizes_down_to_nothing_are_refused_or_give_one_number_per_anchor(examples):
    of_every_loss(check_any_shape, examples)
