"""Training that cannot continue says why; what is no reason to stop does not stop it."""

import importlib.util
import json
import os

import numpy as np
import pytest

from tests.faults.commands import ON_TEXTS_TOO, assert_short_error, committed, rows
from tests.faults.rows import row


@row(17, broken="metrics may be NaN")
@pytest.mark.parametrize("fault", ["nan_loss:8", "nan_update:9"])
@ON_TEXTS_TOO
def test_training_that_is_not_finite(lab, fault):
    workdir = lab.place / "run"
    what, _, step = fault.partition(":")
    ended = lab.run(workdir, faults=(fault, "unscored"))
    named = {"nan_loss": "loss = nan", "nan_update": "update_norm = nan"}[what]
    assert_short_error(ended, 5, named, f"since step {step}", "Lower the learning rate")
    assert committed(workdir) == [3, 6]
    kept = json.loads((workdir / "nonfinite.json").read_text())
    assert kept["steps"] == [int(step)]
    per_epoch = lab.kind.examples // lab.kind.batch
    epoch, batch = divmod(int(step) - 1, per_epoch)
    order = np.random.default_rng((0, epoch)).permutation(lab.kind.examples)
    assert kept["index"] == [order[batch * lab.kind.batch :][: lab.kind.batch].tolist()]
    if what == "nan_loss":
        again = lab.run(workdir, faults=("unscored",))  # another program: not bit for bit
        assert again.code == 0, again
        assert "resumed from step 6" in again.out


@row(19, broken="only the loss has to be finite")
def test_gradient_that_is_not_finite(lab):
    workdir = lab.place / "run"
    ended = lab.run(workdir, faults=("nan_gradient:9", "unscored"))
    assert_short_error(ended, 5, "grad_norm = nan", "since step 9")
    assert committed(workdir) == [3, 6]


@row(19, broken="no step is left out")
def test_steps_that_are_skipped_are_counted_and_leave_no_trace(toy):
    workdir, skip = toy.place / "run", "--config.optimizer.skip_nonfinite=1"
    ended = toy.run(workdir, skip, faults=("nan_gradient:9", "unscored"))
    assert ended.code == 0, ended
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert [line["skipped"] for line in lines] == [0] * 8 + [1] * 4
    assert [line["step"] for line in lines if None in line.values()] == [9]
    assert all(line["update_norm"] > 0 for line in lines if line["step"] != 9)


@row(29, broken="the newest step is the youngest folder")
def test_clock_that_jumps_and_file_times_in_the_wrong_order(lab):
    workdir = lab.copy()
    for step, age in ((3, 1), (6, 2), (9, 3)):
        os.utime(workdir / "checkpoints" / str(step), (1e9 - age, 1e9 - age))
    ended = lab.finishes_like_the_uninterrupted_run(workdir, 9, "clock_backwards")
    assert "warning" not in ended.err


@pytest.mark.skipif(not importlib.util.find_spec("tensorboardX"), reason="there is no sink")
@row(30, broken="a broken sink stops the run")
def test_broken_metrics_sink(lab):
    workdir = lab.place / "run"
    workdir.mkdir()
    (workdir / "tensorboard").write_text("in its place")
    ended = lab.finishes_like_the_uninterrupted_run(workdir, None)
    assert ended.err.count("Writing TensorBoard events stops here") == 1


@row(32, broken="memory errors are passed on as they are")
def test_out_of_memory(lab):
    workdir = lab.place / "run"
    ended = lab.run(workdir, faults=("out_of_memory:5", "unscored"))
    batch = lab.kind.batch
    says = f"Out of memory with {batch} examples a batch, {batch} a device"
    assert_short_error(ended, 5, says, "data.batch_size", "The last checkpoint stands")
    assert committed(workdir) == [3]
    assert rows(workdir)[-1] == 4
