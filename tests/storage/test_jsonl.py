"""metrics.jsonl: each step once, whole after a cut and a resume; NaN stops the run."""

import json
from contextlib import closing

import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax.errors import NonFiniteError
from contrastive_jax.storage.jsonl import JsonlWriter, read_jsonl
from contrastive_jax.training.loop import require_finite


def write_steps(path, steps, resume_step=None):
    with closing(JsonlWriter(path, resume_step)) as writer:
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
    with closing(JsonlWriter(tmp_path / "m.jsonl", None)) as writer:
        writer.write(3, {"zeta": 1.0, "alpha": np.int32(2)})
    assert (tmp_path / "m.jsonl").read_text() == '{"step": 3, "alpha": 2, "zeta": 1.0}\n'


def test_float32_survives_the_file_bit_for_bit(tmp_path):
    value = jnp.float32(1) / 3
    with closing(JsonlWriter(tmp_path / "m.jsonl", None)) as writer:
        writer.write(0, {"loss": value})
    assert np.float32(read_jsonl(tmp_path / "m.jsonl")[0]["loss"]) == value


def test_each_row_is_on_disk_before_the_writer_is_closed(tmp_path):
    with closing(JsonlWriter(tmp_path / "m.jsonl", None)) as writer:
        writer.write(1, {"loss": 1.0})
        assert steps_in(tmp_path / "m.jsonl") == [1]


def test_non_finite_values_are_null_and_the_line_stays_standard_json(tmp_path):
    with closing(JsonlWriter(tmp_path / "m.jsonl", None)) as writer:
        writer.write(1, {"loss": jnp.float32(jnp.nan), "scale": np.inf})
    assert json.loads((tmp_path / "m.jsonl").read_text(), parse_constant=pytest.fail) == {
        "step": 1,
        "loss": None,
        "scale": None,
    }


@pytest.mark.parametrize("step", [4, 5])
def test_a_step_is_logged_once_and_in_order(tmp_path, step):
    with closing(JsonlWriter(tmp_path / "m.jsonl", None)) as writer:
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
    with closing(JsonlWriter(tmp_path / "m.jsonl", None)) as writer:
        with pytest.raises(ValueError, match="metric 'loss'"):
            writer.write(1, {"loss": value})
    assert steps_in(tmp_path / "m.jsonl") == []


def test_a_metric_may_not_take_the_name_of_the_step(tmp_path):
    with closing(JsonlWriter(tmp_path / "m.jsonl", None)) as writer:
        with pytest.raises(ValueError, match="named 'step'"):
            writer.write(1, {"step": 2})
