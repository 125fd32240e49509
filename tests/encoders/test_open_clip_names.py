"""Tensors of open_clip in both towers, by arrays of `benchmarks.peers.open_clip_equal`."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax.encoders import clip_text, heads, vit
from contrastive_jax.encoders.open_clip_names import from_open_clip, to_open_clip
from contrastive_jax.errors import CheckpointError

FROZEN = Path(__file__).parents[1] / "losses" / "open_clip.npz"
SIZES = {"dim": 8, "layers": 2, "heads": 2, "activation": "quick_gelu"}
IMAGE = vit.make(patch_size=4, style="clip", **SIZES)
TEXT = clip_text.make(11, context=5, **SIZES)
HEAD = heads.make(kind="linear", output_dim=4, batch_norm=False, bias=False)


@pytest.fixture(scope="module")
def frozen():
    return dict(np.load(FROZEN))


@pytest.fixture(scope="module")
def tensors(frozen):
    prefix = "tensor:"
    return {n.removeprefix(prefix): x for n, x in frozen.items() if n.startswith(prefix)}


@pytest.fixture(scope="module")
def like(frozen):
    key, h = jax.random.key(0), jnp.zeros((1, 8))
    tokens = jnp.asarray(frozen["shown_tokens"])
    return {
        "encoder": IMAGE.init(key, frozen["shown_image"], train=False)["params"],
        "head": HEAD.init(key, h, train=False)["params"],
        "text": TEXT.init(key, tokens, (tokens != 0).sum(1), train=False)["params"],
        "text_head": HEAD.init(key, h, train=False)["params"],
        "loss": {"log_scale": jnp.float32(0.0), "bias": jnp.float32(-10.0)},
        "probe": {"bias": jnp.zeros(3)},
    }


def test_features_of_both_towers_are_those_of_open_clip(frozen, tensors, like):
    params = from_open_clip(tensors, like)
    h = IMAGE.apply({"params": params["encoder"]}, frozen["shown_image"], train=False)
    image = HEAD.apply({"params": params["head"]}, h, train=False)
    np.testing.assert_allclose(image, frozen["features_image"], atol=1e-4)
    tokens = jnp.asarray(frozen["shown_tokens"])
    y = TEXT.apply({"params": params["text"]}, tokens, (tokens != 0).sum(1), train=False)
    text = HEAD.apply({"params": params["text_head"]}, y, train=False)
    np.testing.assert_allclose(text, frozen["features_text"], atol=1e-4)
    np.testing.assert_array_equal(params["loss"]["log_scale"], tensors["logit_scale"])
    assert params["loss"]["bias"] == -10.0  # which a model of CLIP lacks
    assert params["probe"] is not None


def test_the_names_come_back(tensors, like):
    back = to_open_clip(from_open_clip(tensors, like))
    assert back.keys() == tensors.keys() | {"logit_bias"}
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(back[name], tensor)


def test_tensors_of_another_model_are_named(tensors, like):
    short = {name: x for name, x in tensors.items() if name != "visual.proj"}
    with pytest.raises(CheckpointError, match="1 missing: visual.proj"):
        from_open_clip(short, like)
    with pytest.raises(CheckpointError, match="1 too many: extra"):
        from_open_clip({**tensors, "extra": np.zeros(2)}, like)
    wide = {**tensors, "text_projection": np.zeros((8, 5))}
    with pytest.raises(CheckpointError, match=r"text_projection is \(8, 5\), the towers have"):
        from_open_clip(wide, like)
    timm = {"encoder": vit.make(patch_size=4, dim=8, layers=1, heads=2).init(
        jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False)["params"]}  # fmt: skip
    with pytest.raises(ValueError, match="patch_projection/bias has no name"):
        to_open_clip(timm)
