"""ViT: published sizes, torch's features, the same gradient on any number of devices."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from contrastive_jax import encoders, parallel
from contrastive_jax.encoders import torch_names, vit
from contrastive_jax.errors import CheckpointError, ConfigError
from contrastive_jax.training import optim
from experiments.run.encoder import ENCODER
from experiments.run.sections import keys_of
from tests.devices import SEVERAL

FROZEN = Path(__file__).parent / "torch_features.npz"  # of benchmarks/torch_weights.py --frozen
SMALL = {"name": "vit", "patch_size": 4, "dim": 16, "layers": 2, "heads": 2}


def init(encoder, side=16):
    return jax.jit(functools.partial(encoder.init, train=False))(
        jax.random.key(0), jnp.zeros((1, side, side, 3))
    )


@pytest.mark.parametrize(
    ("size", "published"), [("Ti", 5_717_416), ("S", 22_050_664), ("B", 86_567_656)]
)
def test_parameter_counts_are_timms(size, published):
    encoder = vit.make(size=size)
    shapes = jax.eval_shape(
        lambda: encoder.init(jax.random.key(0), jnp.zeros((1, 224, 224, 3)), train=False)
    )
    assert sum(p.size for p in jax.tree.leaves(shapes)) + 1000 * (vit.SIZES[size].dim + 1) == (
        published
    )


@pytest.fixture(scope="module", params=["timm_ViT", "torchvision_ViT"])
def frozen(request):
    """(tensors, images, features) of a random model in torch."""
    with np.load(FROZEN, allow_pickle=False) as arrays:
        prefix = f"{request.param}/tensors/"
        tensors = {n.removeprefix(prefix): arrays[n] for n in arrays if n.startswith(prefix)}
        return tensors, arrays[f"{request.param}/x"], arrays[f"{request.param}/features"]


def test_torchs_weights_give_torchs_features_and_come_back_bit_for_bit(frozen, tmp_path):
    tensors, x, theirs = frozen
    classifier = {"head.weight": np.ones((3, 16)), "heads.head.bias": np.ones(3)}  # ignored
    file = tmp_path / "weights.safetensors"
    safetensors.numpy.save_file({**tensors, **classifier}, file)
    encoder = encoders.make(**SMALL, init=str(file))
    variables = init(encoder)  # under jit, as in training
    ours = encoder.apply(variables, x, train=False)
    assert np.abs(theirs).max() > 0.5
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    back = torch_names.to_torch(variables)
    assert len(back) == len(tensors)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(back[torch_names._timm_name(name)], tensor)


def test_what_does_not_fit_is_named_with_its_count():
    encoder = encoders.make(**SMALL)
    tensors = torch_names.to_torch(init(encoder))
    del tensors["cls_token"]
    tensors |= {"more": np.ones(1), "norm.weight": np.ones(3)}
    message = r"1 missing: cls_token; 1 too many: more; 1 of another shape .*norm.weight is \(3,\)"
    with pytest.raises(CheckpointError, match=message):
        torch_names.from_torch(tensors, encoder, (16, 16, 3))


def test_another_stem_is_said():
    given, other = (
        encoders.make(depth=10, width=0.125, stages=1, stem=s) for s in ("cifar", "imagenet")
    )
    tensors = torch_names.to_torch(init(given))
    with pytest.raises(CheckpointError, match="compare encoder stem and width"):
        torch_names.from_torch(tensors, other, (16, 16, 3))


def test_other_files_are_refused_with_the_remedy(tmp_path):
    (tmp_path / "weights.h5").write_bytes(b"PK")
    (tmp_path / "damaged.safetensors").write_bytes(b"PK")
    for name, message in [
        ("weights.h5", "Give a .safetensors, .pth or .pt file"),
        ("damaged.safetensors", "cannot be read"),
        ("none.safetensors", "no such file"),
    ]:
        with pytest.raises(CheckpointError, match=message) as caught:
            init(encoders.make(**SMALL, init=str(tmp_path / name)))
        assert len(str(caught.value).splitlines()) <= 3


def test_positions_of_another_resolution_are_interpolated():
    encoder = encoders.make(**SMALL, positions="sincos")
    variables = init(encoder)
    assert encoder.apply(variables, jnp.zeros((2, 24, 8, 3)), train=False).shape == (2, 16)
    larger = torch_names.from_torch(torch_names.to_torch(variables), encoder, (32, 32, 3))
    embedding = larger["params"]["frozen_position_embedding"]
    assert embedding.shape == (1 + 64, 16)
    smooth = vit.resized(variables["params"]["frozen_position_embedding"], (8, 8), 1)
    np.testing.assert_allclose(embedding, smooth, atol=1e-6)


def test_sines_and_cosines_are_those_of_column_and_row():
    embedding = vit._sincos(1, jax.random.key(0), (1 + 9, 8))
    row, column = 2, 1
    angle = np.array([1.0, 0.01])
    want = [
        np.sin(column * angle),
        np.cos(column * angle),
        np.sin(row * angle),
        np.cos(row * angle),
    ]
    np.testing.assert_allclose(embedding[1 + 3 * row + column], np.concatenate(want), atol=1e-6)
    assert not embedding[0].any()


@pytest.fixture(scope="module")
def gradients():
    """Loss and gradient on so many devices, with stochastic depth; by default one."""
    settings = {**SMALL, "stochastic_depth": 0.5, "freeze_patches": True, "positions": "sincos"}
    x = jax.random.uniform(jax.random.key(1), (8, 8, 8, 3))
    params = init(encoders.make(**settings), 8)["params"]

    @functools.cache
    def on(devices, **changes):
        encoder = encoders.make(**settings, **changes)
        mesh = parallel.make_mesh(jax.devices()[:devices])

        def loss(params, x):
            rngs = {"dropout": jax.random.key(2)}
            return jnp.sin(encoder.apply({"params": params}, x, train=True, rngs=rngs)).sum()

        placed = jax.device_put(params, parallel.replicated(mesh))
        return jax.jit(jax.value_and_grad(loss))(placed, jax.device_put(x, parallel.batched(mesh)))

    on.params, on.x, on.settings = params, x, settings
    return on


def close(got, want):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("devices", SEVERAL)
def test_gradients_with_stochastic_depth_are_those_of_one_device(gradients, devices):
    close(gradients(devices), gradients(1))


def test_remat_changes_no_gradient(gradients):
    close(gradients(1, remat=True), gradients(1))


def test_frozen_parameters_have_no_gradient_and_stay(gradients):
    _, gradient = gradients(1)
    for name, leaves in gradient.items():
        assert any(np.any(g) for g in jax.tree.leaves(leaves)) != name.startswith("frozen_"), name
    for name in optim.NAMES:
        decay_all = name != "muon"
        optimizer, _ = optim.make(
            name,
            0.1,
            weight_decay=0.1,
            decay_norm_and_bias=decay_all,
            batch_size=8,
            steps=9,
            steps_per_epoch=1,
        )
        updates, _ = optimizer.update(gradient, optimizer.init(gradients.params), gradients.params)
        frozen = {k: v for k, v in updates.items() if k.startswith("frozen_")}
        assert len(frozen) == 2
        assert not any(np.any(u) for u in jax.tree.leaves(frozen)), name


def test_branches_are_left_out_of_whole_examples_in_training_alone(gradients):
    encoder = encoders.make(**gradients.settings)
    apply = functools.partial(encoder.apply, {"params": gradients.params})
    x = jnp.tile(gradients.x[:1], (64, 1, 1, 1))
    trained = apply(x, train=True, rngs={"dropout": jax.random.key(3)})
    kinds = len(np.unique(np.asarray(trained).round(3), axis=0))
    assert kinds == 4  # both branches of the last block, kept or not; the first block stays
    evaluated = apply(x[:2], train=False)
    np.testing.assert_allclose(evaluated[0], evaluated[1], rtol=1e-6)


def test_masks_know_positions_tokens_and_embeddings():
    params = init(encoders.make(**SMALL))["params"] | {"words": {"embedding": jnp.ones((5, 4))}}
    weights = optim._weights(())(params)
    matrices = optim._as_matrices(())(params)
    assert weights["block1"]["qkv"] == {"kernel": True, "bias": False}
    assert weights["patch_projection"]["kernel"]
    assert matrices["patch_projection"]["kernel"] is not None
    assert not weights["class_token"]
    assert not weights["position_embedding"]
    assert not any(jax.tree.leaves(weights["block1"]["norm1"]))
    assert weights["words"]["embedding"]
    assert matrices["words"]["embedding"] is None
    assert matrices["position_embedding"] is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": "XL"}, "encoder size is 'XL'; give"),
        ({"dim": 10, "heads": 3}, "encoder dim is 10; give a multiple of heads"),
        ({"pool": "max"}, "encoder pool is 'max'; give"),
        ({"stochastic_depth": 1.0}, "encoder stochastic_depth is 1.0; give"),
        ({"mean": (0.5,)}, "encoder std is"),
    ],
)
def test_impossible_settings_name_the_key_and_the_remedy(settings, message):
    with pytest.raises(ValueError, match=message):
        vit.make(**settings)


def test_images_that_patches_do_not_cover_are_refused():
    with pytest.raises(ValueError, match="patch_size is 4 and the images are 10 x 10; give"):
        init(encoders.make(**SMALL), 10)


def test_normalization_is_that_of_normalized_images(gradients):
    plain = encoders.make(**SMALL)
    variables = init(plain, 8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    ours = encoders.make(**SMALL, mean=mean, std=std).apply(variables, gradients.x, train=False)
    x = (gradients.x - np.float32(mean)[None, None, None]) / np.float32(std)[None, None, None]
    np.testing.assert_allclose(ours, plain.apply(variables, x, train=False), atol=1e-5)


def test_a_function_of_ones_own_is_an_encoder_with_its_keys():
    name = "tests.encoders.own:make"
    assert set(keys_of(ENCODER, {"name": name})) == {"name", "init", "features"}
    assert encoders.make(name, features=3).features == 3
    assert encoders.resolved(name) == {"name": name, "features": 6}
    with pytest.raises(ValueError, match="no setting 'feature'; did you mean 'features'"):
        encoders.make(name, feature=3)
    with pytest.raises(ValueError, match="read the weights of"):
        encoders.make(name, init="weights.safetensors")
    for wrong in ("tests.encoders.none:make", "tests.encoders.own:none"):
        with pytest.raises(ConfigError, match="give a module that Python finds"):
            keys_of(ENCODER, {"name": wrong})
