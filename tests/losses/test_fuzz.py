"""Fuzzing: from any finite numbers a loss and its gradients are finite, of the right shape."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import losses
from contrastive_jax._numerics import bounded
from tests import sampled
from tests.losses.cases import CASES, QUICK, SLOW, build

QUICK_COMPILE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
EACH_FAMILY = (  # what is compiled for every change; the slow run has all
    *("nt_xent", "sup_con", "siglip", "n_pair", "margin_contrastive", "lifted_structure"),
    *("triplet squared soft", "batch_semi_hard_triplet squared", "barlow_twins", "vicreg"),
)
each_loss = pytest.mark.parametrize("name", CASES)


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


def check_finite(name: str, how_index: int | None, recipes: list[sampled.Recipe]) -> None:
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


def refuse(what: str, wrong: np.ndarray, recipes: list[sampled.Recipe]) -> None:
    failed = np.flatnonzero(wrong.reshape(len(recipes), -1).any(axis=1))
    assert len(failed) == 0, f"{what} is not finite for {recipes[failed[0]]}, {len(failed)} in all"


def test_every_public_loss_is_fuzzed():
    assert {name.split()[0] for name in CASES} == set(losses.__all__)


@pytest.mark.parametrize("name", EACH_FAMILY)
def test_losses_and_gradients_are_finite_numbers(name):
    sampled.each_of(sampled.recipes, functools.partial(check_finite, name, None), 2 * sampled.BATCH)


@pytest.mark.slow
@each_loss
@pytest.mark.parametrize("how", range(len(SLOW)))
def test_losses_and_gradients_are_finite_numbers_of_every_form(name, how):
    case, B = CASES[name], SLOW[how].sizes["B"]
    if case.needs_two and B < 2:
        with pytest.raises(ValueError, match="expected at least 2"):
            check_finite(name, how, [sampled.Recipe("normal", 1.0, 1.0, 0.0, "equal", 0)])
        return
    examples = sampled.EXAMPLES if how == 0 else sampled.EXAMPLES // 4
    sampled.each_of(sampled.recipes, functools.partial(check_finite, name, how), examples)


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
