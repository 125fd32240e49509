"""Workdirs that are odd, shared or full, and runs that come back to them changed."""

import json
import os
import shutil
import signal
import subprocess

import numpy as np
import pytest

from tests.faults.commands import (
    ON_TEXTS_TOO,
    ROOT,
    assert_short_error,
    committed,
    rows,
    with_devices,
)
from tests.faults.rows import row

START = ("leave_before_training",)  # exit code 75: the start went well
FOUR_DEVICES = with_devices(4)


@row(6, broken="failed saves are not reported")
@ON_TEXTS_TOO
def test_disk_full_during_a_save(lab):
    workdir = lab.place / "run"
    ended = lab.run(workdir, faults=("full_disk_after:7", "unscored"))
    # Step 6 is written in the background: on a slow machine the disk fills before it is done.
    good, lost = {(3, 6): (6, 9), (3,): (3, 6)}[tuple(committed(workdir))]
    assert_short_error(ended, 4, f"step {lost} was not saved in {workdir}", "free some space")
    lab.finishes_like_the_uninterrupted_run(workdir, good)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@row(6, broken="errors of the disk exit with 1")
def test_disk_full_for_everything(lab, small_disk):
    workdir = small_disk / "run"
    ended = lab.run(workdir, faults=(f"fill:7+{small_disk}/ballast", "unscored"))
    assert ended.code == 4, ended
    assert "error: " in ended.err
    assert "Traceback" not in ended.err
    (small_disk / "ballast").unlink()
    assert committed(workdir)[-1] in (3, 6)
    lab.finishes_like_the_uninterrupted_run(workdir, committed(workdir)[-1])


@row(7, broken="the workdir is not tried")
@pytest.mark.parametrize("under", ["file/run", "/proc/self/run"])
def test_workdir_that_cannot_be(lab, under):
    (lab.place / "file").touch()
    ended = lab.run(lab.place / under)
    assert_short_error(ended, 2, "cannot be used", "Pass --workdir")


@row(8, broken="the workdir is not tried")
def test_relative_workdir(lab):
    workdir = lab.place / "run"
    ended = lab.run(os.path.relpath(workdir, ROOT), faults=("unscored",))
    assert ended.code == 0, ended
    assert f"workdir  {workdir}" in ended.out
    assert committed(workdir)[-1] == 12


@row(11, broken="steps need no commit mark")
def test_stray_folder_named_like_a_step(lab):
    workdir = lab.copy()
    (workdir / "checkpoints" / "999").mkdir()
    lab.finishes_like_the_uninterrupted_run(workdir, 9)
    assert (workdir / "checkpoints" / "999").is_dir()


@row(12, broken="remains are not removed")
def test_remains_of_a_save_that_was_cut_off(lab):
    workdir = lab.copy()
    remains = shutil.copytree(workdir / "checkpoints" / "9", workdir / "checkpoints" / "11")
    (remains / "commit_success.txt").unlink()
    (workdir / "checkpoints" / "notes").mkdir()
    lab.finishes_like_the_uninterrupted_run(workdir, 9)
    assert not remains.exists()
    assert (workdir / "checkpoints" / "notes").is_dir()


@row(13, broken="the workdir is not locked")
def test_two_runs_in_one_workdir(lab):
    workdir, go = lab.place / "run", lab.place / "go"
    first = lab.start(workdir, faults=(f"pause:5+{go}", "unscored"))
    first.until(lambda: rows(workdir)[-1:] == [4])
    second = lab.run(workdir)
    assert_short_error(second, 6, f"pid {first.pid} on ", "or pass another --workdir")
    go.touch()
    assert first.end().code == 0
    assert (workdir / "metrics.jsonl").read_text() == (
        lab.uninterrupted / "metrics.jsonl"
    ).read_text()


@row(13, broken="a killed run leaves its lock")
def test_the_lock_is_free_right_after_kill_9(lab):
    workdir = lab.place / "run"
    assert lab.run(workdir, faults=("kill:4",)).code == -signal.SIGKILL
    assert lab.run(workdir, faults=START).code == 75


@row(14, broken="configs are not compared")
@pytest.mark.parametrize("lost", [False, True])
def test_resume_with_a_changed_config(lab, lost):
    workdir = lab.copy()
    if lost:
        (workdir / "config.json").unlink()
    ended = lab.run(workdir, "--config.optimizer.learning_rate=0.5", faults=START)
    assert_short_error(ended, 2, "optimizer.learning_rate: 0.0", "-> 0.5")
    assert committed(workdir) == [3, 6, 9]


@row(14, broken="configs are not compared")
def test_resume_with_what_may_change(lab):
    ended = lab.run(lab.copy(), "--config.train.steps=13", faults=START)
    assert ended.code == 75, ended
    assert "note: train.steps: 12 -> 13" in ended.err


@row(34, broken="the length is not compared")
def test_fewer_steps_than_were_trained(lab):
    workdir = lab.copy()
    before = (workdir / "config.json").read_text()
    ended = lab.run(workdir, "--config.train.steps=4", faults=START)
    assert_short_error(ended, 2, "a checkpoint of step 9, and the config trains 4 steps")
    assert committed(workdir) == [3, 6, 9]
    assert (workdir / "config.json").read_text() == before


@row(33, broken="data is not compared")
@pytest.mark.parametrize("state", ["stopped", "config.json is lost", "complete"])
def test_other_data_in_the_workdir(toy, state):
    """Sets differ by their content; where they are does not matter."""
    workdir, place = toy.place / "run", "--config.data.data_dir="
    for name, seed in (("first", 0), ("moved", 0), ("other", 1)):
        images = np.random.default_rng(seed).integers(0, 256, (96, 8, 8, 1), np.uint8)
        label = np.arange(96) % 4
        parts = {"image": images, "label": label, "test_image": images[:32]}
        np.savez(toy.place / f"{name}.npz", **parts, test_label=label[:32])
    faults = {"complete": ()}.get(state, ("terminate:4",))
    arguments = ("--config.data.source=arrays", "--config.train.steps=6")
    trained = toy.run(workdir, *arguments, f"{place}{toy.place}/first.npz", faults=faults)
    assert trained.code == (0 if state == "complete" else 75), trained
    if state == "config.json is lost":
        (workdir / "config.json").unlink()
    before = {p: p.read_bytes() for p in workdir.rglob("*.json*")}
    other = toy.run(workdir, *arguments, f"{place}{toy.place}/other.npz")
    assert_short_error(other, 2, "was trained on other data: name: first -> other")
    assert {p: p.read_bytes() for p in workdir.rglob("*.json*")} == before
    moved = toy.run(workdir, *arguments, f"{place}{toy.place}/moved.npz", faults=START)
    assert moved.code == (0 if state == "complete" else 75), moved


@row(15, broken="shapes are not compared")
def test_checkpoint_of_another_architecture(lab):
    workdir = lab.copy()
    (workdir / "config.json").unlink()
    ended = lab.run(workdir, f"--config.{lab.kind.wider}", faults=START)
    assert_short_error(ended, 4, "is of another architecture", "in the checkpoint and")
    assert committed(workdir) == [3, 6, 9]


@row(16, broken="another machine is not mentioned")
def test_resume_on_four_devices(lab):
    workdir = lab.copy()
    ended = lab.run(workdir, faults=("unscored",), env=FOUR_DEVICES)
    assert ended.code == 0, ended
    assert "note: devices: 1 x cpu -> 4 x cpu" in ended.err
    assert "equal to rounding, not bit for bit" in ended.err
    assert rows(workdir) == rows(lab.uninterrupted)
    for mine, other in zip(losses(workdir), losses(lab.uninterrupted), strict=True):
        assert abs(mine - other) < 1e-3


def losses(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]
