"""Tar files of images: what is found in them, how they are split, what breaks."""

import contextlib
import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from contrastive_jax import augment, data
from contrastive_jax.data import tars
from contrastive_jax.errors import DataError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "contrastive_jax"


def png(value, size=(8, 8)):
    file = io.BytesIO()
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(file, format="PNG")
    return file.getvalue()


def write(path, members, mode="w"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, content in members.items():
            content = content if isinstance(content, bytes) else str(content).encode()
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def samples(values, label=lambda value: value % 3):
    found = {}
    for value in values:
        found |= {f"a/{value:03}.png": png(value), f"a/{value:03}.cls": f"{label(value)}\n"}
        found[f"a/{value:03}.json"] = "{}"
    return found


@pytest.fixture
def shards(tmp_path):
    """Twenty images for training in two tars, six for the test."""
    root = tmp_path / "set"
    write(root / "train-00.tar", samples(range(10)))
    write(root / "train-01.tar", samples(range(10, 20)))
    write(root / "val-00.tar", samples(range(30, 36)))
    return root


def load(root, **arguments):
    return data.load("webdataset", data_dir=root, **{"batch_size": 4, **arguments})


def values(split):
    return split["image"][:][:, 0, 0, 0].tolist()


def test_every_image_comes_with_its_label(shards):
    loaded = load(shards)
    assert loaded.name == "set"
    assert sorted(values(loaded.train)) == [*range(20)]
    assert sorted(values(loaded.test)) == [*range(30, 36)]
    for split in (loaded.train, loaded.test):
        assert split["label"].tolist() == [value % 3 for value in values(split)]
    assert loaded.class_names == ("0", "1", "2")


def test_a_stream_shows_the_images_that_memory_holds(shards):
    whole, stream = load(shards), load(shards, streaming=True, image_size=8)
    assert values(stream.test) == values(whole.test)
    crops = augment.make_views(8).crops
    with contextlib.closing(data.train_feed(stream, 0, crops)) as feed:
        seen = [feed.batch_at(step) for step in range(5)]
    shown = np.concatenate([batch["image"][:, 0, 0, 0, 0] for batch in seen])
    assert sorted(shown.tolist()) == [*range(20)]
    assert np.concatenate([batch["label"] for batch in seen]).tolist() == (shown % 3).tolist()
    names = [stream.stream.place(batch["index"][0]) for batch in seen]
    assert all(
        f"{batch['image'][0, 0, 0, 0, 0]:03}.png of" in name
        for batch, name in zip(seen, names, strict=True)
    )


def test_labels_with_gaps_are_classes_in_order_and_a_file_may_name_them(shards):
    for name in ("train-00", "train-01", "val-00"):
        write(shards / f"{name}.tar", samples(range(10), label=lambda value: 7 * (value % 2)))
    loaded = load(shards, streaming=True, image_size=8)
    assert loaded.class_names == ("0", "7")
    assert sorted(set(loaded.test["label"].tolist())) == [0, 1]
    crops = augment.make_views(8).crops
    with contextlib.closing(data.train_feed(loaded, 0, crops)) as feed:
        assert set(feed.batch_at(0)["label"].tolist()) <= {0, 1}
    (shards / "classnames.txt").write_text("".join(f"thing {i}\n" for i in range(8)))
    named = load(shards)
    assert named.class_names[7] == "thing 7"
    assert sorted(set(named.test["label"].tolist())) == [0, 7]
    (shards / "classnames.txt").write_text("one\n")
    with pytest.raises(DataError, match=r"names 1 classes, and a label is 7"):
        load(shards)


SPLITS = {
    "patterns": {"train_split": "train-{00..00}.tar", "test_split": "*-01.tar"},
    "names": {"train_split": "train-00", "test_split": "train-01"},
    "lists": {"train_split": "{train-00,val-00}.tar", "test_split": "train-01.tar"},
}


@pytest.mark.parametrize("case", SPLITS)
def test_splits_are_patterns_or_how_names_begin(case, shards):
    loaded = load(shards, **SPLITS[case])
    assert sorted(values(loaded.test)) == [*range(10, 20)]
    assert set(range(10)) <= set(values(loaded.train)) <= {*range(10), *range(30, 36)}


def test_without_tars_for_the_test_a_part_of_each_class_is_sampled(shards):
    (shards / "val-00.tar").unlink()
    loaded = load(shards, test_fraction=0.25)
    assert sorted(values(loaded.train) + values(loaded.test)) == [*range(20)]
    assert len(loaded.test["label"]) == 6  # two of each class
    assert set(loaded.test["label"].tolist()) == {0, 1, 2}
    again = load(shards, test_fraction=0.25, split_seed=1)
    assert set(values(again.test)) != set(values(loaded.test))


def test_images_without_labels_are_read_without(tmp_path, caplog):
    only = {f"{i}.webp": png(i) for i in range(6)} | {"9.txt": "a caption of nothing"}
    write(tmp_path / "set" / "photos.tar", only)
    loaded = load(tmp_path / "set", test_fraction=0.2)
    assert "label" not in loaded.train
    assert sorted(values(loaded.train) + values(loaded.test)) == [*range(6)]
    assert "1 samples have no image" in caplog.text


def test_an_index_is_made_once_and_anew_when_the_tar_changes(shards, cache, monkeypatch):
    first = load(shards)
    with monkeypatch.context() as patch:
        patch.setattr(tars, "_scan", None)  # not called again
        assert data.identity(load(shards)) == data.identity(first)
    for file in cache.iterdir():
        file.write_bytes(file.read_bytes()[:50])  # damaged
    assert data.identity(load(shards)) == data.identity(first)
    write(shards / "train-01.tar", samples(range(10, 19)))
    assert len(load(shards).train["label"]) == 19


def test_a_tar_that_is_cut_is_named_and_read_as_far_as_it_goes(shards, caplog):
    path = shards / "train-01.tar"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"cannot read .*train-01.tar(.|\n)*on_corrupt"):
        load(shards)
    loaded = load(shards, on_corrupt="skip")
    assert 10 < len(loaded.train["label"]) < 20
    assert "train-01.tar is cut after" in caplog.text
    caplog.clear()
    assert len(load(shards, on_corrupt="skip").train["label"]) == len(loaded.train["label"])
    assert "train-01.tar is cut after" in caplog.text  # said again, not kept


@pytest.mark.parametrize("streaming", [False, True])
def test_a_broken_image_is_named(shards, streaming):
    broken = {**samples(range(30, 35)), "b.png": png(1)[:40], "b.cls": 1}
    write(shards / "val-00.tar", broken)
    with pytest.raises(DataError, match=r"cannot read b.png of .*val-00.tar"):
        load(shards, streaming=streaming, image_size=8)


REFUSED = {
    "no folder": (None, {}, "there is no folder"),
    "no tar": ({"a.png": png(0)}, {}, "holds no .tar"),
    "compressed": ({"a.tar.gz": b""}, {}, r"a.tar.gz is compressed"),
    "no tar inside": ({"train.tar": b"no tar at all" * 100}, {}, r"cannot read .*train.tar"),
    "no image": ({"train.tar": {"a.txt": "b"}}, {}, "no image in train.tar"),
    "a word": ({"train.tar": {"a.png": png(0), "a.cls": "cat"}}, {}, "a.cls is b'cat'"),
    "missing": ({"train-0.tar": samples(range(6))}, {"train_split": "train-{0..1}.tar"},
                r"has no train-1.tar, but train-0.tar"),
    "no name": ({"train-0.tar": samples(range(6))}, {"test_split": "held"}, "no .tar of data.test"),
    "both": ({"train-0.tar": samples(range(6))}, {"test_split": "train"}, "is of both splits"),
    "one image": ({"train.tar": samples([3])}, {}, "one image of a class"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused(case, tmp_path):
    files, arguments, message = REFUSED[case]
    for name, content in (files or {}).items():
        path = tmp_path / "set" / name
        if isinstance(content, dict):
            write(path, content)
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path / "set", **arguments)
    assert len(str(caught.value).splitlines()) <= 3
