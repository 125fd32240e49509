"""The real command on the real digits: interrupt it, resume it, compare; look at what it leaves."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest

from contrastive_jax import data
from contrastive_jax.errors import ConfigError
from experiments import evaluate, linear_probe
from experiments.run import lifecycle, provenance
from experiments.simclr import EXPERIMENT
from tests.experiments import tiny

ROOT = Path(__file__).parents[2]
STEPS = 10  # two epochs, as the preset: the pages of the docs train the same program
SETTINGS = (
    "--config=configs/digits.py:smoke",
    f"--config.train.steps={STEPS}",
    "--config.train.log_every=1",
    "--config.checkpoint.every_steps=4",
    "--config.eval.every_steps=5",
)
QUICK = (
    "--config.eval.figures=False",
    "--config.eval.labels_per_class=0",
    "--config.eval.baselines=False",
)


def start(workdir: Path, *arguments: str) -> subprocess.Popen:
    chosen = {"JAX_PLATFORMS": "cpu", "PYTHONWARNINGS": "default", "MPLBACKEND": "nonsense"}
    command = [sys.executable, "-m", "experiments.simclr", *arguments, f"--workdir={workdir}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, **chosen}, **pipes)


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The folder of an uninterrupted run with all its pictures, and what it printed."""
    workdir = tmp_path_factory.mktemp("uninterrupted")
    code, out, err = finish(start(workdir, *SETTINGS))
    assert code == 0, err
    assert "warning: the picture" not in err
    return workdir, out


def read(path: Path):
    return json.loads(path.read_text())


def test_a_run_leaves_metrics_scores_and_pictures(uninterrupted):
    workdir, out = uninterrupted
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert {"loss", "contrastive_accuracy", "grad_norm", "effective_rank"} <= set(rows[0])
    summary = read(workdir / "results" / "summary.json")
    names = {(row["representation"], row["layer"]) for row in summary["evaluations"]}
    assert {("trained", "features"), ("trained", "embedding"), ("pixels", "pixels")} <= names
    assert ("untrained", "features") in names
    for row in summary["evaluations"]:
        assert row["measure"] == "accuracy"
        assert 0 <= row["value"] <= 1
        assert row["split"] == "test"
        assert row["protocol"]["name"] in ("knn", "linear", "few-label")
    assert {"compile", "training", "evaluation"} <= set(summary["seconds"])
    figures = {path.name for path in (workdir / "figures").glob("*.png")}
    wanted = {"views", "curves", "scores", "neighbors", "cosines", "map_features"}
    assert {f"{name}.png" for name in wanted} <= figures
    assert "trained         features   linear, L-BFGS" in out


def test_a_run_says_by_what_it_was_made(uninterrupted):
    """Method, config, code, data and versions: in config.json and beside the scores."""
    described = read(uninterrupted[0] / "config.json")
    assert described["schema"] == 2
    assert described["method"] == "simclr"
    assert described["config"]["train"]["steps"] == STEPS
    assert described["command"].startswith("python -m experiments.simclr --config=configs/digits")
    assert described["code"] == provenance.code()
    assert set(described["code"]) == {"commit", "dirty", "sha256"}
    assert described["data"] == data.identity(data.load("digits", batch_size=256))
    assert described["versions"]["jax"] == jax.__version__
    summary = read(uninterrupted[0] / "results" / "summary.json")
    for name in ("schema", "method", "code", "data", "config", "versions"):
        assert summary[name] == described[name], name
    assert summary["step"] == STEPS


def test_ctrl_c_saves_and_the_same_command_ends_like_the_uninterrupted_run(uninterrupted, tmp_path):
    process = start(tmp_path, *SETTINGS, *QUICK)
    metrics = tmp_path / "metrics.jsonl"
    deadline = time.monotonic() + 200
    while not (metrics.exists() and metrics.read_text().count("\n") >= 2):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    code, out, err = finish(process)
    assert code == 75, err
    assert "run the same command again" in out
    assert metrics.read_text().count("\n") < STEPS

    code, out, err = finish(start(tmp_path, *SETTINGS, *QUICK))
    assert code == 0, err
    assert "resumed from step" in out
    assert metrics.read_text() == (uninterrupted[0] / "metrics.jsonl").read_text()
    values, expected = _values(tmp_path), _values(uninterrupted[0])
    assert values == {key: expected[key] for key in values}
    assert {(layer, name) for _, layer, name, _ in values} == {
        (layer, name) for layer in ("embedding", "features") for name in ("knn", "linear")
    }


def _values(workdir: Path) -> dict[tuple, float]:
    rows = read(workdir / "results" / "summary.json")["evaluations"]
    key = lambda row: (row["representation"], row["layer"], row["protocol"]["name"])  # noqa: E731
    return {(*key(row), row["protocol"].get("k")): row["value"] for row in rows}


@pytest.mark.usefixtures("in_the_repository")
def test_a_finished_run_is_complete(uninterrupted, capsys):
    workdir = uninterrupted[0]
    before = _contents(workdir)
    assert lifecycle.main(EXPERIMENT, ["simclr.py", *SETTINGS, f"--workdir={workdir}"]) == 0
    assert f"{workdir} is complete" in capsys.readouterr().out
    assert _contents(workdir) == before


def _contents(workdir: Path) -> dict[Path, bytes]:
    """Of all files but the lock, which each command signs."""
    files = [path for path in workdir.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path: path.read_bytes() for path in files}


@pytest.mark.parametrize("chosen", [None, "/chosen/by/the/user"])
def test_compiled_programs_are_kept_in_the_users_cache_folder(chosen, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    try:
        jax.config.update("jax_compilation_cache_dir", chosen)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
        lifecycle.set_up_jax()
        folder, seconds = (getattr(jax.config, name) for name in names)
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
    assert folder == (chosen or str(tmp_path / "contrastive_jax" / "xla"))
    assert seconds == (1.0 if chosen else 0.2)  # whoever chose a folder has chosen the rest


@pytest.fixture
def run(finished_run, tmp_path, monkeypatch):
    """A copy of a finished run, for commands that write into it."""
    monkeypatch.setattr(lifecycle, "set_up_jax", lambda: None)
    return shutil.copytree(finished_run, tmp_path / "run")


def test_linear_probe_scores_a_finished_run_again(run):
    pictures = _contents(run / "figures")
    assert linear_probe.main(["linear_probe.py", str(run)]) == 0
    again, summary = (read(run / "results" / f"{n}.json") for n in ("linear_probe", "summary"))
    assert again["evaluations"] == summary["evaluations"]
    assert again["code"] == summary["code"]
    assert _contents(run / "figures") == pictures


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="holds no run"):
        linear_probe.main(["linear_probe.py", str(tmp_path)])


@pytest.mark.usefixtures("in_the_repository")
def test_evaluate_scores_it_again_and_on_other_data(run, tmp_path, capsys):
    argv = ["evaluate.py", str(run), "--protocols=ridge"]
    assert evaluate.main(argv) == 0
    rows = read(run / "results" / "evaluation.json")["evaluations"]
    assert {row["representation"] for row in rows} == {"trained", "untrained", "pixels"}
    assert {row["dataset"] for row in rows} == {"shades"}
    assert "ridge" in capsys.readouterr().out

    other = tiny.write_arrays(tmp_path / "other.npz", **tiny.arrays(n=32))
    values = tiny.config("simclr", other)
    path = tiny.write_config(tmp_path / "other.py", values)
    assert evaluate.main([*argv, f"--data={path}"]) == 0
    transferred = read(run / "results" / "evaluation-other.json")["evaluations"]
    assert {row["dataset"] for row in transferred} == {"other"}
    assert [row["protocol"]["name"] for row in transferred] == ["ridge"] * len(rows)
