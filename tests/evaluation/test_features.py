"""Features come out whole and in order, from one compiled program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import parallel
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


def test_batches_are_split_over_a_mesh_and_the_encoder_is_traced_once():
    traced, mesh = [], parallel.make_mesh()

    def counting(params, model_state, batch):
        traced.append(batch["image"].shape)
        return embed(params, model_state, batch)

    on_devices = parallel.put_replicated((PARAMS, MODEL_STATE), mesh)
    arrays = {"image": images(20)}
    with jax.transfer_guard("disallow"):
        split = features.extract(counting, *on_devices, arrays, batch_size=8, mesh=mesh)
    assert traced == [(8, 2, 2, 3)]
    alone = features.extract(embed, PARAMS, MODEL_STATE, arrays, batch_size=8)
    for name in alone:
        np.testing.assert_array_equal(split[name], alone[name])


class Read:
    """An array that remembers which of its rows were read."""

    def __init__(self, array):
        self.array, self.rows = array, []

    def __len__(self):
        return len(self.array)

    def __getitem__(self, rows):
        self.rows += np.arange(len(self))[rows].tolist()
        return self.array[rows]


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_processes_read_each_example_once_between_them(monkeypatch, parts):
    monkeypatch.setattr(parallel, "put_local_batch", lambda batch, mesh: batch)
    read = []
    for part in range(parts):
        own, image = np.arange(8)[part::parts], Read(images(18))
        monkeypatch.setattr(parallel, "local_rows", lambda mesh, n, own=own: own)
        arrays, mesh = {"image": image}, parallel.make_mesh(jax.devices()[:1])
        features.extract(embed, PARAMS, MODEL_STATE, arrays, batch_size=8, mesh=mesh)
        assert image.rows == [row for row in range(18) if row % parts == part]
        read += image.rows
    assert sorted(read) == list(range(18))


def test_no_examples_and_arrays_of_unequal_length_are_refused():
    for arrays in ({}, {"image": images(0)}, {"image": images(3), "length": np.arange(2)}):
        with pytest.raises(ValueError, match="arrays of one length"):
            features.extract(embed, PARAMS, MODEL_STATE, arrays, batch_size=4)
