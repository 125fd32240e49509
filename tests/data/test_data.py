import json
import re
import shutil
import socket
import struct
import zipfile
import zlib
from pathlib import Path

import jax
import numpy as np
import pytest

from contrastive_jax import data
from contrastive_jax.data.tfds import find_prepared
from contrastive_jax.errors import DataError
from tests.data import sets
from tests.data.sets import encoded

SHARED = Path(__file__).parents[3] / "shared" / "tensorflow_datasets"
N_TRAIN, N_TEST = 24, 6


def arrays(n_train=20, n_test=8):
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (n_train, 4, 5, 3), np.uint8),
        "label": (np.arange(n_train) % 4).astype(np.int64),
        "test_image": rng.integers(0, 256, (n_test, 4, 5, 3), np.uint8),
        "test_label": (np.arange(n_test) % 4).astype(np.int64),
    }


def examples(n):
    image = np.arange(n, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)
    return {"image": image, "label": np.arange(n, dtype=np.int32) + 100}


def assert_short(error):
    assert 1 <= len(str(error.value).splitlines()) <= 3


# digits


def test_digits_are_the_real_ones_and_test_is_the_last_fifty_of_each_class():
    from sklearn.datasets import load_digits

    digits, real = data.load("digits", batch_size=1297), load_digits()
    assert digits.train["image"].shape == (1297, 8, 8, 1)
    assert digits.test["image"].shape == (500, 8, 8, 1)
    for digit in range(10):
        both = [s["image"][s["label"] == digit] for s in (digits.train, digits.test)]
        assert len(both[1]) == 50
        expected = real.images[real.target == digit][..., None] * 255 / 16
        np.testing.assert_allclose(np.concatenate(both), expected, atol=0.5)


def test_digits_use_the_whole_range_of_uint8():
    digits = data.load("digits", batch_size=1)
    assert (digits.train["image"].dtype, digits.train["label"].dtype) == (np.uint8, np.int32)
    assert (digits.train["image"].min(), digits.train["image"].max()) == (0, 255)


# arrays


@pytest.mark.parametrize("as_folder", [False, True])
def test_npz_comes_back_as_it_was_saved(tmp_path, as_folder):
    saved = arrays()
    if as_folder:
        np.savez(tmp_path / "train.npz", image=saved["image"], label=saved["label"])
        np.savez(tmp_path / "test.npz", image=saved["test_image"], label=saved["test_label"])
    else:
        np.savez(tmp_path / "mine.npz", **saved)
    path = tmp_path if as_folder else tmp_path / "mine.npz"
    loaded = data.load("arrays", batch_size=4, data_dir=path, limit_test=5)
    assert loaded.name == path.stem
    assert loaded.class_names == ("0", "1", "2", "3")
    np.testing.assert_array_equal(loaded.train["image"], saved["image"])
    np.testing.assert_array_equal(loaded.train["label"], saved["label"])
    np.testing.assert_array_equal(loaded.test["image"], saved["test_image"][:5])
    assert loaded.train["label"].dtype == loaded.test["label"].dtype == np.int32


class Bomb:
    """Runs code when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["objects in an npz", "a bare pickle"])
def test_nothing_pickled_is_ever_loaded(tmp_path, kind):
    path, ran = tmp_path / "bad.npz", tmp_path / "ran"
    bomb = np.array([Bomb(ran)], dtype=object)
    if kind == "objects in an npz":
        np.savez(path, **{**arrays(), "label": bomb})
    else:
        bomb.dump(path)
    with pytest.raises(DataError, match="pickle") as error:
        data.load("arrays", batch_size=4, data_dir=path)
    assert_short(error)
    assert not ran.exists()


def test_an_unreadable_npz_is_a_short_error(tmp_path):
    np.savez(tmp_path / "whole.npz", **arrays())
    whole = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    np.savez(tmp_path / "less.npz", image=arrays()["image"])
    np.save(tmp_path / "array.npy", arrays()["image"])
    flipped = bytearray(whole)
    with zipfile.ZipFile(tmp_path / "whole.npz") as archive:
        flipped[archive.getinfo("image.npy").header_offset + 300] ^= 1
    (tmp_path / "flipped.npz").write_bytes(flipped)
    reasons = {
        "cut.npz": "zip",
        "less.npz": "no test_image",
        "array.npy": "not an .npz",
        "flipped.npz": "CRC",
        "gone.npz": "No such file",
    }
    for name, reason in reasons.items():
        with pytest.raises(DataError, match=reason) as error:
            data.load("arrays", batch_size=4, data_dir=tmp_path / name)
        assert name in str(error.value)
        assert_short(error)


MALFORMED = {
    "float images": ("image", lambda x: x / 255, r"train: image is float64"),
    "no channels": ("image", lambda x: x[..., 0], r"image\[\.\.\., None\]"),
    "no height": ("test_image", lambda x: x[:, :0], r"test: image .*\[8, 0, 5, 3\]"),
    "other size": ("test_image", lambda x: x[:, :3], r"\(4, 5, 3\).*\(3, 5, 3\)"),
    "float labels": ("label", lambda y: y + 0.5, "train: label is float64"),
    "one-hot labels": ("test_label", lambda y: np.eye(4, dtype=int)[y], r"test: label.*\[8, 4\]"),
    "fewer labels": ("label", lambda y: y[:-1], "20 images and 19 labels"),
    "a class that train lacks": (
        "test_label",
        lambda y: np.where(np.arange(8) == 5, 4, y),
        "test: label 4 at index 5 is none of the classes 0, 1, 2, 3",
    ),
    "unlabeled in test": (
        "test_label",
        lambda y: np.where(np.arange(8) == 3, -1, y),
        "test: label -1 at index 3",
    ),
    "label -2": ("label", lambda y: np.where(np.arange(20) == 7, -2, y), "label -2 at index 7"),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_malformed_arrays_are_refused_with_the_split_and_the_place(tmp_path, what):
    key, change, message = MALFORMED[what]
    saved = arrays()
    np.savez(tmp_path / "mine.npz", **{**saved, key: change(saved[key])})
    with pytest.raises(DataError, match=message) as error:
        data.load("arrays", batch_size=4, data_dir=tmp_path / "mine.npz")
    assert_short(error)


def test_an_empty_set_is_refused(tmp_path):
    np.savez(tmp_path / "mine.npz", **arrays(n_test=0))
    with pytest.raises(DataError, match="test: 0 images"):
        data.load("arrays", batch_size=4, data_dir=tmp_path / "mine.npz")


def test_unlabeled_images_may_be_trained_on_but_not_evaluated_on(tmp_path):
    saved = arrays()
    saved["label"][:8] = data.UNLABELED
    np.savez(tmp_path / "mine.npz", **saved)
    train = data.load("arrays", batch_size=4, data_dir=tmp_path / "mine.npz").train
    some = data.labeled(train)
    assert len(train["label"]) == 20
    np.testing.assert_array_equal(some["image"], saved["image"][8:])
    np.testing.assert_array_equal(some["label"], saved["label"][8:])
    assert not len(data.labeled(data.take(train, slice(8)))["label"])


def test_arrays_without_labels_are_loaded_without_them(tmp_path):
    saved = arrays()
    path = tmp_path / "mine.npz"
    np.savez(path, image=saved["image"], test_image=saved["test_image"])
    loaded = data.load("arrays", batch_size=4, data_dir=path)
    assert set(loaded.train) == set(loaded.test) == {"image"}
    assert loaded.class_names == ()
    batches = data.train_feed(loaded, seed=0)
    sent = batches.batch_at(0)
    assert set(batches.assemble(batches.resident, sent)) == {"image", "index"}

    np.savez(path, image=saved["image"], label=saved["label"], test_image=saved["test_image"])
    loaded = data.load("arrays", batch_size=4, data_dir=path)
    assert (set(loaded.test), loaded.class_names) == ({"image"}, ("0", "1", "2", "3"))


@pytest.mark.parametrize("train", [None, np.full(20, -1)])
def test_without_training_labels_the_classes_are_those_of_the_test_images(tmp_path, train):
    saved = {**arrays(), "label": train}
    saved["test_label"] = np.array([5, 9, 5, 9, 5, 9, 5, 9])
    given = {name: values for name, values in saved.items() if values is not None}
    np.savez(tmp_path / "mine.npz", **given)
    loaded = data.load("arrays", batch_size=4, data_dir=tmp_path / "mine.npz")
    assert loaded.class_names == ("5", "9")
    np.testing.assert_array_equal(loaded.test["label"], [0, 1] * 4)
    assert not data.n_examples(data.labeled(loaded.train))


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint64])
def test_labels_may_be_any_integers(tmp_path, dtype):
    saved, values = arrays(), np.array([1, 2, 40, 200]).astype(dtype)
    saved = {**saved, "label": values[saved["label"]], "test_label": values[saved["test_label"]]}
    np.savez(tmp_path / "mine.npz", **saved)
    loaded = data.load("arrays", batch_size=4, data_dir=tmp_path / "mine.npz", limit_train=5)
    assert loaded.class_names == ("1", "2", "40", "200")
    np.testing.assert_array_equal(loaded.train["label"], np.arange(5) % 4)
    np.testing.assert_array_equal(loaded.test["label"], arrays()["test_label"])
    saved["test_label"][5] = 3
    np.savez(tmp_path / "mine.npz", **saved)
    with pytest.raises(DataError, match="label 3 at index 5 is none of the classes 1, 2, 40, 200"):
        data.load("arrays", batch_size=4, data_dir=tmp_path / "mine.npz")


def test_arrays_are_called_by_their_file_or_folder(tmp_path, monkeypatch):
    saved = arrays()
    folder = tmp_path / "shades.v2"
    folder.mkdir()
    for split, prefix in (("train", ""), ("test", "test_")):
        np.savez(folder / f"{split}.npz", image=saved[f"{prefix}image"])
    np.savez(tmp_path / "mine.npz", **saved)
    monkeypatch.chdir(folder)
    for path, name in ((tmp_path / "mine.npz", "mine"), (folder, "shades.v2"), (".", "shades.v2")):
        assert data.load("arrays", name="cifar10", batch_size=4, data_dir=path).name == name


# arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0 .* 1297"),
        ({"batch_size": 1298}, "batch_size is 1298 .* 1297"),
        ({"limit_train": 100, "batch_size": 101}, "batch_size is 101 .* 100"),
        ({"source": "imagenet"}, "'imagenet'.*digits, glyphs, folder, webdataset, captions"),
        ({"limit_test": 0}, "limit_test is 0"),
        ({"image_size": -1}, "image_size is -1"),
        ({"image_size": 16}, "image_size 16"),
        ({"train_split": "train[:10]"}, r"train\[:10\]"),
        ({"name": "cifar10"}, "'cifar10'"),
        ({"source": "arrays"}, "data_dir"),
        ({"source": "tfds"}, "None"),
        ({"source": "tfds", "name": "../cifar10"}, "'../cifar10'"),
        ({"source": "tfds", "name": "/etc"}, "'/etc'"),
    ],
)
def test_arguments_that_cannot_be_meant_are_value_errors(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        data.load(**{"source": "digits", "batch_size": 32, **arguments})
    assert_short(error)


# order


def indices(feed, steps):
    return np.concatenate([feed.batch_at(step)["index"] for step in steps])


def test_an_epoch_visits_every_example_once_and_drops_the_remainder():
    feed = data.feed(examples(23), batch_size=5, seed=7)
    for epoch in range(3):
        order = np.random.default_rng((7, epoch)).permutation(23)
        seen = indices(feed, range(4 * epoch, 4 * epoch + 4))
        np.testing.assert_array_equal(seen, order[:20])
    assert feed.batch_at(0)["index"].dtype == np.int32
    whole = data.feed(examples(23), batch_size=23, seed=7)
    assert sorted(indices(whole, [5])) == list(range(23))


def test_a_batch_depends_on_seed_and_step_alone():
    steps = np.random.default_rng(0).permutation(40)
    one, other = (data.feed(examples(23), batch_size=5, seed=7) for _ in range(2))
    for step in steps:
        np.testing.assert_array_equal(indices(one, [step]), indices(one, [np.int32(step)]))
    np.testing.assert_array_equal(indices(one, range(40)), indices(other, range(40)))


def test_epochs_and_seeds_have_their_own_order():
    feed, other = (data.feed(examples(64), batch_size=64, seed=seed) for seed in (0, 1))
    orders = [indices(feed, [0]), indices(feed, [1]), indices(other, [0]), indices(other, [1])]
    assert len({order.tobytes() for order in orders}) == 4


def test_changing_a_batch_does_not_change_the_order():
    feed = data.feed(examples(8), batch_size=4, seed=0)
    first = feed.batch_at(0)["index"].copy()
    feed.batch_at(0)["index"][:] = 0
    np.testing.assert_array_equal(feed.batch_at(0)["index"], first)


def test_the_compiled_step_gathers_the_rows_of_the_index():
    some = examples(12)
    feed = data.feed(some, batch_size=4, seed=3)
    assemble = jax.jit(feed.assemble)
    for step in range(6):
        sent = feed.batch_at(step)
        batch = assemble(feed.resident, sent)
        assert batch["image"].dtype == np.uint8
        np.testing.assert_array_equal(batch["image"], some["image"][sent["index"]])
        np.testing.assert_array_equal(batch["label"], some["label"][sent["index"]])
        np.testing.assert_array_equal(batch["index"], sent["index"])


@pytest.mark.parametrize("shape", [(), (2, 5), (77,), (128,), (80, 80, 3)])
def test_rows_on_the_device_are_whole_lanes_and_give_the_examples_back(shape):
    values = np.arange(6 * np.prod(shape, dtype=int), dtype=np.int32).reshape(6, *shape)
    feed = data.feed({"x": values}, batch_size=3, seed=0)
    assert values[0].size < 64 or feed.resident["x"].shape[-1] % 128 == 0
    sent = feed.batch_at(0)
    np.testing.assert_array_equal(feed.assemble(feed.resident, sent)["x"], values[sent["index"]])


@pytest.mark.parametrize(
    ("batch_size", "seed", "message"),
    [(0, 0, "batch_size is 0"), (9, 0, "batch_size is 9 .* 8"), (4, -1, "seed is -1")],
)
def test_a_feed_refuses_what_has_no_batches(batch_size, seed, message):
    with pytest.raises(ValueError, match=message):
        data.feed(examples(8), batch_size, seed)


# prepared sets


def bands(side):
    """Three squares side by side: red, green, blue."""
    return np.repeat(np.eye(3, dtype=np.uint8) * 255, side, axis=0)[None].repeat(side, axis=0)


def huge_png():
    def chunk(kind, content):
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", 9500, 9500, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with the set `photos`: images of many sizes, and a split without labels."""
    import tensorflow_datasets as tfds

    def rows(n, label=None):
        for i in range(n):
            pixels = np.full((8 + i, 10, 3), 8 * i, np.uint8)
            yield {"image": encoded(pixels), "label": i % 3 if label is None else label}

    odd = [bands(9), bands(9).transpose(1, 0, 2), np.full((9, 9), 77, np.uint8)]
    odd = [encoded(odd[0]), encoded(odd[1]), encoded(odd[2], "JPEG"), huge_png()]
    splits = {"train": rows(N_TRAIN), "test": rows(N_TEST), "unlabeled": rows(5, label=-1)}
    splits |= {f"odd{i}": [{"image": x, "label": i % 3}] for i, x in enumerate(odd)}
    features = {
        "image": tfds.features.Image(),
        "label": tfds.features.ClassLabel(names=["cat", "dog", "ant"]),
    }
    root = tmp_path_factory.mktemp("sets")
    sets.write(root, "photos", "1.10.0", features, splits)
    return root


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("an attempt to use the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def photos(root, **arguments):
    arguments = {"name": "photos", "batch_size": 1, "image_size": 8, **arguments}
    return data.load("tfds", data_dir=root, **arguments)


def test_a_prepared_set_is_read_whole_with_labels_and_names(prepared):
    loaded = photos(prepared)
    assert loaded.train["image"].shape == (N_TRAIN, 8, 8, 3)
    assert loaded.test["image"].shape == (N_TEST, 8, 8, 3)
    assert loaded.class_names == ("cat", "dog", "ant")
    gray = loaded.train["image"][:, 0, 0, 0]
    np.testing.assert_array_equal(loaded.train["image"], np.broadcast_to(
        gray[:, None, None, None], loaded.train["image"].shape))  # fmt: skip
    np.testing.assert_array_equal(np.sort(gray), 8 * np.arange(N_TRAIN))
    np.testing.assert_array_equal(loaded.train["label"], gray // 8 % 3)


def test_splits_slices_and_limits_choose_the_rows(prepared):
    whole = photos(prepared, train_split="train+unlabeled")
    assert (whole.train["label"] == data.UNLABELED).sum() == 5
    assert len(whole.train["label"]) == N_TRAIN + 5
    sliced = photos(prepared, train_split="train[3:9]", test_split="train[:50%]")
    np.testing.assert_array_equal(sliced.train["image"], whole.train["image"][3:9])
    np.testing.assert_array_equal(sliced.test["image"], whole.train["image"][: N_TRAIN // 2])
    limited = photos(prepared, limit_train=7, limit_test=1000)
    np.testing.assert_array_equal(limited.train["label"], whole.train["label"][:7])
    assert len(limited.test["label"]) == N_TEST
    with pytest.raises(DataError, match="unlabeled: label -1 at index 0"):
        photos(prepared, test_split="unlabeled")


def test_the_environment_names_the_folder_when_the_config_does_not(prepared, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    assert len(photos(None).train["label"]) == N_TRAIN


@pytest.mark.parametrize("split", ["odd0", "odd1"])
def test_resizing_keeps_the_middle_square(prepared, split):
    image = photos(prepared, train_split=split, image_size=9).train["image"][0]
    np.testing.assert_array_equal(image, np.broadcast_to([0, 255, 0], (9, 9, 3)))
    small = photos(prepared, train_split=split, image_size=3).train["image"][0].astype(int)
    assert small[1, 1, 1] == 255
    assert (small.argmax(-1) == 1).all()


def test_a_gray_jpeg_becomes_three_equal_channels(prepared):
    image = photos(prepared, train_split="odd2", image_size=9).train["image"]
    np.testing.assert_array_equal(image, np.full((1, 9, 9, 3), 77))


@pytest.mark.filterwarnings("ignore")
def test_an_image_of_too_many_pixels_is_refused(prepared):
    with pytest.raises(DataError, match="example 0 of split 'odd3'.*exceeds limit") as error:
        photos(prepared, train_split="odd3")
    assert_short(error)


def test_images_of_many_sizes_need_an_image_size(prepared):
    with pytest.raises(DataError, match="image_size"):
        photos(prepared, image_size=None)


def record_file(folder, split="train"):
    (path,) = folder.glob(f"photos-{split}.array_record*")
    return path


def edit_info(folder, old, new):
    path = folder / "dataset_info.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def flip(folder):
    path = record_file(folder)
    content = bytearray(path.read_bytes())
    content[content.index(b"IHDR") + 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "no metadata": (lambda f: (f / "dataset_info.json").unlink(), {}, "no photos in"),
    "cut metadata": (lambda f: (f / "dataset_info.json").write_text('{"x'), {}, "cannot read"),
    "no features": (lambda f: (f / "features.json").unlink(), {}, "cannot read"),
    "tfrecord": (lambda f: edit_info(f, "array_record", "tfrecord"), {}, "stored as tfrecord"),
    "fewer examples": (lambda f: edit_info(f, '"24"', '"30"'), {}, "example 24 of split 'train'"),
    "no records": (lambda f: record_file(f).unlink(), {}, "example 0 of split 'train'"),
    "cut records": (
        lambda f: record_file(f, "test").write_bytes(record_file(f, "test").read_bytes()[:1000]),
        {},
        "of split 'test'",
    ),
    "a flipped byte": (flip, {}, r"example \d+ of split 'train'"),
    "another version": (lambda f: None, {"name": "photos:1.9.0"}, "1.10.0, not 1.9.0"),
    "another set": (lambda f: None, {"name": "imagenette/160px"}, "tfds build imagenette/160px"),
    "cifar10": (lambda f: None, {"name": "cifar10"}, "experiments.prepare cifar10 --data_dir"),
    "no such split": (
        lambda f: None,
        {"test_split": "val"},
        "'val'.*\nIt has .*train .24., test .6.",
    ),
    "an empty slice": (lambda f: None, {"train_split": "train[:0]"}, r"'train\[:0\]'"),
    "not a slice": (lambda f: None, {"train_split": "train[5"}, r"'train\[5'"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_set_that_cannot_be_read_says_why_at_once(prepared, tmp_path, what):
    damage, arguments, message = DAMAGE[what]
    folder = tmp_path / "photos" / "1.10.0"
    shutil.copytree(prepared / "photos" / "1.10.0", folder)
    damage(folder)
    with pytest.raises(DataError, match=message) as error:
        photos(tmp_path, **arguments)
    assert_short(error)
    assert not re.search("delete|remove", str(error.value), re.IGNORECASE)


def test_with_skip_training_goes_without_the_images_that_cannot_be_read(prepared, caplog):
    splits = "train[:9]+odd3+train[9:]"  # one image too large in the middle
    whole = photos(prepared).train
    skipped = photos(prepared, train_split=splits, on_corrupt="skip").train
    np.testing.assert_array_equal(skipped["image"], whole["image"])
    np.testing.assert_array_equal(skipped["label"], whole["label"])
    (said,) = caplog.messages
    assert f"left out 1 of {N_TRAIN + 1} examples of split '{splits}'" in said
    assert said.endswith(": 9")


def test_with_skip_the_test_images_still_have_to_be_whole(prepared):
    with pytest.raises(DataError, match="example 0 of split 'odd3'"):
        photos(prepared, test_split="odd3", on_corrupt="skip")
    with pytest.raises(DataError, match="none of the 1 examples"):
        photos(prepared, train_split="odd3", on_corrupt="skip")
    with pytest.raises(ValueError, match="'error' or 'skip'"):
        photos(prepared, on_corrupt="ignore")


def test_a_missing_set_names_the_command_and_the_config_without_download(tmp_path):
    with pytest.raises(DataError) as error:
        photos(tmp_path / "my sets", name="cifar10")
    assert f"experiments.prepare cifar10 --data_dir '{tmp_path}/my sets'" in str(error.value)
    assert "--config configs/digits.py" in str(error.value)
    assert_short(error)


def test_the_newest_version_is_the_one_with_the_highest_number(tmp_path):
    for folder in ("a/1.9.0", "a/1.10.0", "a/incomplete.XYZ_2.0.0", "b/small/1.0.0"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "dataset_info.json").write_text(json.dumps({}))
    assert find_prepared("a", tmp_path).name == "1.10.0"
    assert find_prepared("a:1.9.0", tmp_path).name == "1.9.0"
    assert find_prepared("b/small", tmp_path).name == "1.0.0"
    assert find_prepared("b/small/1.0.0", tmp_path).name == "1.0.0"
    with pytest.raises(DataError, match="'b/small'"):
        find_prepared("b", tmp_path)


def test_a_data_dir_that_is_too_deep_is_understood(tmp_path):
    for folder in ("a/1.9.0", "a/1.10.0", "b/small/1.0.0", "c/c/1.0.0"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "dataset_info.json").write_text(json.dumps({}))
    found = {
        ("a", "a"): "a/1.10.0",
        ("a", "a/1.9.0"): "a/1.9.0",
        ("a:1.10.0", "a/1.9.0"): "a/1.10.0",
        ("b/small", "b"): "b/small/1.0.0",
        ("b/small", "b/small"): "b/small/1.0.0",
        ("b/small", "b/small/1.0.0"): "b/small/1.0.0",
        ("c", "c"): "c/c/1.0.0",
    }
    for (name, given), folder in found.items():
        assert find_prepared(name, tmp_path / given) == tmp_path / folder
    with pytest.raises(DataError, match=rf"no b in {tmp_path}/a: b/<version>"):
        find_prepared("b", tmp_path / "a")


@pytest.mark.skipif(not (SHARED / "cifar10").is_dir(), reason="no ../shared/tensorflow_datasets")
def test_cifar10_is_read_without_a_word(capfd, caplog):
    loaded = data.load(
        "tfds", name="cifar10", batch_size=64, data_dir=SHARED, train_split="train[:200]",
        limit_test=50,
    )  # fmt: skip
    assert loaded.train["image"].shape == (200, 32, 32, 3)
    assert loaded.test["image"].shape == (50, 32, 32, 3)
    assert loaded.class_names[:2] == ("airplane", "automobile")
    assert set(loaded.train["label"]) == set(range(10))
    assert 40 < loaded.train["image"].std() < 80
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
