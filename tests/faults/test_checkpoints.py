"""A checkpoint that is corrupted on disk is never trained from, and never thrown away."""

import json
import shutil

import jax
import numpy as np
import pytest

from contrastive_jax.errors import CheckpointError
from contrastive_jax.training.checkpoint import Checkpointer, digest
from tests.faults.commands import ON_TEXTS_TOO, assert_short_error, committed
from tests.faults.rows import row

START = ("leave_before_training",)  # exit code 75: the start went well


def data_file(step_folder):
    """The file that holds the array data."""
    files = [file for file in step_folder.glob("state/**/d/*") if file.is_file()]
    return max(files, key=lambda file: file.stat().st_size)


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def garble(file):
    file.write_bytes(b"\x80\x04." + bytes(range(256)))


def flip(file, position=0.5):
    content = bytearray(file.read_bytes())
    content[int(position * len(content))] ^= 255
    file.write_bytes(content)


# Every kind of damage to every file: tests/training/test_checkpoint.py
DAMAGE = {
    "data cut": lambda folder: cut(data_file(folder)),
    "metadata garbled": lambda folder: garble(folder / "state" / "_METADATA"),
    "manifest cut": lambda folder: cut(folder / "manifest" / "metadata"),
    "arrays removed": lambda folder: shutil.rmtree(folder / "state"),
}


@row(9, broken="no step but the newest is tried")
@pytest.mark.parametrize("what", DAMAGE)
def test_damaged_checkpoint_is_skipped_and_kept(lab, what):
    workdir = lab.copy()
    DAMAGE[what](workdir / "checkpoints" / "9")
    ended = lab.run(workdir, faults=START)
    assert ended.code == 75, ended
    assert "warning: step 9: " in ended.err
    assert "warning: resuming from step 6, the newest good one" in ended.err
    assert "Traceback" not in ended.err
    assert "resumed from step 6" in ended.out
    assert (workdir / "checkpoints" / "9").is_dir()


@row(9, broken="damaged steps are deleted")
@ON_TEXTS_TOO
def test_training_resumes_before_a_damaged_checkpoint(lab):
    workdir = lab.copy()
    DAMAGE["data cut"](workdir / "checkpoints" / "9")
    lab.finishes_like_the_uninterrupted_run(workdir, 6)
    assert (workdir / "checkpoints" / "bad-9").is_dir()


@row(9, broken="--strict_resume is not heeded")
def test_strict_resume_stops_at_a_damaged_checkpoint(lab):
    workdir = lab.copy()
    DAMAGE["data cut"](workdir / "checkpoints" / "9")
    ended = lab.run(workdir, "--strict_resume", faults=START)
    assert_short_error(ended, 4, "step 9: ", "Nothing was deleted")
    assert (workdir / "checkpoints" / "9").is_dir()


@row(9, broken="no step but the newest is tried")
def test_no_checkpoint_that_can_be_trusted(lab):
    workdir = lab.copy()
    for step in ("3", "6", "9"):
        DAMAGE["manifest cut"](workdir / "checkpoints" / step)
    ended = lab.run(workdir, faults=START)
    assert_short_error(ended, 4, "step 9: ", "step 3: ", "Nothing was deleted")
    assert committed(workdir) == [3, 6, 9]


@row(10, broken="checksums are not compared")
def test_a_flipped_byte_is_seen_by_the_command(lab):
    workdir = lab.copy()
    flip(data_file(workdir / "checkpoints" / "9"))
    ended = lab.run(workdir, faults=START)
    assert ended.code == 75, ended
    assert "warning: step 9: " in ended.err
    assert "resumed from step 6" in ended.out


@row(10, broken="checksums are not compared")
def test_a_flipped_byte_is_detected_at_each_of_100_positions(lab):
    folder = lab.copy() / "checkpoints"
    manifest = json.loads((folder / "9" / "manifest" / "metadata").read_text())
    abstract = {
        name: jax.ShapeDtypeStruct(leaf["shape"], leaf["dtype"])
        for name, leaf in manifest["content"]["leaves"].items()
    }
    with Checkpointer(folder) as checkpointer:
        good = checkpointer.restore(abstract, step=9)
        file, start, size = place_of_the_largest(good.state, folder / "9")
        whole = file.read_bytes()
        detected = 0
        for position in range(100):
            flip(file, (start + (position + 0.5) / 100 * size) / len(whole))
            try:
                checkpointer.restore(abstract, step=9)
            except CheckpointError:
                detected += 1
            file.write_bytes(whole)
        restored = checkpointer.restore(abstract, step=9)
    assert (detected, restored.step) == (100, 9)
    assert digest(restored.state) == digest(good.state)


def place_of_the_largest(state, step_folder):
    """The file that holds the largest array, where in it, and how many bytes."""
    stored = max((np.asarray(leaf).tobytes() for leaf in state.values()), key=len)
    for file in step_folder.glob("state/**/d/*"):
        start = file.read_bytes().find(stored)
        if start >= 0:
            return file, start, len(stored)
    raise AssertionError("no file holds it as it is in memory")
