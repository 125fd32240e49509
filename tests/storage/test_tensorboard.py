"""TensorBoard: events hold what was written, and a sink that fails does not stop training."""

import logging
from contextlib import closing

import jax.numpy as jnp
import pytest

from contrastive_jax.storage.tensorboard import TensorBoardWriter


def test_tensorboard_events_hold_tag_step_and_value(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    with closing(TensorBoardWriter(tmp_path, resume_step=None)) as writer:
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
        with closing(TensorBoardWriter(tmp_path / "file" / "under", resume_step=None)) as writer:
            writer.write(1, {"loss": 1.0})
            writer.write(2, {"loss": 1.0})
    assert len(caplog.records) == 1
    assert "metrics.jsonl goes on" in caplog.text


def test_tensorboard_sink_that_fails_later_warns_once(tmp_path, caplog, monkeypatch):
    events = pytest.importorskip("tensorboardX.event_file_writer")

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    with closing(TensorBoardWriter(tmp_path, resume_step=None)) as writer:
        writer.write(1, {"loss": 1.0})
        monkeypatch.setattr(events.EventsWriter, "write_event", full_disk)
        writer.write(2, {"loss": 1.0})
        writer.write(3, {"loss": 1.0})
    assert len(caplog.records) == 1
    assert "No space" in caplog.text
