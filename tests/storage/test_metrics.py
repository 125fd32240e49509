"""Metrics: merging is exact, the JSONL file survives a cut, NaN stops the run, sinks may fail."""

import json
import logging

import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax.errors import NonFiniteError
from contrastive_jax.storage.metrics import JsonlWriter, TensorBoardWriter, read_jsonl
from contrastive_jax.training.loop import require_finite


def write_steps(path, steps, resume_step=None):
    with JsonlWriter(path, resume_step) as writer:
        for step in steps:
            writer.write(step, {"loss": 1.0 / (step + 1)})


def steps_in(path):
    return [row["step"] for row in read_jsonl(path)]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_metric_is_named_with_its_steps(bad):
    metrics = {"loss": jnp.float32(1.0), "grad_norm": jnp.float32(bad)}
    with pytest.raises(NonFiniteError, match=r"grad_norm = .*steps 11 to 20") as caught:
        require_finite(metrics, step=20, previous_step=10)
    assert "loss =" not in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3


def test_non_finite_metric_of_a_single_step_names_that_step():
    with pytest.raises(NonFiniteError, match="since step 11"):
        require_finite({"loss": np.nan}, step=11, previous_step=10)
    with pytest.raises(NonFiniteError, match="since steps 1 to 4"):
        require_finite({"loss": np.nan}, step=4)


def test_finite_metrics_pass():
    require_finite({"loss": jnp.float32(3e38), "count": 3}, step=1)


def test_row_has_step_first_then_the_metrics_by_name(tmp_path):
    with JsonlWriter(tmp_path / "m.jsonl", None) as writer:
        writer.write(3, {"zeta": 1.0, "alpha": np.int32(2)})
    assert (tmp_path / "m.jsonl").read_text() == '{"step": 3, "alpha": 2, "zeta": 1.0}\n'


def test_float32_survives_the_file_bit_for_bit(tmp_path):
    value = jnp.float32(1) / 3
    with JsonlWriter(tmp_path / "m.jsonl", None) as writer:
        writer.write(0, {"loss": value})
    assert np.float32(read_jsonl(tmp_path / "m.jsonl")[0]["loss"]) == value


def test_each_row_is_on_disk_before_the_writer_is_closed(tmp_path):
    with JsonlWriter(tmp_path / "m.jsonl", None) as writer:
        writer.write(1, {"loss": 1.0})
        assert steps_in(tmp_path / "m.jsonl") == [1]


def test_non_finite_values_are_null_and_the_line_stays_standard_json(tmp_path):
    with JsonlWriter(tmp_path / "m.jsonl", None) as writer:
        writer.write(1, {"loss": jnp.float32(jnp.nan), "scale": np.inf})
    assert json.loads((tmp_path / "m.jsonl").read_text(), parse_constant=pytest.fail) == {
        "step": 1,
        "loss": None,
        "scale": None,
    }


@pytest.mark.parametrize("step", [4, 5])
def test_a_step_is_logged_once_and_in_order(tmp_path, step):
    with JsonlWriter(tmp_path / "m.jsonl", None) as writer:
        writer.write(5, {"loss": 1.0})
        with pytest.raises(ValueError, match=f"step {step} is not after .* 5"):
            writer.write(step, {"loss": 1.0})
    assert steps_in(tmp_path / "m.jsonl") == [5]


def test_resume_rewinds_to_the_restored_step_and_repeats_none(tmp_path):
    path = tmp_path / "m.jsonl"
    write_steps(path, [0, 2, 4, 6, 8])
    write_steps(path, [6, 8, 10], resume_step=4)
    assert steps_in(path) == [0, 2, 4, 6, 8, 10]


def test_half_written_last_line_is_dropped_on_resume(tmp_path):
    path = tmp_path / "m.jsonl"
    write_steps(path, [1, 2, 3])
    path.write_bytes(path.read_bytes()[:-1])  # whole JSON, but the newline never came
    assert steps_in(path) == [1, 2]
    write_steps(path, [3], resume_step=10)
    assert steps_in(path) == [1, 2, 3]
    path.write_bytes(path.read_bytes() + b'{"step": 4, "lo')
    write_steps(path, [4], resume_step=10)
    assert steps_in(path) == [1, 2, 3, 4]
    assert path.read_bytes().count(b"\n") == 4


def test_new_run_starts_from_an_empty_file(tmp_path):
    path = tmp_path / "m.jsonl"
    write_steps(path, [0, 1, 2])
    write_steps(path, [0], resume_step=None)
    assert steps_in(path) == [0]


@pytest.mark.parametrize("value", [np.ones(2), "high", None])
def test_a_metric_that_is_not_one_number_is_refused_by_name(tmp_path, value):
    with JsonlWriter(tmp_path / "m.jsonl", None) as writer:
        with pytest.raises(ValueError, match="metric 'loss'"):
            writer.write(1, {"loss": value})
    assert steps_in(tmp_path / "m.jsonl") == []


def test_a_metric_may_not_take_the_name_of_the_step(tmp_path):
    with JsonlWriter(tmp_path / "m.jsonl", None) as writer:
        with pytest.raises(ValueError, match="named 'step'"):
            writer.write(1, {"step": 2})


def test_tensorboard_events_hold_tag_step_and_value(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    with TensorBoardWriter(tmp_path, resume_step=None) as writer:
        writer.write(7, {"loss": jnp.float32(0.25)})
    (file,) = tmp_path.iterdir()
    data, events = file.read_bytes(), []
    while data:  # a record: length uint64, its checksum, the message, its checksum
        size = int.from_bytes(data[:8], "little")
        events.append(Event.FromString(data[12 : 12 + size]))
        data = data[16 + size :]
    (value,) = events[-1].summary.value
    assert (events[-1].step, value.tag, value.simple_value) == (7, "loss", 0.25)


def test_failing_tensorboard_sink_warns_once_and_training_goes_on(tmp_path, caplog):
    pytest.importorskip("tensorboardX")
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING):
        with TensorBoardWriter(tmp_path / "file" / "under", resume_step=None) as writer:
            writer.write(1, {"loss": 1.0})
            writer.write(2, {"loss": 1.0})
    assert len(caplog.records) == 1
    assert "metrics.jsonl goes on" in caplog.text


def test_tensorboard_sink_that_fails_later_warns_once(tmp_path, caplog, monkeypatch):
    events = pytest.importorskip("tensorboardX.event_file_writer")

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    with TensorBoardWriter(tmp_path, resume_step=None) as writer:
        writer.write(1, {"loss": 1.0})
        monkeypatch.setattr(events.EventsWriter, "write_event", full_disk)
        writer.write(2, {"loss": 1.0})
        writer.write(3, {"loss": 1.0})
    assert len(caplog.records) == 1
    assert "No space" in caplog.text
