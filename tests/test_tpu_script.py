"""scripts/tpu.sh: the commands that it would run, and when it runs a command again."""

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
SLICE = {"NAME": "slice", "ZONE": "z", "TYPE": "v5litepod-16", "RUNTIME": "image"}
PLACE = ["--zone=z"]


DRY_RUNS = [
    (["create"], {}, "tpu-vm create slice --accelerator-type=v5litepod-16 --version=image"),
    (["create"], {"SPOT": "1"}, "tpu-vm create slice --accelerator-type=v5litepod-16"
     " --version=image --spot"),
    (["create"], {"QUEUED": "1"}, "queued-resources create slice --node-id=slice"
     " --accelerator-type=v5litepod-16 --runtime-version=image"),
    (["logs"], {}, "tpu-vm ssh slice --worker=0 '--command=tail -n 100 -F run.log'"),
    (["logs", "3"], {}, "tpu-vm ssh slice --worker=3 '--command=tail -n 100 -F run.log'"),
    (["stop"], {}, "tpu-vm ssh slice --worker=all '--command=kill -TERM $(cat run.pid)'"),
    (["fetch", "runs/r18"], {}, "tpu-vm scp --recurse slice:contrastive_jax/runs/r18 ./r18"
     " --worker=0"),
    (["fetch", "/mnt/r18"], {}, "tpu-vm scp --recurse slice:/mnt/r18 ./r18 --worker=0"),
    (["on", "2", "df -h"], {}, "tpu-vm ssh slice --worker=2 '--command=df -h'"),
    (["delete"], {}, "tpu-vm delete slice --quiet"),
    (["delete"], {"QUEUED": "1"}, "queued-resources delete slice --force --quiet"),
]  # fmt: skip
EXITS = [  # codes of a command in turn, how often it starts, code of the script
    ("75 134 137 0", 4, 0),
    ("75 2", 2, 2),
    ("5", 1, 5),
    ("130", 1, 130),
    ("75 75 75 75 0", 4, 75),
]


def tpu(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", "scripts/tpu.sh", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PAUSE": "0", **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )


def printed(*arguments: str, **variables: str) -> list[list[str]]:
    """The commands of a dry run, split into arguments."""
    ended = tpu("--dry-run", *arguments, **{**SLICE, **variables})
    assert ended.returncode == 0, ended.stderr
    return [shlex.split(line) for line in ended.stdout.splitlines()]


def test_a_dry_run_prints_the_command_and_runs_none():
    place = ["--zone=z", "--project=p"]
    for arguments, variables, wanted in DRY_RUNS:
        (command,) = printed(*arguments, PROJECT="p", **variables)
        assert command == ["gcloud", "compute", "tpus", *shlex.split(wanted), *place], arguments


def test_setup_sends_the_checkout_and_installs_on_all_workers():
    send, install = printed("setup")
    assert send[:5] == ["gcloud", "compute", "tpus", "tpu-vm", "scp"]
    assert send[6:] == ["slice:checkout.tar.gz", "--worker=all", *PLACE]
    assert install[:7] == ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "slice", "--worker=all"]
    assert "'jax[tpu]'" in install[7]


def test_a_run_starts_once_on_each_worker_with_its_arguments_unchanged(tmp_path):
    """The command of `run` is executed here, with a python that prints its arguments."""
    arguments = ["experiments.simclr", "--config=a b.py:c", "--config.x='1' $HOME"]
    (command,) = printed("run", *arguments)
    there = command[7].removeprefix("--command=")
    place = tmp_path / "contrastive_jax"
    (place / ".venv" / "bin").mkdir(parents=True)
    (place / "scripts").symlink_to(ROOT / "scripts")
    python = place / ".venv" / "bin" / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\nexec sleep 30\n')
    python.chmod(0o755)
    start = ["bash", "-c", there]
    assert subprocess.run(start, cwd=tmp_path).returncode == 0
    log = tmp_path / "run.log"
    wait_until(lambda: log.exists() and log.read_text() == "\n".join(["-m", *arguments, ""]))
    again = subprocess.run(start, cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 6
    assert "a run is active" in again.stderr
    stop = printed("stop")[0][7].removeprefix("--command=")
    pid = int((tmp_path / "run.pid").read_text())
    assert subprocess.run(["bash", "-c", stop], cwd=tmp_path).returncode == 0
    wait_until(lambda: not Path(f"/proc/{pid}").exists())


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_is_missing_is_named():
    ended = tpu("--dry-run", "create", NAME="slice", ZONE="z")
    assert ended.returncode == 2
    assert "TYPE is not set" in ended.stderr
    assert tpu("dance").returncode == 2


def counting(tmp_path: Path, codes: str) -> list[str]:
    """A command that exits with these codes in turn, and counts its starts in a file."""
    starts = shlex.quote(str(tmp_path / "starts"))
    text = f"echo >> {starts}; set -- {codes}; shift $(($(wc -l < {starts}) - 1)); exit $1"
    return ["bash", "-c", text]


def test_a_command_is_run_again_after_75_134_and_137_and_at_most_so_often(tmp_path):
    for number, (codes, starts, end) in enumerate(EXITS):
        folder = tmp_path / str(number)
        folder.mkdir()
        ended = tpu("again", *counting(folder, codes), MAX_RESTARTS="3")
        found = (folder / "starts").read_text().count("\n"), ended.returncode
        assert found == (starts, end), (codes, ended.stderr)


def test_stopping_ends_the_command_and_its_restarts():
    """At any moment: the script may not yet know the process id of what has already started."""
    saves = "trap 'exit 75' TERM; echo started; while true; do sleep 0.02; done"
    for milliseconds in (0, 1, 3, 6, 18):
        with script("again", "bash", "-c", saves, PAUSE="0") as loop:
            assert loop.stdout.readline() == "started\n"
            time.sleep(milliseconds / 1000)
            loop.send_signal(signal.SIGTERM)
            rest, _ = loop.communicate(timeout=60)
        assert (loop.returncode, rest) == (75, "")


def test_stopping_between_two_starts_ends_the_restarts(tmp_path):
    with script("again", *counting(tmp_path, "75 0"), PAUSE="0.5") as loop:
        assert "restart 1" in loop.stderr.readline()
        loop.send_signal(signal.SIGTERM)
        loop.communicate(timeout=60)
    assert loop.returncode == 75
    assert (tmp_path / "starts").read_text().count("\n") == 1


@contextmanager
def script(*arguments: str, **variables: str) -> Iterator[subprocess.Popen]:
    """scripts/tpu.sh in the background; killed with its children when a test fails."""
    with subprocess.Popen(
        ["bash", "scripts/tpu.sh", *arguments],
        cwd=ROOT,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as started:
        try:
            yield started
        except BaseException:
            os.killpg(started.pid, signal.SIGKILL)
            raise
