"""Folders of image files: what is read, how it is split, what breaks, in memory and streamed."""

import contextlib
import logging

import numpy as np
import pytest
from PIL import Image

from contrastive_jax import augment, data
from contrastive_jax.errors import DataError
from tests.data import photos

SIZE = {"image_size": 8}


def load(folder, **arguments):
    return data.load("folder", data_dir=folder, batch_size=4, **arguments)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    return photos.write(tmp_path_factory.mktemp("mixed") / "pets")


def test_modes_and_depths_become_the_same_color(tmp_path):
    shade = np.full((8, 8), 100, np.uint8)
    files = {
        "gray.png": Image.fromarray(shade),
        "deep.png": Image.fromarray(shade.astype(np.uint16) * 257),
        "color.webp": Image.fromarray(np.stack([shade] * 3, -1)),
        "palette.png": Image.fromarray(np.stack([shade] * 3, -1)).quantize(4),
        "alpha.png": Image.fromarray(np.stack([shade] * 4, -1)),
        "print.JPG": Image.fromarray(np.stack([shade] * 3, -1)).convert("CMYK"),
    }
    for name, image in files.items():
        image.save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
    loaded = load(tmp_path, test_fraction=0.2)
    both = np.concatenate([loaded.train["image"], loaded.test["image"]])
    assert both.shape == (6, 8, 8, 3)
    assert np.abs(both.astype(int) - 100).max() <= 2  # the JPEG
    assert load(tmp_path, channels=1).train["image"].shape[1:] == (8, 8, 1)


def test_the_sampled_split_is_stratified_and_that_of_its_seed(mixed, caplog):
    loaded = load(mixed, **SIZE, on_corrupt="skip", test_fraction=0.25)
    assert loaded.name == "pets"
    assert loaded.class_names == ("cat", "dog", "owl")
    counts = [np.bincount(split["label"]).tolist() for split in (loaded.train, loaded.test)]
    assert np.sum(counts, axis=0).tolist() == [20, 20, 19]
    assert np.isin(counts[1], [4, 5]).all()
    for words in ("no image in empty", "1 .txt", "left out 1 of", "dog/broken.png"):
        assert words in caplog.text
    again = load(mixed, **SIZE, on_corrupt="skip", test_fraction=0.25)
    other = load(mixed, **SIZE, on_corrupt="skip", test_fraction=0.25, split_seed=1)
    digests = [data.identity(each)["sha256"] for each in (loaded, again, other)]
    assert digests[0] == digests[1] != digests[2]
    assert len(set(load(mixed, **SIZE, on_corrupt="skip", limit_train=12).train["label"])) == 3


def test_a_stream_shows_the_images_that_memory_holds(mixed, caplog):
    caplog.set_level(logging.WARNING)
    stream = load(mixed, **SIZE, on_corrupt="skip", streaming=True, bank=30)
    whole = load(mixed, **SIZE, on_corrupt="skip")
    np.testing.assert_array_equal(stream.test["label"], whole.test["label"])
    assert stream.test["image"][:].shape == whole.test["image"].shape
    assert 29 <= len(stream.train["label"]) <= 30
    crops = augment.make_views(8).crops
    with contextlib.closing(data.train_feed(stream, 0, crops)) as feed:
        batches = [feed.batch_at(step) for step in range(stream.n_train // 4)]
    for batch in batches:
        np.testing.assert_array_equal(stream.stream.files.label_N[batch["index"]], batch["label"])
    moved = mixed.parent / "elsewhere"
    mixed.rename(moved)
    try:
        again = data.identity(load(moved, **SIZE, on_corrupt="skip", streaming=True, bank=30))
    finally:
        moved.rename(mixed)
    assert again["sha256"] == data.identity(stream)["sha256"]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_broken_file_is_named_before_training(mixed, streaming):
    with pytest.raises(DataError, match=r"broken.png.*(.|\n)*on_corrupt"):
        load(mixed, **SIZE, streaming=streaming)


def test_images_that_vary_in_size_are_named(mixed):
    with pytest.raises(DataError, match=r"vary in size: .*png is 1\dx12, (.|\n)*image_size"):
        load(mixed, on_corrupt="skip")


def write_small(folder, *names):
    for i, name in enumerate(names):
        path = folder / (name if "." in name else f"{name}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), i, np.uint8)).save(path, format="PNG")


TREES = {  # files -> (classes, labels of training, labels of test), None for no labels
    ("a.png", "b.png", "x/c.PNG", ".hidden.png", ".git/d.png"): ((), None, None, 3),
    ("train/u/1.png", "train/v/2.png", "test/u/3.png"): (("u", "v"), [0, 1], [0], 3),
    ("train/1.png", "train/2.png", "VAL/v/3.png", "VAL/u/4.png"): (("u", "v"), None, [0, 1], 4),
    ("train/u/1.png", "train/v/deep/2.png", "validation/3.png"): (("u", "v"), [0, 1], None, 3),
    ("u/1.png", "u/2.png", "v/3.png", "v/4.png", "5.png"): (("u", "v"), [-1, 0, 1], [0, 1], 5),
    ("train/1.png", "train/2.png", "car/1.png", "car/2.png"): (("car", "train"), [0, 1], [0, 1], 4),
}


@pytest.mark.parametrize("files", TREES, ids=lambda files: files[0])
def test_trees_are_read_as_the_docs_say(files, tmp_path):
    write_small(tmp_path, *files)
    classes, train, test, n = TREES[files]
    loaded = data.load("folder", data_dir=tmp_path, batch_size=1)
    assert loaded.class_names == classes
    assert len(loaded.train["image"]) + len(loaded.test["image"]) == n
    for split, expected in ((loaded.train, train), (loaded.test, test)):
        found = sorted(split["label"].tolist()) if "label" in split else None
        assert found == expected


REFUSED = {
    "no folder": ((), {}, "no folder"),
    "no image": (("a.txt",), {}, "holds no image; it has 1 .txt"),
    "one image": (("a.png",), {}, "holds one image"),
    "no training": (("test/a.png", "old/b.png"), {}, "no folder train"),
    "another name": (("train/a.png", "test/b.png"), {"test_split": "tset"}, "no folder tset"),
    "a new class": (("train/u/1", "train/v/2", "test/w/1", "test/u/1"), {}, "class w"),
    "a stray": (("train/u/1", "train/v/2", "test/u/1", "test/2"), {}, "2.png lies in no"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_trees_that_cannot_be_meant_are_refused(case, tmp_path):
    files, arguments, message = REFUSED[case]
    write_small(tmp_path / "set", *files)
    with pytest.raises(DataError, match=message):
        load(tmp_path / "set", **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": "folder"}, "needs data_dir"),
        ({"source": "folder", "data_dir": ".", "test_fraction": 1.0}, "test_fraction is 1.0"),
        ({"source": "folder", "data_dir": ".", "channels": 5}, "channels is 5"),
        ({"source": "folder", "data_dir": ".", "label_key": "x"}, "'folder' has no such key"),
        ({"source": "digits", "exif_orientation": True}, "use source 'folder'"),
    ],
)
def test_keys_that_cannot_be_meant_are_value_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        data.load(batch_size=4, **arguments)


def test_links_are_followed_but_not_in_circles_and_one_to_nowhere_is_broken(tmp_path):
    write_small(tmp_path / "store", "1.png", "2.png")
    (tmp_path / "set" / "u").mkdir(parents=True)
    (tmp_path / "set" / "u" / "all").symlink_to(tmp_path / "store")
    (tmp_path / "set" / "u" / "up").symlink_to(tmp_path / "set")
    assert len(load_both(tmp_path / "set")) == 2
    (tmp_path / "set" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match=r"cannot read .*gone.png"):
        load_both(tmp_path / "set")
    assert len(load_both(tmp_path / "set", on_corrupt="skip")) == 2


def load_both(folder, **arguments):
    loaded = data.load("folder", data_dir=folder, batch_size=1, **arguments)
    return np.concatenate([loaded.train["image"], loaded.test["image"]])


def test_orientation_is_applied_by_its_key_alone(tmp_path):
    ramp = np.arange(64, dtype=np.uint8).reshape(8, 8)[:, :6] * 3
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    for name in ("a.png", "b.png"):
        Image.fromarray(ramp).save(tmp_path / name, exif=exif)
    stored = load_both(tmp_path, channels=1)[0, ..., 0]
    upright = load_both(tmp_path, channels=1, exif_orientation=True)[0, ..., 0]
    np.testing.assert_array_equal(stored, ramp)
    np.testing.assert_array_equal(upright, np.rot90(ramp, -1))
    whole = {"crop_scale": (1.0, 1.0), "crop_ratio": (0.75, 4 / 3), "n_views": 1}
    turned = data.load(
        "folder", data_dir=tmp_path, batch_size=1, channels=1, exif_orientation=True,
        streaming=True, image_size=8,
    )  # fmt: skip
    with contextlib.closing(
        data.train_feed(turned, 0, augment.make_views(8, **whole).crops)
    ) as feed:
        view = feed.batch_at(0)["image"][0, 0, ..., 0].astype(int)
    assert (np.diff(view, axis=0) >= 0).all()  # rows of `upright` grow downwards
    assert (np.diff(view, axis=1) <= 0).all()
