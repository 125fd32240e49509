"""Features come out whole and in order, from one compiled program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax.evaluation import features


def embed(params, model_state, batch):
    image = batch["image"].reshape(len(batch["image"]), -1).astype(jnp.float32)
    return {
        "features": image * params["scale"],
        "embedding": (image @ params["w"]) + model_state["b"],
    }


PARAMS = {"scale": np.float32(0.5), "w": np.ones((12, 3), jnp.bfloat16)}
MODEL_STATE = {"b": np.float32(1.0)}


def images(n):
    return np.random.default_rng(1).integers(0, 256, size=(n, 2, 2, 3), dtype=np.uint8)


@pytest.mark.parametrize("n", [3, 4, 10])
def test_every_image_is_embedded_in_order_whatever_the_last_batch(n):
    out = features.extract(embed, PARAMS, MODEL_STATE, {"image": images(n)}, batch_size=4)
    flat = images(n).reshape(n, -1).astype(np.float32)
    np.testing.assert_array_equal(out["features"], flat * 0.5)
    np.testing.assert_array_equal(out["embedding"], np.repeat(flat.sum(1)[:, None] + 1, 3, axis=1))
    assert {array.dtype for array in out.values()} == {np.dtype("float32")}


def test_any_arrays_are_cut_into_batches_alike():
    def ranked(params, model_state, batch):
        return {"features": batch["tokens"] * 10 + batch["length"][:, None]}

    arrays = {"tokens": np.arange(10).reshape(5, 2), "length": np.arange(5)}
    out = features.extract(ranked, {}, {}, arrays, batch_size=2)
    np.testing.assert_array_equal(
        out["features"], arrays["tokens"] * 10 + arrays["length"][:, None]
    )


def test_batches_are_placed_by_the_caller_and_the_encoder_is_traced_once():
    traced, placed = [], []

    def counting(params, model_state, batch):
        traced.append(batch["image"].shape)
        return embed(params, model_state, batch)

    def shard(batch):
        placed.append(batch["image"].shape)
        return jax.device_put(batch)

    on_device = jax.device_put((PARAMS, MODEL_STATE))
    with jax.transfer_guard("disallow"):
        features.extract(counting, *on_device, {"image": images(10)}, batch_size=4, shard=shard)
    assert traced == [(4, 2, 2, 3)]
    assert placed == [(4, 2, 2, 3)] * 3


def test_no_examples_and_arrays_of_unequal_length_are_refused():
    for arrays in ({}, {"image": images(0)}, {"image": images(3), "length": np.arange(2)}):
        with pytest.raises(ValueError, match="arrays of one length"):
            features.extract(embed, PARAMS, MODEL_STATE, arrays, batch_size=4)
