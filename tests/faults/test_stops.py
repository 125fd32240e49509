"""Killed, asked to stop, asked twice: nothing is lost but the steps since the last checkpoint."""

import signal
import subprocess
import sys
import time

import pytest

from tests.faults.commands import ON_TEXTS_TOO, ROOT, committed, rows
from tests.faults.rows import row


@row(1, broken="metrics.jsonl is not rewound")
@pytest.mark.parametrize("step", [2, 11])
@ON_TEXTS_TOO
def test_kill_9_at_a_step(lab, step):
    workdir = lab.place / "run"
    assert lab.run(workdir, faults=(f"kill:{step}", "unscored")).code == -signal.SIGKILL
    assert max(committed(workdir), default=0) <= step
    lab.finishes_like_the_uninterrupted_run(workdir, None)


@row(1, broken="the optimizer's state is not restored")
@pytest.mark.parametrize("milliseconds", [0, 40])
def test_kill_9_during_a_save(lab, milliseconds):
    workdir = lab.place / "run"
    ended = lab.run(workdir, faults=(f"kill_in_save:6+{milliseconds}", "unscored"))
    assert ended.code == -signal.SIGKILL
    assert max(committed(workdir)) in (3, 6)
    lab.finishes_like_the_uninterrupted_run(workdir, max(committed(workdir)))


@row(2, broken="SIGTERM is not caught")
@ON_TEXTS_TOO
def test_sigterm_saves_and_exits_with_75(lab):
    workdir = lab.place / "run"
    ended = lab.run(workdir, faults=("terminate:5", "unscored"))
    assert ended.code == 75, ended
    assert "SIGTERM: finishing this step and saving" in ended.err
    assert "run the same command again" in ended.out
    assert max(committed(workdir)) == 5
    assert rows(workdir)[-1] in (4, 5)
    lab.finishes_like_the_uninterrupted_run(workdir, 5)


@row(4, broken="no thread watches for signals")
def test_sigterm_that_nothing_hears_leaves_after_the_grace_time(lab):
    running = lab.start(lab.copy(), faults=("compiling", "impatient"))
    running.until(lambda: "compiling" in running.log.read_text())
    running.process.terminate()
    ended = running.end(120)
    assert ended.code == 75, ended
    assert "no answer in 1 s" in ended.err
    assert committed(lab.place / "copy") == [3, 6, 9]


@row(4, broken="no thread watches for signals")
def test_second_sigterm_that_nothing_hears_leaves_at_once(lab):
    running = lab.start(lab.copy(), faults=("compiling",))
    running.until(lambda: "compiling" in running.log.read_text())
    running.process.terminate()
    time.sleep(2)  # two signals that wait together are one
    running.process.terminate()
    assert running.end(120).code == 130
    assert committed(lab.place / "copy") == [3, 6, 9]


@row(5, broken="the optimizer's state is not restored")
def test_ctrl_c_once_is_like_sigterm(lab):
    workdir = lab.place / "run"
    ended = lab.run(workdir, faults=("interrupt:4", "unscored"))
    assert ended.code == 75, ended
    assert "SIGINT: finishing this step and saving; again to quit now." in ended.err
    lab.finishes_like_the_uninterrupted_run(workdir, 4)


@row(5, broken="a second signal leaves with 1")
def test_ctrl_c_twice_leaves_at_once_with_130(lab):
    workdir = lab.place / "run"
    ended = lab.run(workdir, faults=("interrupt_twice:8", "unscored"))
    assert ended.code == 130, ended
    assert max(committed(workdir)) in (3, 6)
    lab.finishes_like_the_uninterrupted_run(workdir, max(committed(workdir)))


IN_A_FINALIZER = """
import os, signal, time
from experiments.run.signals import StopRequested, StopSignal

class Finalized:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0)

StopSignal().install()
try:
    Finalized()
    time.sleep(20)
except StopRequested as stop:
    print("stopped by", stop)
"""


def test_ctrl_c_within_a_finalizer_is_not_lost():
    """Python drops what is raised there: by garbage collection while a run is scored."""
    argv = [sys.executable, "-c", IN_A_FINALIZER]
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (0, "stopped by SIGINT\n"), ended.stderr


IN_A_CALLBACK = """
import gc, os, signal, time
from experiments.run import command_line

def interrupt(phase, info):
    gc.callbacks.remove(interrupt)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0)

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, where jobs run behind a shell
with command_line.exit_codes():
    gc.callbacks.append(interrupt)
    gc.collect()
    time.sleep(20)
"""


def test_ctrl_c_within_a_callback_ends_a_command_that_does_not_train():
    """XLA has a callback of the garbage collector, in which Python drops what is raised."""
    argv = [sys.executable, "-c", IN_A_CALLBACK]
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr[-20:]) == (130, "error: interrupted.\n"), ended.stderr


@row(31, broken="nothing waits for the last save")
def test_an_error_right_after_a_save_began_is_seen_and_the_save_completed(lab):
    workdir = lab.place / "run"
    ended = lab.run(workdir, faults=("raises:6", "unscored"))
    assert ended.code == 1
    assert "ValueError: injected" in ended.err
    assert max(committed(workdir)) == 6
    lab.finishes_like_the_uninterrupted_run(workdir, 6)
