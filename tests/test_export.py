"""An exported encoder: torchvision's names, torch's features, the same bits back, no damage."""

import hashlib
import json
import os
import stat

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import encoders, export
from contrastive_jax.errors import CheckpointError

# depth, stem, stages; narrow, so that they compile quickly
ARCHITECTURES = [(10, "stride2", 3), (18, "cifar", 2), (50, "imagenet", 2)]
BLOCKS = {10: [1, 1, 1, 1], 18: [2, 2, 2, 2], 34: [3, 4, 6, 3], 50: [3, 4, 6, 3]}
STEMS = {"cifar": (3, 1), "stride2": (3, 2), "imagenet": (7, 2)}


def settings_of(depth, stem, stages, width=0.125):
    return {"depth": depth, "stem": stem, "stages": stages, "width": width}


def shapes_of(encoder):
    x = jnp.zeros((1, 32, 32, 3))
    return jax.eval_shape(lambda key: encoder.init(key, x, train=False), jax.random.key(0))


def random_variables(encoder):
    """Every scale, shift and statistic away from its first value, so that none can be mixed up."""
    rng = np.random.default_rng(0)

    def sample(path, leaf):
        name = path[-1].key
        if name == "kernel":
            fan_in = np.prod(leaf.shape[:-1])
            return jnp.asarray(rng.normal(0, (2 / fan_in) ** 0.5, leaf.shape), jnp.float32)
        low, high = (0.5, 1.5) if name in ("scale", "var") else (-0.3, 0.3)
        return jnp.asarray(rng.uniform(low, high, leaf.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(sample, shapes_of(encoder))


def torch_resnet(torch, depth, stem, stages, width):
    """A plain torch ResNet whose modules are named as torchvision names them."""
    nn = torch.nn
    bottleneck = depth == 50

    class Block(nn.Module):
        def __init__(self, inputs, channels, stride):
            super().__init__()
            outputs = channels * (4 if bottleneck else 1)
            sizes = [(1, 1), (3, stride), (1, 1)] if bottleneck else [(3, stride), (3, 1)]
            widths = [inputs, *[channels] * (len(sizes) - 1), outputs]
            self.n = len(sizes)
            for i, (size, step) in enumerate(sizes):
                conv = nn.Conv2d(
                    widths[i], widths[i + 1], size, step, padding=size // 2, bias=False
                )
                setattr(self, f"conv{i + 1}", conv)
                setattr(self, f"bn{i + 1}", nn.BatchNorm2d(widths[i + 1]))
            self.downsample = None
            if stride != 1 or inputs != outputs:
                shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
                self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

        def forward(self, x):
            y = x
            for i in range(1, self.n + 1):
                y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
                y = torch.relu(y) if i < self.n else y
            return torch.relu(y + (x if self.downsample is None else self.downsample(x)))

    class ResNet(nn.Module):
        def __init__(self):
            super().__init__()
            size, stride = STEMS[stem]
            channels = round(64 * width)
            self.conv1 = nn.Conv2d(3, channels, size, stride, padding=size // 2, bias=False)
            self.bn1 = nn.BatchNorm2d(channels)
            self.maxpool = nn.MaxPool2d(3, 2, 1) if stem == "imagenet" else nn.Identity()
            inputs = channels
            for stage in range(stages):
                blocks = []
                for i in range(BLOCKS[depth][stage]):
                    step = 2 if stage and i == 0 else 1
                    blocks.append(Block(inputs, channels * 2**stage, step))
                    inputs = channels * 2**stage * (4 if bottleneck else 1)
                setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))

        def forward(self, x):
            x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
            for stage in range(stages):
                x = getattr(self, f"layer{stage + 1}")(x)
            return x.mean(dim=(2, 3))

    return ResNet().eval()


def conv(x_BCHW, weight_OIHW, stride):
    """torch's conv2d with padding size // 2, as a sum over the filter's places."""
    size = weight_OIHW.shape[-1]
    x = np.pad(x_BCHW, [(0, 0), (0, 0), (size // 2,) * 2, (size // 2,) * 2])
    height, width = (-(-side // stride) for side in x_BCHW.shape[2:])
    return sum(
        np.einsum(
            "bchw,oc->bohw",
            x[:, :, i : i + stride * height : stride, j : j + stride * width : stride],
            weight_OIHW[:, :, i, j],
        )
        for i in range(size)
        for j in range(size)
    )


def max_pool(x_BCHW):
    """torch's MaxPool2d(3, 2, 1)."""
    x = np.pad(x_BCHW, [(0, 0), (0, 0), (1, 1), (1, 1)], constant_values=-np.inf)
    height, width = (-(-side // 2) for side in x_BCHW.shape[2:])
    places = [(i, j) for i in range(3) for j in range(3)]
    return np.max([x[:, :, i : i + 2 * height : 2, j : j + 2 * width : 2] for i, j in places], 0)


def numpy_resnet(tensors, x, depth, stem, stages, width):
    """torchvision's ResNet as its source has it, in float64, from tensors with its names."""
    tensors = {name: np.asarray(tensor, np.float64) for name, tensor in tensors.items()}

    def conv_norm(x, conv_name, norm_name, stride=1):
        x = conv(x, tensors[f"{conv_name}.weight"], stride)
        names = ("weight", "bias", "running_mean", "running_var")
        scale, bias, mean, var = (tensors[f"{norm_name}.{n}"][:, None, None] for n in names)
        return (x - mean) / np.sqrt(var + 1e-5) * scale + bias

    def block(x, name, stride):
        strides = [1, stride, 1] if depth == 50 else [stride, 1]
        y = x
        for i, step in enumerate(strides, 1):
            y = conv_norm(y, f"{name}.conv{i}", f"{name}.bn{i}", step)
            y = np.maximum(y, 0) if i < len(strides) else y
        if f"{name}.downsample.0.weight" in tensors:
            x = conv_norm(x, f"{name}.downsample.0", f"{name}.downsample.1", stride)
        return np.maximum(x + y, 0)

    x = np.maximum(conv_norm(x, "conv1", "bn1", STEMS[stem][1]), 0)
    x = max_pool(x) if stem == "imagenet" else x
    for stage in range(stages):
        for i in range(BLOCKS[depth][stage]):
            x = block(x, f"layer{stage + 1}.{i}", 2 if stage and i == 0 else 1)
    return x.mean(axis=(2, 3))


@pytest.fixture(scope="module", params=ARCHITECTURES, ids=str)
def computed(request):
    """(settings, tensors, images [B,H,W,C], our features) of one architecture."""
    settings = settings_of(*request.param)
    encoder = encoders.make(**settings)
    variables = random_variables(encoder)
    x = np.random.default_rng(1).random((4, 32, 32, 3), np.float32)
    ours = np.asarray(jax.jit(lambda v, x: encoder.apply(v, x, train=False))(variables, x))
    assert np.abs(ours).max() > 0.1
    return settings, export.to_torch(variables, steps=7), x, ours


def test_torchvisions_arithmetic_on_the_tensors_gives_the_same_features(computed):
    settings, tensors, x, ours = computed
    theirs = numpy_resnet(tensors, x.transpose(0, 3, 1, 2), **settings)
    np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=1e-5)


def test_a_torch_resnet_with_the_tensors_gives_the_same_features(computed):
    torch = pytest.importorskip("torch")  # a peer, of benchmarks/requirements.txt
    settings, tensors, x, ours = computed
    model = torch_resnet(torch, **settings)
    model.load_state_dict({name: torch.from_numpy(np.array(t)) for name, t in tensors.items()})
    with torch.no_grad():
        theirs = model(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize(("depth", "count"), [(18, 120), (34, 216), (50, 318)])
def test_the_tensors_are_torchvisions_without_its_classifier(depth, count):
    shapes = shapes_of(encoders.make(depth=depth, stem="imagenet"))
    tensors = export.to_torch(jax.tree.map(lambda s: np.zeros(s.shape, np.float32), shapes))
    assert len(tensors) == count  # those of torchvision's state_dict, less fc.weight and fc.bias
    assert tensors["conv1.weight"].shape == (64, 3, 7, 7)
    assert tensors["layer2.0.downsample.1.num_batches_tracked"].dtype == np.int64
    last, features = {18: ("1.bn2", 512), 34: ("2.bn2", 512), 50: ("2.bn3", 2048)}[depth]
    assert tensors[f"layer4.{last}.running_var"].shape == (features,)


@pytest.fixture
def saved(tmp_path):
    settings = settings_of(10, "stride2", 1)
    variables = random_variables(encoders.make(**settings))
    shape = {"size": 8, "image_shape": (8, 8, 3)}
    export.save(tmp_path, variables, encoder=settings, about={"data": "none"}, steps=3, **shape)
    return tmp_path, variables


def test_what_is_loaded_is_what_was_saved_bit_for_bit(saved):
    folder, variables = saved
    exported = export.load(folder)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, variables, exported.variables))
    assert exported.card["data"] == "none"
    assert exported.card["encoder"]["dtype"] == "float32"  # a default, written out
    digest = hashlib.sha256((folder / export.TENSORS).read_bytes()).hexdigest()
    assert (folder / export.SUMS).read_text() == f"{digest}  {export.TENSORS}\n"


def test_every_file_has_the_mode_of_the_umask(saved):
    folder, _ = saved
    umask = os.umask(0)
    os.umask(umask)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == dict.fromkeys((export.TENSORS, export.CARD, export.SUMS), 0o666 & ~umask)


def test_an_export_without_the_name_of_its_encoder_is_a_resnet(saved):
    folder, variables = saved
    card = json.loads((folder / export.CARD).read_text())
    assert card["encoder"].pop("name") == "resnet"
    (folder / export.CARD).write_text(json.dumps(card))
    assert jax.tree.all(jax.tree.map(jnp.array_equal, variables, export.load(folder).variables))


def test_other_encoders_are_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setitem(encoders.ENCODERS, "mlp", lambda width=8: None)
    shape = {"size": 8, "image_shape": (8, 8, 3)}
    with pytest.raises(ValueError, match="'mlp' cannot be exported: torch's names exist for"):
        export.save(tmp_path, {}, encoder={"name": "mlp"}, about={}, **shape)
    assert not list(tmp_path.iterdir())


def test_a_card_of_an_unknown_encoder_is_refused(saved):
    folder, _ = saved
    card = json.loads((folder / export.CARD).read_text())
    card["encoder"]["name"] = "tests.encoders.own:make"  # of code that would be imported
    (folder / export.CARD).write_text(json.dumps(card))
    with pytest.raises(CheckpointError, match="name is 'tests.encoders.own:make'; give one of"):
        export.load(folder)


def test_a_flipped_byte_is_refused(saved):
    folder, _ = saved
    damaged = bytearray((folder / export.TENSORS).read_bytes())
    damaged[-1] ^= 1
    (folder / export.TENSORS).write_bytes(damaged)
    with pytest.raises(CheckpointError, match="not the file that its card names"):
        export.load(folder)


def test_a_card_of_another_encoder_is_refused_and_names_a_tensor(saved):
    folder, _ = saved
    card = json.loads((folder / export.CARD).read_text())
    card["encoder"]["stages"] = 2
    (folder / export.CARD).write_text(json.dumps(card))
    with pytest.raises(CheckpointError, match="layer2.0"):
        export.load(folder)
    card["encoder"] |= {"stages": 1, "width": 0.25}
    (folder / export.CARD).write_text(json.dumps(card))
    with pytest.raises(
        CheckpointError, match=r"of another shape .* is \(8,\), the encoder has \(16,\)"
    ):
        export.load(folder)


def test_a_folder_without_an_export_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="holds no export"):
        export.load(tmp_path)


def test_a_vit_is_loaded_bit_for_bit_and_its_card_says_how_images_are_normalized(tmp_path):
    settings = {"name": "vit", "patch_size": 4, "dim": 8, "layers": 1, "heads": 2}
    settings |= {"positions": "sincos", "mean": (0.5,), "std": (0.25,)}
    variables = {**random_variables(encoders.make(**settings)), "batch_stats": {}}
    shape = {"size": 32, "image_shape": (32, 32, 3)}
    card = export.save(tmp_path, variables, encoder=settings, about={}, **shape)
    loaded = export.load(tmp_path)
    assert jax.tree.all(
        jax.tree.map(jnp.array_equal, variables["params"], loaded.variables["params"])
    )
    assert "subtract [0.5], divide by [0.25]" in card["preprocessing"]["steps"][-1]
    assert "embed_dim=8, depth=1, num_heads=2" in card["torch"][0]
