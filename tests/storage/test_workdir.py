"""The workdir: refused early, held by one process, its files whole or absent."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from contextlib import closing

import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import figures
from contrastive_jax.errors import ConfigError, WorkdirBusyError
from contrastive_jax.storage import workdir
from contrastive_jax.storage.jsonl import JsonlWriter
from contrastive_jax.storage.tensorboard import TensorBoardWriter

HOLD = """
import sys, time
from contrastive_jax.storage import workdir
with workdir.lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of tmp_path."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_relative_workdir_becomes_absolute_and_exists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = workdir.prepare("out/../runs/x")
    assert made == tmp_path / "runs" / "x"
    assert made.is_dir()
    assert list(made.iterdir()) == []


def test_preparing_an_existing_workdir_keeps_its_files(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert workdir.prepare(tmp_path) == tmp_path
    assert [f.name for f in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize("under", ["", "/below", "/below/deeper"])
def test_file_in_place_of_the_workdir_is_refused(tmp_path, under):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is a file") as caught:
        workdir.prepare(f"{tmp_path}/file{under}")
    assert len(str(caught.value).splitlines()) <= 3


@pytest.mark.parametrize("path", ["", "gs://bucket/run", "nul\0byte"])
def test_path_that_cannot_be_a_local_folder_is_refused(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError):
        workdir.prepare(path)
    assert list(tmp_path.iterdir()) == []


def test_unwritable_workdir_is_refused():
    if os.access("/proc/self", os.F_OK):  # no one can make a file there, root included
        with pytest.raises(ConfigError, match="cannot be used"):
            workdir.prepare("/proc/self")


def test_second_process_is_refused_with_pid_and_host_at_once(tmp_path, holder):
    start = time.monotonic()
    with pytest.raises(WorkdirBusyError, match=rf"pid {holder.pid} on \S+, since") as caught:
        with workdir.lock(tmp_path):
            pass
    assert time.monotonic() - start < 1
    assert len(str(caught.value).splitlines()) <= 3
    assert json.loads((tmp_path / ".lock").read_text())["pid"] == holder.pid


def test_lock_is_free_right_after_kill_9(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with workdir.lock(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


def test_lock_is_free_after_an_error_in_the_run(tmp_path):
    with pytest.raises(ZeroDivisionError), workdir.lock(tmp_path):
        _ = 1 / 0
    with workdir.lock(tmp_path):
        pass


def test_lock_is_exclusive_within_one_process_too(tmp_path):
    with workdir.lock(tmp_path), pytest.raises(WorkdirBusyError):
        with workdir.lock(tmp_path):
            pass


def test_busy_workdir_whose_holder_has_not_signed_is_still_busy(tmp_path):
    with workdir.lock(tmp_path):
        (tmp_path / ".lock").write_text("")
        with pytest.raises(WorkdirBusyError, match="not known yet"), workdir.lock(tmp_path):
            pass


def test_json_round_trip_takes_arrays_as_lists(tmp_path):
    written = {"k": np.int64(20), "per_class": jnp.array([0.5, 1.0]), "layers": ("a", None)}
    workdir.write_json(tmp_path / "r.json", written)
    read = workdir.read_json(tmp_path / "r.json")
    assert read == {"k": 20, "per_class": [0.5, 1.0], "layers": ["a", None]}


@pytest.mark.parametrize("bad", [float("nan"), -np.inf, np.float32("inf"), jnp.array([0, jnp.nan])])
def test_non_finite_number_is_refused_by_place_and_the_old_file_stays(tmp_path, bad):
    path = tmp_path / "r.json"
    workdir.write_json(path, {"old": 1})
    with pytest.raises(ValueError, match=r"^knn\[1\]\.accuracy"):
        workdir.write_json(path, {"knn": [{}, {"accuracy": bad}]})
    assert workdir.read_json(path) == {"old": 1}


def test_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "config.json"
    workdir.write_text(path, "old")

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        workdir.write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_reader_never_sees_part_of_a_file(tmp_path, monkeypatch):
    path, seen = tmp_path / "config.json", []
    workdir.write_text(path, "old")
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (seen.append(path.read_text()), replace(a, b)))
    workdir.write_text(path, "new")
    assert seen == ["old"]
    assert path.read_text() == "new"


def test_damaged_json_names_the_file(tmp_path):
    (tmp_path / "config.json").write_text('{"a": ')
    with pytest.raises(ConfigError, match=r"config\.json is not valid JSON"):
        workdir.read_json(tmp_path / "config.json")


@pytest.fixture(params=[0o002, 0o022, 0o077])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_every_file_has_the_mode_that_the_umask_gives(tmp_path, umask):
    def write_private(temporary):
        temporary.unlink()
        os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))

    workdir.write_text(tmp_path / "note.txt", "kept")
    workdir.write_json(tmp_path / "config.json", {})
    workdir.replace_file(tmp_path / "encoder.safetensors", write_private)
    for _ in range(2):  # the second time the rows of the first are removed
        with closing(JsonlWriter(tmp_path / "metrics.jsonl", None)) as rows:
            rows.write(1, {"loss": 1.0})
    with closing(TensorBoardWriter(tmp_path, None)) as events:
        events.write(1, {"loss": 1.0})
    figures.curves(tmp_path / "curves.png", {"run": [{"step": 1, "loss": 1.0}]})
    with workdir.lock(tmp_path):
        pass
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert len(modes) == 7
    assert set(modes.values()) == {0o666 & ~umask}, modes


def test_a_writer_that_fails_leaves_the_old_file_alone(tmp_path):
    def half(temporary):
        temporary.write_text("ha")
        raise KeyboardInterrupt

    workdir.write_text(tmp_path / "table.md", "old")
    with pytest.raises(KeyboardInterrupt):
        workdir.replace_file(tmp_path / "table.md", half)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("table.md", "old")]
