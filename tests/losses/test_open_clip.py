"""Losses of two towers beside open_clip, by arrays of `benchmarks.peers.open_clip_equal`."""

import functools
from pathlib import Path

import jax
import numpy as np
import pytest

from contrastive_jax import losses

FROZEN = Path(__file__).with_name("open_clip.npz")
KINDS = {
    "clip": losses.symmetric_info_nce,
    "siglip": functools.partial(losses.siglip, bias=-10.0),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block_size", [None, 2])
def test_loss_and_gradients_equal_those_of_open_clip(kind, block_size):
    frozen = np.load(FROZEN)
    loss = functools.partial(KINDS[kind], temperature=frozen["temperature"], block_size=block_size)
    mean = jax.jit(jax.value_and_grad(lambda x, y: loss(x, y).mean(), argnums=(0, 1)))
    value, gradients = mean(frozen["image"], frozen["text"])
    np.testing.assert_allclose(value, frozen[f"{kind}_loss"], atol=1e-5)
    for name, gradient in zip(("image", "text"), gradients, strict=True):
        np.testing.assert_allclose(gradient, frozen[f"{kind}_{name}"], atol=1e-5)
