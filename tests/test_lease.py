"""Leases: one holder at a time without locks, on a local folder in place of a mounted bucket."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from contrastive_jax import lease, workdir
from contrastive_jax.errors import WorkdirBusyError

PACE = lease.Pace(renew=0.05, patience=0.8)
ROOT = Path(__file__).parents[1]
HOLDER = """
import sys, time
from contrastive_jax import lease
with lease.hold(sys.argv[1], lease.Pace(0.05, 0.8)):
    print("held", flush=True)
    time.sleep(60)
"""


def newest(folder: Path) -> dict:
    return json.loads(max(folder.glob(".lease-*")).read_text())


def test_a_held_folder_is_refused_and_the_holder_named(tmp_path):
    with (
        lease.hold(tmp_path, PACE),
        pytest.raises(WorkdirBusyError, match=f"pid {os.getpid()}"),
        lease.hold(tmp_path, PACE),
    ):
        pass


def test_a_folder_that_was_given_back_is_free_at_once(tmp_path):
    slow = lease.Pace(renew=0.05, patience=3600)
    with lease.hold(tmp_path, slow):
        pass
    with lease.hold(tmp_path, slow):
        assert len(list(tmp_path.iterdir())) == 1  # the lease before is cleared away


def test_a_process_killed_on_this_host_is_not_waited_for(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(WorkdirBusyError), lease.hold(tmp_path, PACE):
            pass
        holder.kill()
    with lease.hold(tmp_path, lease.Pace(renew=0.05, patience=3600)):
        pass


@pytest.mark.parametrize("left", ["elsewhere", ""])
def test_a_lease_that_stands_still_is_taken_over_after_patience(tmp_path, left):
    """Of a host that is gone, or cut off in the middle of writing."""
    text = json.dumps({"host": left, "boot": "1", "pids": "1", "pid": 1, "count": 7})
    (tmp_path / ".lease-000041").write_text(text if left else "")
    began = time.monotonic()
    with lease.hold(tmp_path, PACE):
        assert time.monotonic() - began >= PACE.patience
        assert [file.name for file in tmp_path.iterdir()] == [".lease-000042"]


def test_only_one_of_many_takes_a_lease_over(tmp_path):
    (tmp_path / ".lease-000001").write_text("")
    held, refused = [], []
    everyone = threading.Barrier(8)

    def ask() -> None:
        everyone.wait()
        try:
            with lease.hold(tmp_path, PACE):
                held.append(newest(tmp_path))
                done.wait()
        except WorkdirBusyError:
            refused.append(1)

    done = threading.Event()
    asking = [threading.Thread(target=ask) for _ in range(8)]
    for thread in asking:
        thread.start()
    deadline = time.monotonic() + 60
    while len(refused) < 7 and time.monotonic() < deadline:
        time.sleep(0.01)
    counts = len(held), len(refused)
    done.set()
    for thread in asking:
        thread.join()
    assert counts == (1, 7)


def test_a_holder_that_was_overtaken_leaves_and_spoils_nothing(tmp_path):
    why = []
    left = threading.Event()
    with lease.hold(tmp_path, PACE, leave=lambda text: (why.append(text), left.set())):
        (tmp_path / ".lease-000002").write_text("theirs")
        assert left.wait(60)
    assert "took" in why[0]
    assert (tmp_path / ".lease-000002").read_text() == "theirs"


def test_a_process_that_lost_its_hold_exits_with_6(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        (tmp_path / ".lease-000002").write_text("theirs")
        _, said = holder.communicate(timeout=60)
    assert holder.returncode == WorkdirBusyError.exit_code
    assert "Another run took" in said


@pytest.mark.parametrize(
    ("where", "kind", "wanted"),
    [
        ("/mnt/b\\040c", "fuse.gcsfuse", True),
        ("/mnt/b\\040c", "fuse.rclone", True),
        ("/mnt/b\\040c", "nfs4", False),
        ("/mnt/b\\040c", "ext4", False),
        ("/mnt/b", "fuse.gcsfuse", False),  # another folder, whose name begins so
        ("/", "fuse.fuse-overlayfs", False),
    ],
)
def test_a_lease_is_needed_on_mounts_of_user_space_only(tmp_path, where, kind, wanted):
    mounts = tmp_path / "mounts"
    mounts.write_text(f"disk / ext4 rw 0 0\nb {where} {kind} rw 0 0\n")
    assert lease.needed("/mnt/b c/runs/first", mounts) is wanted


def test_the_workdir_of_a_mounted_bucket_is_leased(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "needed", lambda folder: True)
    with workdir.lock(tmp_path):
        assert newest(tmp_path)["pid"] == os.getpid()
    assert newest(tmp_path)["count"] is None
