"""Data, configs and files that a run must not believe."""

import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from tests.data import test_data
from tests.experiments import test_prepare
from tests.faults.commands import PREPARE, assert_short_error, with_devices
from tests.faults.rows import row

ARRAYS = "--config.data.source=arrays"
TFDS = ("--config.data.source=tfds", "--config.data.name=photos", "--config.data.batch_size=8")
prepared = test_data.prepared


def images(n, label):
    pixels = np.random.default_rng(0).integers(0, 256, (n, 8, 8, 1), np.uint8)
    return {"image": pixels, "label": label, "test_image": pixels[:32], "test_label": label[:32]}


@row(18, broken="labels are not checked")
def test_label_out_of_range(toy):
    arrays = images(64, np.arange(64) % 4)
    arrays["test_label"] = np.where(np.arange(32) == 7, 9, 0)
    np.savez(toy.place / "set.npz", **arrays)
    ended = toy.run(toy.place / "run", ARRAYS, f"--config.data.data_dir={toy.place}/set.npz")
    assert_short_error(ended, 3, "label 9 at index 7 is none of the classes 0, 1, 2, 3")


@row(18, broken="norms are not safe at zero")
def test_images_that_are_all_black_give_finite_losses(toy):
    arrays = images(64, np.arange(64) % 4)
    arrays["image"] = np.zeros_like(arrays["image"])
    np.savez(toy.place / "set.npz", **arrays)
    arguments = (ARRAYS, f"--config.data.data_dir={toy.place}/set.npz", "--config.views.noise=0.0")
    ended = toy.run(toy.place / "run", *arguments, faults=("unscored",))
    assert ended.code == 0, ended
    lines = (toy.place / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["grad_norm"] for line in lines] == [0.0] * 12


@row(20, broken="errors of records are passed on as they are")
@pytest.mark.parametrize("what", ["a flipped byte", "cut records", "fewer examples"])
def test_corrupt_record(toy, prepared, what):
    damage, _, _ = test_data.DAMAGE[what]
    folder = shutil.copytree(prepared / "photos" / "1.10.0", toy.place / "photos" / "1.10.0")
    damage(folder)
    place = f"--config.data.data_dir={toy.place}"
    ended = toy.run(toy.place / "run", *TFDS, place, "--config.data.image_size=8")
    assert_short_error(ended, 3, "cannot read example ", f"in {folder}")
    assert not (toy.place / "run" / "metrics.jsonl").exists()


@row(20, broken="errors of records are passed on as they are")
def test_corrupt_records_that_are_skipped(toy, prepared):
    place = f"--config.data.data_dir={prepared}"
    arguments = ("--config.data.image_size=8", "--config.data.train_split=train+odd3")
    skip = "--config.data.on_corrupt=skip"
    ended = toy.run(toy.place / "run", *TFDS, place, *arguments, skip, faults=("unscored",))
    assert ended.code == 0, ended
    assert "left out 1 of 25 examples of split 'train+odd3'" in ended.err


@row(21, broken="missing data is an error like others")
@pytest.mark.parametrize("what", ["nothing", "another version", "tfrecord"])
def test_missing_data(toy, prepared, what):
    damage, _, _ = test_data.DAMAGE.get(what, (None, None, None))
    if what != "nothing":
        folder = shutil.copytree(prepared / "photos" / "1.10.0", toy.place / "photos" / "1.10.0")
        damage(folder)
    name = "photos:1.9.0" if what == "another version" else "photos"
    arguments = (*TFDS, f"--config.data.data_dir={toy.place}", f"--config.data.name={name}")
    ended = toy.run(toy.place / "run", *arguments, faults=("offline",))
    assert_short_error(ended, 3, "tfds build photos", "--config configs/digits.py")


BAD_ARGUMENTS = {
    "--config.encoder.feature=3": "did you mean 'features'",
    "--config.encoder.features=many": "features",
    "--config.optimizer.learning_rate=nan": "learning_rate is nan",
    "--config.data.batch_size=-8": "batch_size is -8",
    "junk": "'junk' belongs to no flag",
}


@row(26, broken="config errors exit with 1")
@pytest.mark.parametrize("argument", BAD_ARGUMENTS)
def test_bad_config(toy, argument):
    ended = toy.run(toy.place / "run", argument)
    assert_short_error(ended, 2, BAD_ARGUMENTS[argument])
    assert not [file for file in toy.place.rglob("run/*") if file.name != ".lock"]


@row(27, broken="batches are not checked")
def test_batch_that_the_devices_do_not_divide(toy):
    four = with_devices(4)
    ended = toy.run(toy.place / "run", "--config.data.batch_size=30", env=four)
    assert_short_error(ended, 2, "30, which 4 devices do not divide", "28 or 32")


class Trap:
    """An object whose unpickling makes a file."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


@row(28, broken="pickles are loaded")
def test_pickle_in_the_data_is_not_executed(toy):
    arrays = images(64, np.arange(64) % 4)
    arrays["image"] = np.array([Trap(toy.place / "sprung")], dtype=object)
    np.savez(toy.place / "set.npz", **arrays)
    ended = toy.run(toy.place / "run", ARRAYS, f"--config.data.data_dir={toy.place}/set.npz")
    assert_short_error(ended, 3, f"cannot read {toy.place}/set.npz", "pickle")
    assert not (toy.place / "sprung").exists()


@row(28, broken="archive members need not be files")
def test_archive_with_members_that_point_outside(toy):
    inside = toy.place / "inside"
    inside.mkdir()
    link = test_prepare.link("cifar-10-batches-bin/test_batch.bin", "/etc/hostname")
    escape = tarfile.TarInfo("../escaped")
    archive = test_prepare.archive_of(
        inside, extra=[(escape, b""), ("/escaped", b"x"), link], **{"test_batch.bin": None}
    )
    arguments = ("cifar10", f"--data_dir={inside}/sets", f"--archive={archive}")
    ended = toy.run(None, *arguments, kind=PREPARE)
    assert_short_error(ended, 3, "cannot read", "is not a regular file")
    assert not list(toy.place.rglob("*escaped*")) + list(Path("/").glob("escaped*"))


@row(28, broken="errors of records are passed on as they are")
def test_image_of_too_many_pixels(toy, prepared):
    arguments = ("--config.data.image_size=8", "--config.data.train_split=odd3")
    place = f"--config.data.data_dir={prepared}"
    ended = toy.run(toy.place / "run", *TFDS, place, *arguments)
    assert_short_error(ended, 3, "example 0 of split 'odd3'", "exceeds limit")
