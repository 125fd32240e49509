"""The identity of data changes with what is trained on and scored, and with nothing else."""

import shutil

import numpy as np
import pytest

from benchmarks.shared import photos
from contrastive_jax import data
from tests.data.test_data import arrays


def of_arrays(path, changed=None, **arguments):
    np.savez(path, **{**arrays(), **(changed or {})})
    return data.identity(data.load("arrays", batch_size=4, data_dir=path, **arguments))


def test_the_identity_of_arrays_is_that_of_their_content(tmp_path):
    there = tmp_path / "elsewhere"
    there.mkdir()
    whole = of_arrays(tmp_path / "mine.npz")
    assert of_arrays(there / "mine.npz") == whole
    digest = whole.pop("sha256")
    assert whole == {
        "name": "mine",
        "train": 20,
        "test": 8,
        "image_shape": [4, 5, 3],
        "class_names": ["0", "1", "2", "3"],
    }
    assert of_arrays(there / "yours.npz")["sha256"] == digest


def one_more(values):
    changed = values.copy()
    changed.flat[-1] ^= 1
    return changed


OTHERS = {
    "a pixel": {"changed": {"image": one_more(arrays()["image"])}},
    "a pixel of test": {"changed": {"test_image": one_more(arrays()["test_image"])}},
    "a label": {"changed": {"label": one_more(arrays()["label"])}},
    "a label of test": {"changed": {"test_label": one_more(arrays()["test_label"])}},
    "the order": {"changed": {"image": arrays()["image"][::-1]}},
    "the shape": {
        "changed": {k: arrays()[k].swapaxes(1, 2) for k in ("image", "test_image")},
    },
    "class numbers": {"changed": {k: arrays()[k] + 1 for k in ("label", "test_label")}},
    "a limit": {"limit_train": 19},
    "a limit of test": {"limit_test": 7},
}


@pytest.mark.parametrize("what", OTHERS)
def test_other_data_have_another_digest(tmp_path, what):
    whole = of_arrays(tmp_path / "mine.npz")
    assert of_arrays(tmp_path / "mine.npz", **OTHERS[what])["sha256"] != whole["sha256"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    jpegs = photos.photos(12, (8, 16), (8, 16), 0)
    photos.write_set(root, {"train": jpegs, "validation": jpegs[:4]})
    return root


def of_stream(root, **arguments):
    arguments = {"batch_size": 4, "image_size": 8, "test_split": "validation", **arguments}
    return data.load("tfds", name="snapshots", data_dir=root, streaming=True, **arguments)


def test_the_identity_of_a_stream_needs_no_image_and_no_place(root, tmp_path, monkeypatch):
    shutil.copytree(root / "snapshots", tmp_path / "snapshots")
    here, there = of_stream(root, bank=5, workers=0), of_stream(tmp_path, bank=8, workers=2)
    monkeypatch.setattr(data.streaming.Photos, "__getitem__", None)
    identity = data.identity(here)
    assert data.identity(there) == identity
    assert (identity["train"], identity["test"], identity["image_shape"]) == (12, 4, [8, 8, 3])
    assert data.identity(of_stream(root, limit_train=100)) == identity


def test_another_stream_has_another_digest(root, tmp_path):
    jpegs = photos.photos(12, (8, 16), (8, 16), 1)
    photos.write_set(tmp_path, {"train": jpegs, "validation": jpegs[:4]})
    streams = [
        of_stream(root),
        of_stream(tmp_path),
        of_stream(root, limit_train=11),
        of_stream(root, limit_test=3),
        of_stream(root, train_split="train[1:]"),
        of_stream(root, test_split="train"),
    ]
    assert len({data.identity(stream)["sha256"] for stream in streams}) == len(streams)
