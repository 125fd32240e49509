"""Odd arguments of every public loss: taken where they have one meaning, else refused by name."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import losses
from tests.losses.test_sharded import QUICK_COMPILE
from tests.test_parallel import ARGUMENTS

LOSSES = {name: getattr(losses, name) for name in ARGUMENTS}
PARAMETERS = {name: inspect.signature(loss).parameters for name, loss in LOSSES.items()}
INTEGERS = ("labels_B", "labels_N", "ids_B")
BEYOND = np.array([5, 5 + 2**32] * 8)


def having(condition):
    """(loss, parameter) wherever the condition holds of the parameter."""
    return [
        (name, parameter.name)
        for name, parameters in PARAMETERS.items()
        for parameter in parameters.values()
        if condition(parameter)
    ]


def call(name, **options):
    """The shape of the loss of its usual arguments, some of them replaced."""
    bound = inspect.signature(LOSSES[name]).bind(*ARGUMENTS[name])
    return jax.eval_shape(lambda: LOSSES[name](**{**bound.arguments, **options}))


def assert_refused(name, match, **options):
    with pytest.raises(ValueError, match=match) as caught:
        call(name, **options)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", ARGUMENTS)
def test_lists_are_taken_for_arrays(name):
    lists = [x.tolist() for x in ARGUMENTS[name]]
    got = jax.eval_shape(lambda: LOSSES[name](*lists))
    assert (got.shape, got.dtype) == (call(name).shape, jnp.float32)
    first = next(iter(PARAMETERS[name]))
    for wrong in (None, "text", [[1.0, 2.0], [3.0]]):
        assert_refused(name, first, **{first: wrong})


def test_lists_have_the_values_of_arrays():
    got = losses.circle(X.tolist(), [0, 0, 2])
    np.testing.assert_array_equal(got, losses.circle(X, np.array([0, 0, 2])))


@pytest.mark.parametrize(("name", "option"), having(lambda p: isinstance(p.default, float)))
def test_numbers_are_numbers(name, option):
    wrongs = ["0.5", True, np.ones(2), float("nan")]
    if "None" not in str(PARAMETERS[name][option].annotation):
        wrongs.append(None)
    for wrong in wrongs:
        assert_refused(name, option, **{option: wrong})


@pytest.mark.parametrize(("name", "option"), having(lambda p: isinstance(p.default, float)))
def test_numbers_may_be_traced(name, option):
    default = PARAMETERS[name][option].default
    bound = inspect.signature(LOSSES[name]).bind(*ARGUMENTS[name])
    jax.eval_shape(lambda x: LOSSES[name](**bound.arguments, **{option: x}), default)


@pytest.mark.parametrize(("name", "option"), having(lambda p: isinstance(p.default, bool)))
def test_a_traced_flag_names_the_way_out(name, option):
    bound = inspect.signature(LOSSES[name]).bind(*ARGUMENTS[name])
    with pytest.raises(ValueError, match=f"{option} is traced.*static_argnames='{option}'"):
        jax.jit(lambda flag: LOSSES[name](**bound.arguments, **{option: flag}))(True)
    assert_refused(name, f"{option} is 'yes'", **{option: "yes"})


@pytest.mark.parametrize(("name", "option"), having(lambda p: p.name in INTEGERS))
def test_labels_and_ids_are_exact_or_refused(name, option):
    assert_refused(name, f"{option} holds 4294967301, beyond int32", **{option: BEYOND})
    assert_refused(name, f"{option} holds 4294967301, beyond int32", **{option: BEYOND.tolist()})
    assert call(name, **{option: BEYOND % 2**31}).dtype == jnp.float32


@pytest.mark.parametrize("block_size", [None, 3])
def test_wide_ids_are_exact_with_x64(block_size):
    x, y = (z[:4] for z in ARGUMENTS["info_nce"])
    loss = jax.jit(losses.info_nce, static_argnames="block_size", compiler_options=QUICK_COMPILE)
    want = loss(x, y, ids_B=np.array([0, 1, 0, 1]), block_size=block_size)
    with jax.enable_x64(True):
        got = loss(x, y, ids_B=BEYOND[:4], block_size=block_size)
    np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize(("name", "option"), having(lambda p: p.name == "axis_name"))
def test_an_axis_that_is_not_mapped_names_the_way_out(name, option):
    assert_refused(name, "axis_name is 'data'.*\n?.*parallel.shard_loss", axis_name="data")


@pytest.mark.parametrize(("name", "option"), having(lambda p: p.name == "block_size"))
def test_block_sizes(name, option):
    assert call(name, block_size=np.int64(5)).shape == call(name).shape
    bound = inspect.signature(LOSSES[name]).bind(*ARGUMENTS[name])
    with pytest.raises(ValueError, match="static_argnames='block_size'"):
        jax.jit(lambda size: LOSSES[name](**bound.arguments, block_size=size))(5)
    assert "or `jacrev` of `grad`" in " ".join(LOSSES[name].__doc__.split())


def test_second_derivatives_of_tiles_are_had_as_the_docstrings_say():
    x = ARGUMENTS["n_pair"][0][:3, :2]

    def total(x, block_size):
        return losses.n_pair(x, x[::-1], block_size=block_size).sum()

    @functools.partial(jax.jit, compiler_options=QUICK_COMPILE)
    def both(x):
        return jax.jacrev(jax.grad(total))(x, 2), jax.hessian(total)(x, None)

    np.testing.assert_allclose(*both(x), rtol=1e-4, atol=1e-6)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.eval_shape(lambda x: jax.hessian(total)(x, 2), x)


X = np.eye(3, 2, dtype=np.float32)
Y = X[::-1]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: losses.margin_contrastive(X, Y, np.array([0, 1, 2])), "dissimilar_B .* 0 and 1"),
        (lambda: losses.margin_contrastive(X, Y, [0.5, 0, 1]), "dissimilar_B .* 0 and 1"),
        (lambda: losses.learned_temperature(0.0, max_scale=0), "max_scale is 0"),
        (lambda: losses.learned_temperature(0.0, max_scale=-1), "max_scale is -1"),
        (lambda: losses.circle(X, [0, 0, 1], margin=2), "margin is 2, expected .* 0 to 1"),
        (lambda: losses.hardness_info_nce(X, Y, alpha=-1.0), "alpha is -1"),
        (lambda: losses.angular(X, Y, 90.0), "degrees is 90.0, expected a number below 90"),
        (lambda: losses.debiased_nt_xent(X[:, None], tau_plus=1.0), "expected at least 2"),
        (lambda: losses.debiased_nt_xent(np.ones((2, 2, 2)), tau_plus=1.0), "tau_plus is 1.0"),
        (lambda: losses.vicreg(X, Y, weights=(1.0, 2.0)), "2 weights, expected 3"),
        (lambda: losses.vicreg(X, Y, weights=(1.0, -2.0, 0.0)), "weights is -2.0"),
        (lambda: losses.barlow_twins(X, Y, epsilon=0.0), "epsilon is 0.0"),
        (lambda: losses.matryoshka(losses.n_pair, X, Y, dims=(1.5, 2)), "dims are .* integers"),
        (lambda: losses.matryoshka(losses.n_pair, X, Y, dims=2), "dims are 2"),
        (lambda: losses.matryoshka(losses.n_pair, X, Y, dims=(2,), weights=("1",)), "weights is"),
    ],
)
def test_what_would_answer_wrongly_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


def test_class_ids_that_are_traced_give_nan_for_the_pair():
    got = jax.jit(losses.margin_contrastive)(X, Y, np.array([0, 1, 2]))
    assert np.isnan(got).tolist() == [False, False, True]


def test_sizes_of_nested_embeddings_may_be_any_integers():
    want = losses.matryoshka(losses.n_pair, X, Y, dims=(1, 2), weights=(1.0, 1.0))
    for dims in (np.array([1, 2]), iter([1, 2]), [np.int64(1), 2]):
        got = losses.matryoshka(losses.n_pair, X.tolist(), Y, dims=dims, weights=np.ones(2))
        np.testing.assert_array_equal(got, want)


def test_barlow_twins_has_a_bounded_gradient_where_features_hardly_vary():
    x, y = ARGUMENTS["barlow_twins"]
    grad = jax.jit(jax.grad(losses.barlow_twins), compiler_options=QUICK_COMPILE)
    assert np.abs(grad(1e-8 * x, y)).max() < 1e4  # 2e6 without epsilon
    np.testing.assert_allclose(grad(x, y), grad(x, y, epsilon=1e-12), rtol=1e-3, atol=1e-4)
