"""Encoders and heads: published sizes, precision, the identity at the start, exact gradients."""

import functools
import inspect
import itertools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import encoders
from contrastive_jax.encoders import batch_norm, conv, heads, resnet


def count(module, x) -> int:
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), x, train=False))
    return sum(p.size for p in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize(
    ("depth", "features", "published"),
    [
        (18, 512, 11_689_512),
        (34, 512, 21_797_672),
        (50, 2048, 25_557_032),
        (101, 2048, 44_549_160),
        pytest.param(152, 2048, 60_192_808, marks=pytest.mark.slow),
    ],
)
def test_parameter_counts_are_torchvisions(depth, features, published):
    classifier = features * 1000 + 1000
    encoder = resnet.make(depth=depth, stem="imagenet")
    assert count(encoder, jnp.zeros((1, 64, 64, 3))) + classifier == published


def test_a_wide_resnet_has_torchvisions_parameter_count():
    encoder = resnet.make(depth=50, stem="imagenet", bottleneck_width=2.0)
    assert count(encoder, jnp.zeros((1, 64, 64, 3))) + 2048 * 1000 + 1000 == 68_883_240
    with pytest.raises(ValueError, match="depth 18 has no bottlenecks"):
        resnet.make(depth=18, bottleneck_width=2.0)


def test_width_and_stages_set_the_feature_size():
    x = jnp.zeros((1, 32, 32, 3))
    for width, stages, features in [(1.0, 4, 512), (0.5, 3, 128), (2.0, 2, 256)]:
        encoder = resnet.make(depth=10, width=width, stages=stages)
        shape = jax.eval_shape(
            lambda e=encoder: e.init_with_output(jax.random.key(0), x, train=False)
        )
        assert shape[0].shape == (1, features)


@pytest.fixture(scope="module")
def small():
    """A small encoder in both precisions, with its variables and some images."""
    x = jax.random.uniform(jax.random.key(1), (4, 16, 16, 3))
    encoder = resnet.make(depth=10, width=0.125, stages=2)
    return encoder, encoder.init(jax.random.key(0), x, train=False), x


def test_bfloat16_keeps_parameters_and_statistics_in_float32(small):
    _, variables, x = small
    half = resnet.make(depth=10, width=0.125, stages=2, dtype="bfloat16")
    h, updated = half.apply(variables, x, train=True, mutable=["batch_stats"])
    leaves = jax.tree.leaves((half.init(jax.random.key(0), x, train=False), updated))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
    full = small[0].apply(variables, x, train=True, mutable=["batch_stats"])[0]
    assert h.dtype == jnp.float32
    np.testing.assert_allclose(h, full, rtol=0.1, atol=0.02)


def test_last_norm_scale_of_each_block_starts_at_zero(small):
    blocks = [p for name, p in small[1]["params"].items() if "block" in name]
    assert blocks
    for block in blocks:
        assert not np.any(block["BatchNorm_1"]["scale"])
        assert np.all(block["BatchNorm_0"]["scale"] == 1)


def test_evaluation_mode_is_per_example_and_changes_no_statistics(small):
    encoder, variables, x = small
    h, updated = encoder.apply(variables, x, train=False, mutable=["batch_stats"])
    alone = encoder.apply(variables, x[:1], train=False)
    np.testing.assert_allclose(h[:1], alone, rtol=1e-5, atol=1e-6)
    assert jax.tree.all(
        jax.tree.map(jnp.array_equal, updated["batch_stats"], variables["batch_stats"])
    )


@pytest.mark.parametrize(
    ("batch", "side", "size", "stride"),
    [
        *((5, 16, 3, 1), (9, 16, 3, 2), (6, 16, 1, 2), (2, 16, 7, 2)),
        pytest.param(3, 17, 3, 2, marks=pytest.mark.slow),
        pytest.param(4, 8, 1, 1, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("min_flop", [0, 1e12], ids=["patches", "convolution"])
def test_gradients_on_cpu_equal_xlas(key, monkeypatch, batch, side, size, stride, min_flop):
    monkeypatch.setattr(conv, "_MIN_FLOP", min_flop)
    keys = jax.random.split(key, 3)
    pad = ((size - 1) // 2,) * 2
    x = jax.random.normal(keys[0], (batch, side, side, 3))
    kernel = jax.random.normal(keys[1], (size, size, 3, 4))
    y, pullback = jax.vjp(lambda x, k: conv.conv2d(x, k, stride, (pad, pad)), x, kernel)
    y_plain, pullback_plain = jax.vjp(
        lambda x, k: conv._convolve(x, k, stride, (pad, pad)), x, kernel
    )
    g = jax.random.normal(keys[2], y.shape)
    np.testing.assert_array_equal(y, y_plain)
    for got, want in zip(pullback(g), pullback_plain(g), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-3)


def test_filter_gradient_sums_over_several_chunks(key, monkeypatch):
    monkeypatch.setattr(conv, "_CHUNK_POSITIONS", 2 * 8 * 8)
    x = jax.random.normal(key, (7, 8, 8, 3))
    g = jax.random.normal(jax.random.fold_in(key, 1), (7, 8, 8, 4))
    got = conv._filter_gradient_in_chunks(x, g, (3, 3), 1, ((1, 1), (1, 1)))
    plain = lambda kernel: conv._convolve(x, kernel, 1, ((1, 1), (1, 1)))  # noqa: E731
    (want,) = jax.vjp(plain, jnp.zeros((3, 3, 3, 4)))[1](g)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_convolutions_in_a_loop_are_in_the_order_that_cpus_have_fast_kernels_for():
    def gradients(x_NBHWC, kernel):
        def loss(x_NBHWC, kernel):
            ys = jax.lax.scan(
                lambda _, x: (None, conv.conv2d(x, kernel, 2, ((1, 1), (1, 1)))), None, x_NBHWC
            )[1]
            return jnp.sum(ys**2)

        return jax.grad(loss, (0, 1))(x_NBHWC, kernel)

    compiled = jax.jit(gradients).lower(jnp.ones((3, 4, 8, 8, 5)), jnp.ones((3, 3, 5, 6))).compile()
    found = re.findall(r"\bconvolution\(.*dim_labels=(\S+),", compiled.as_text())
    assert len(found) >= 3
    assert set(found) == {"b01f_01io->b01f"}


def test_other_platforms_get_xlas_own_filter_gradient():
    def lowered(channels, platform, size=3):
        pad = ((size - 1) // 2,) * 2

        def gradient(x, kernel):
            return jax.grad(lambda k: conv.conv2d(x, k, 1, (pad, pad)).sum())(kernel)

        x = jax.ShapeDtypeStruct((256, 16, 16, channels), "float32")
        kernel = jax.ShapeDtypeStruct((size, size, channels, 32), "float32")
        traced = jax.jit(gradient).trace(x, kernel)
        return traced.lower(lowering_platforms=(platform,)).as_text()

    special = ("stablehlo.while", "stablehlo.dot_general", "stablehlo.optimization_barrier")
    assert all(operation in lowered(32, "cpu") for operation in special)
    assert "stablehlo.while" not in lowered(3, "cpu")  # too little to be worth a loop
    assert "stablehlo.dot_general" in lowered(3, "cpu", size=1)
    for platform, size in itertools.product(("cuda", "tpu"), (1, 3)):
        assert not any(operation in lowered(32, platform, size) for operation in special)


@pytest.mark.parametrize(
    ("settings", "matrices", "features"),
    [
        ({"kind": "none"}, 0, 16),
        ({"kind": "linear", "output_dim": 8}, 1, 8),
        ({"kind": "mlp", "hidden_dim": 12, "output_dim": 8, "layers": 2}, 2, 8),
        (
            {"kind": "mlp", "hidden_dim": 12, "output_dim": 8, "layers": 3, "batch_norm": False},
            3,
            8,
        ),
    ],
)
def test_heads_have_the_layers_they_are_asked_for(key, settings, matrices, features):
    head = heads.make(**settings)
    variables = head.init(key, jnp.zeros((1, 16)), train=False)
    kernels = [p for p in jax.tree.leaves(variables.get("params", {})) if p.ndim == 2]
    assert len(kernels) == matrices
    assert head.apply(variables, jnp.zeros((4, 16)), train=False).shape == (4, features)
    has_norm = settings.get("batch_norm", True) and matrices > 1
    assert ("batch_stats" in variables) == has_norm


@pytest.mark.parametrize(
    "settings",
    [{"depth": 19}, {"stem": "cifr"}, {"width": 0}, {"stages": 5}, {"dtype": "float8"}],
)
def test_unknown_encoder_settings_name_the_key_and_the_remedy(settings):
    (name,) = settings
    with pytest.raises(ValueError, match=f"encoder {name} is .*; give"):
        resnet.make(**settings)


def test_unknown_head_settings_name_the_key_and_the_remedy():
    with pytest.raises(ValueError, match="head kind is 'mpl'; give one of"):
        heads.make(kind="mpl")
    with pytest.raises(ValueError, match="head layers is 0; give at least 1"):
        heads.make(layers=0)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-5), ("bfloat16", 2e-2)])
@pytest.mark.parametrize("offset", [0.0, 10.0])
def test_batch_norm_is_flaxs_with_its_gradients(key, dtype, tolerance, offset):
    keys = jax.random.split(key, 3)
    x = (offset + jax.random.normal(keys[0], (16, 4, 4, 6))).astype(dtype)
    weight = jax.random.normal(keys[1], x.shape)
    ours = batch_norm.batch_norm(1, True, dtype)()
    flaxs = nn.BatchNorm(use_running_average=False, momentum=0.9, dtype=dtype)
    variables = ours.init(key, x)
    params = jax.tree.map(lambda p: p + jax.random.normal(keys[2], p.shape), variables["params"])

    @functools.partial(jax.jit, static_argnums=0)
    def both(layer, params, x):
        def loss(params, x):
            y, updated = layer.apply({**variables, "params": params}, x, mutable=["batch_stats"])
            statistics = updated["batch_stats"]  # their gradients count too
            extra = statistics["mean"].sum() + jnp.square(statistics["var"]).sum()
            return jnp.mean(weight * jnp.sin(y.astype(jnp.float32))) + extra, (y, statistics)

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, x)

    got, want = both(ours, params, x), both(flaxs, params, x)
    assert jax.tree.map(jnp.result_type, got) == jax.tree.map(jnp.result_type, want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        scale = np.abs(np.asarray(b, np.float32)).max()
        np.testing.assert_allclose(
            np.asarray(a, np.float32), np.asarray(b, np.float32), atol=tolerance * scale
        )
    evaluated = [
        layer.apply({"params": params, "batch_stats": got[1][1]}, x)
        for layer in (
            batch_norm.batch_norm(1, False, dtype)(),
            nn.BatchNorm(use_running_average=True, dtype=dtype),
        )
    ]
    a, b = (np.asarray(each, np.float32) for each in evaluated)
    np.testing.assert_allclose(a, b, atol=tolerance * np.abs(b).max())


def test_batch_norm_keeps_its_input_and_nothing_else_of_that_size():
    x = jnp.zeros((8, 4, 4, 6))
    _, pull = jax.vjp(lambda x: batch_norm.normalize(x, jnp.ones(6), jnp.zeros(6), 1e-5), x)
    large = [leaf for leaf in jax.tree.leaves(pull) if jnp.size(leaf) >= x.size]
    assert len(large) == 1


def test_local_statistics_are_those_of_each_part_of_the_batch(key):
    x = jax.random.normal(key, (8, 3, 3, 4))
    split, whole = (batch_norm.batch_norm(groups, True, jnp.float32)() for groups in (2, 1))
    variables = split.init(key, x)
    apply = lambda layer, x: layer.apply(variables, x, mutable=["batch_stats"])  # noqa: E731
    y, updated = apply(split, x)
    halves = [apply(whole, half) for half in (x[:4], x[4:])]
    expected = jnp.concatenate([half for half, _ in halves])
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    means = jax.tree.map(lambda a, b: (a + b) / 2, *(state for _, state in halves))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), updated, means
    )
    with pytest.raises(ValueError, match="norm_groups is 2, which does not divide 7"):
        apply(split, x[:7])


def test_local_statistics_are_the_running_ones_in_evaluation(key):
    x = jax.random.normal(key, (3, 4))
    split, whole = (batch_norm.batch_norm(groups, False, jnp.float32)() for groups in (2, 1))
    variables = split.init(key, x)
    np.testing.assert_allclose(split.apply(variables, x), whole.apply(variables, x), rtol=1e-5)


def test_an_encoder_by_name_is_that_of_its_module():
    settings = {"depth": 10, "stem": "stride2", "width": 0.25, "stages": 2, "norm_groups": 2}
    assert encoders.make("resnet", **settings) == resnet.make(**settings)
    assert encoders.make(**settings) == encoders.make(**encoders.resolved(**settings))
    assert encoders.keywords() == tuple(inspect.signature(resnet.make).parameters)


def test_unknown_encoders_and_settings_are_refused_with_what_exists():
    with pytest.raises(ValueError, match="encoder name is 'resnets'; give one of resnet"):
        encoders.make("resnets")
    with pytest.raises(ValueError, match="no setting 'widht'; did you mean 'width'"):
        encoders.make(widht=1.0)
    with pytest.raises(ValueError, match="no setting 'pooling'; give any of depth, stem"):
        encoders.resolved(pooling="max")


def test_every_encoder_of_the_table_makes_float32_features(key):
    for name in encoders.ENCODERS:
        encoder, x = encoders.make(name), jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
        init = functools.partial(encoder.init_with_output, train=False)
        features, variables = jax.eval_shape(init, key, x)
        assert (len(features.shape), features.dtype) == (2, jnp.float32)
        assert "params" in variables


def test_the_written_out_gradient_of_batch_norm_is_the_derived_one(key):
    x, scale, bias = jax.random.normal(key, (16, 3)), jnp.arange(1.0, 4.0), jnp.zeros(3)
    _, saved = batch_norm._forward(x, scale, bias, 1e-5)
    cotangents = (jnp.sin(x), jnp.ones(3), jnp.full(3, 2.0))
    derived = {}

    def keep(saved, grads, *, cpu, default):
        derived["gradient"] = default(saved, grads)
        return cpu(saved, grads)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_norm.lax, "platform_dependent", keep)
        written_out = batch_norm._backward(1e-5, saved, cotangents)
    for got, want in zip(written_out, derived["gradient"], strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
