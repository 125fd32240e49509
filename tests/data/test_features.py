"""Any image set can be read: with labels under another name, as plain integers, or with none."""

import contextlib
import shutil

import numpy as np
import pytest

from contrastive_jax import data
from contrastive_jax.errors import DataError
from contrastive_jax.types import Crops
from tests.data import sets
from tests.data.sets import encoded

N = 12
CROPS = Crops(n_views=2, size=8, scale=(0.5, 1.0), ratio=(1.0, 1.0))


def written(root, features, example, image="image"):
    """The set `things`: image i is uniformly 20 * i; `features` and `example(i)` beside it."""
    of_set = {image: picture(), **features}
    rows = [{image: encoded(np.full((8, 8, 3), 20 * i, np.uint8)), **example(i)} for i in range(N)]
    return sets.write(root, "things", "1.0.0", of_set, {"train": rows, "test": rows})


def picture():
    import tensorflow_datasets as tfds

    return tfds.features.Image(shape=(8, 8, 3), encoding_format="png")


def class_label():
    import tensorflow_datasets as tfds

    return tfds.features.ClassLabel(names=["cat", "dog", "ant"])


def load(root, **arguments):
    return data.load("tfds", name="things", data_dir=root, batch_size=4, **arguments)


def streamed(root, **arguments):
    return load(root, streaming=True, image_size=8, **arguments)


def batches_of(dataset, steps=3):
    with contextlib.closing(data.train_feed(dataset, 0, CROPS)) as feed:
        return [feed.batch_at(step) for step in range(steps)]


def place(image_NHWC):
    """The i of each image."""
    return np.rint(image_NHWC[:, 0, 0, 0] / 20).astype(int)


def assert_labels(root, label_of, names, **keys):
    """In memory, streamed for training and streamed for evaluation."""
    for dataset in (load(root, **keys), streamed(root, **keys)):
        assert dataset.class_names == names
        for split in (dataset.train, dataset.test):
            expected = [label_of(i) for i in place(split["image"][:])]
            assert split["label"].tolist() == expected
            assert split["label"].dtype == np.int32
    for batch in batches_of(dataset):
        assert batch["label"].tolist() == [label_of(i) for i in place(batch["image"][:, 0])]


def test_an_image_and_a_class_of_other_names_are_found(tmp_path):
    written(tmp_path, {"labels": class_label()}, lambda i: {"labels": i % 3}, image="img")
    assert_labels(tmp_path, lambda i: i % 3, ("cat", "dog", "ant"))


@pytest.mark.parametrize("name", ["label", "category"])
def test_plain_integers_are_numbered_by_their_order(tmp_path, name):
    values = [900, 7, 3]
    written(tmp_path, {name: np.int64}, lambda i: {name: values[i % 3]})
    assert_labels(tmp_path, lambda i: 2 - i % 3, ("3", "7", "900"))


def test_plain_integers_of_a_stream_are_those_of_all_its_images(tmp_path):
    written(tmp_path, {"label": np.int64}, lambda i: {"label": 10 * i})
    dataset = streamed(tmp_path, bank=2)
    assert dataset.class_names == tuple(str(10 * i) for i in range(N))
    assert dataset.train["label"].tolist() == place(dataset.train["image"][:]).tolist()
    for batch in batches_of(dataset):
        assert batch["label"].tolist() == place(batch["image"][:, 0]).tolist()


@pytest.mark.parametrize("beside", [(), ("id",), ("height", "width")])
def test_a_set_without_a_label_is_read_without_one(tmp_path, beside, caplog):
    written(tmp_path, dict.fromkeys(beside, np.int64), lambda i: dict.fromkeys(beside, i))
    for dataset in (load(tmp_path), streamed(tmp_path)):
        assert set(dataset.train) == set(dataset.test) == {"image"}
        assert dataset.class_names == ()
        assert data.labeled(dataset.train)["image"].shape == (0, 8, 8, 3)
        assert sorted(place(dataset.train["image"][:])) == list(range(N))
    assert {tuple(batch) for batch in batches_of(dataset)} == {("image", "index")}
    assert "without labels" in caplog.messages[0]
    assert "data.label_key" in caplog.messages[0]
    assert all(f"{name} (int64)" in caplog.messages[0] for name in beside)


@pytest.mark.parametrize("feature", [np.int64, None])
def test_images_that_are_all_unlabeled_are_trained_on(tmp_path, feature):
    classes = {"label": feature or class_label()}
    folder = written(tmp_path / "none", classes, lambda i: {"label": -1})
    labeled = written(tmp_path, classes, lambda i: {"label": i % 3})
    for file in labeled.glob("things-test*"):
        shutil.copy(file, folder)
    for dataset in (load(tmp_path / "none"), streamed(tmp_path / "none")):
        assert not data.n_examples(data.labeled(dataset.train))
        assert dataset.test["label"].tolist() == [i % 3 for i in place(dataset.test["image"][:])]
    assert {x for batch in batches_of(dataset) for x in batch["label"].tolist()} == {-1}


def test_a_stream_is_evaluated_with_the_labeled_images_of_training(tmp_path):
    some = written(tmp_path / "some", {"label": class_label()}, lambda i: {"label": i % 4 - 1})
    for file in written(tmp_path, {"label": class_label()}, lambda i: {"label": 1}).glob("*-test*"):
        shutil.copy(file, some)
    bank = streamed(tmp_path / "some").train
    assert bank["label"].tolist() == [i % 4 - 1 for i in place(bank["image"][:])]
    assert sorted(place(bank["image"][:])) == [i for i in range(N) if i % 4]
    seen = [x for batch in batches_of(streamed(tmp_path / "some")) for x in batch["label"]]
    assert sorted(seen) == sorted(i % 4 - 1 for i in range(N))


def test_only_training_may_have_unlabeled_images(tmp_path):
    written(tmp_path, {"label": np.int64}, lambda i: {"label": i % 4 - 1})
    for read in (load, streamed):
        with pytest.raises(DataError, match="test: label -1 at index"):
            read(tmp_path)


def test_of_two_classes_one_has_to_be_chosen(tmp_path):
    both = {"kind": class_label(), "breed": class_label()}
    written(tmp_path, both, lambda i: {"kind": 0, "breed": i % 3})
    with pytest.raises(DataError) as error:
        load(tmp_path)
    message = str(error.value)
    assert "it has breed (ClassLabel), image (Image), kind (ClassLabel)" in message
    assert "Set data.label_key to a ClassLabel or an integer feature: breed, kind" in message
    assert len(message.splitlines()) <= 3
    assert_labels(tmp_path, lambda i: i % 3, ("cat", "dog", "ant"), label_key="breed")


def test_of_two_images_one_has_to_be_chosen(tmp_path):
    white = {"other": encoded(np.full((8, 8, 3), 255, np.uint8))}
    written(tmp_path, {"other": picture()}, lambda i: white, image="one")
    with pytest.raises(DataError, match="data.image_key to an Image feature: one, other"):
        load(tmp_path)
    for read in (load, streamed):
        assert sorted(place(read(tmp_path, image_key="one").train["image"][:])) == list(range(N))
        assert (read(tmp_path, image_key="other").test["image"][:] == 255).all()


@pytest.mark.parametrize("key", ["image_key", "label_key"])
def test_a_key_that_is_no_such_feature_is_refused_with_those_there_are(tmp_path, key):
    import tensorflow_datasets as tfds

    features = {"label": class_label(), "caption": tfds.features.Text()}
    written(tmp_path, features, lambda i: {"label": 1, "caption": "a thing"})
    with pytest.raises(
        DataError, match=f"{key[:5]} feature 'caption'.*caption .Text., .*label .ClassLabel."
    ):
        load(tmp_path, **{key: "caption"})


def test_a_set_without_images_says_what_it_has(tmp_path):
    sets.write(tmp_path, "things", "1.0.0", {"label": class_label()}, {"train": [{"label": 1}]})
    with pytest.raises(DataError, match="it has label .ClassLabel.\nSet .*there is none"):
        load(tmp_path)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_truncated_image_is_named_with_the_way_on(tmp_path, split):
    image = encoded(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8))
    rows = {name: [{"image": image, "label": 0}] * 3 for name in ("train", "test")}
    rows[split] = [{"image": image[: len(image) // 2], "label": 0}]
    features = {"image": picture(), "label": class_label()}
    sets.write(tmp_path, "things", "1.0.0", features, rows)
    with pytest.raises(DataError) as error:
        data.load("tfds", name="things", data_dir=tmp_path, batch_size=1)
    message = str(error.value)
    assert f"example 0 of split {split!r}" in message
    assert ('on_corrupt="skip"' in message) == (split == "train")
    assert "elete" not in message
    assert len(message.splitlines()) <= 3
