"""The real command on the real digits: stop it, go on, compare; look at what it leaves."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.run import lifecycle

ROOT = Path(__file__).parents[2]
STEPS = 12
SETTINGS = (
    "--config=configs/digits.py:smoke",
    f"--config.train.steps={STEPS}",
    "--config.train.log_every=1",
    "--config.checkpoint.every_steps=4",
    "--config.eval.every_steps=6",
)
QUICK = ("--config.eval.figures=False", "--config.eval.labels_per_class=0")


def start(workdir: Path, *words: str, module: str = "simclr") -> subprocess.Popen:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONWARNINGS": "default"}
    command = [sys.executable, "-m", f"experiments.{module}", *words, f"--workdir={workdir}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """An uninterrupted run, with everything it draws."""
    workdir = tmp_path_factory.mktemp("straight")
    code, out, err = finish(start(workdir, *SETTINGS))
    assert code == 0, err
    return workdir, out


def test_a_run_leaves_what_the_readme_promises(straight):
    workdir, out = straight
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert {"loss", "contrastive_accuracy", "grad_norm", "effective_rank"} <= set(rows[0])
    summary = json.loads((workdir / "results" / "summary.json").read_text())
    names = {(row["representation"], row["layer"]) for row in summary["evaluations"]}
    assert {("trained", "features"), ("trained", "embedding"), ("pixels", "pixels")} <= names
    assert ("untrained", "features") in names
    for row in summary["evaluations"]:
        assert 0 <= row["accuracy"] <= 1
        assert row["split"] == "test"
        assert row["protocol"]["name"] in ("knn", "linear", "few-label")
    assert {"compile", "training", "evaluation"} <= set(summary["seconds"])
    figures = {path.name for path in (workdir / "figures").glob("*.png")}
    wanted = {"views", "curves", "scores", "neighbours", "cosines", "map_features"}
    assert {f"{name}.png" for name in wanted} <= figures
    assert "trained         features   linear, L-BFGS" in out
    config = json.loads((workdir / "config.json").read_text())
    assert config["config"]["train"]["steps"] == STEPS
    assert "jax" in config["versions"]


def test_ctrl_c_saves_and_the_same_command_ends_like_the_straight_run(straight, tmp_path):
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
    stopped_at = metrics.read_text().count("\n")
    assert stopped_at < STEPS

    code, out, err = finish(start(tmp_path, *SETTINGS, *QUICK))
    assert code == 0, err
    assert "resumed from step" in out
    assert metrics.read_text() == (straight[0] / "metrics.jsonl").read_text()
    assert _accuracies(tmp_path) == {
        key: value for key, value in _accuracies(straight[0]).items() if "few-label" not in key
    }

    code, out, _ = finish(start(tmp_path, *SETTINGS, *QUICK))
    assert code == 0
    assert "is complete" in out


def _accuracies(workdir: Path) -> dict[tuple, float]:
    rows = json.loads((workdir / "results" / "summary.json").read_text())["evaluations"]
    key = lambda row: (row["representation"], row["layer"], row["protocol"]["name"])  # noqa: E731
    return {(*key(row), row["protocol"].get("k")): row["accuracy"] for row in rows}


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


def test_another_config_in_the_same_workdir_is_refused(straight):
    words = (*SETTINGS, "--config.loss.temperature=0.9")
    code, _, err = finish(start(straight[0], *words))
    assert code == 2
    assert "loss.temperature: 0.2 -> 0.9" in err


def test_linear_probe_scores_a_finished_run_again(straight):
    code, out, err = finish(start(straight[0], *SETTINGS, *QUICK, module="linear_probe"))
    assert code == 0, err
    again = json.loads((straight[0] / "results" / "linear_probe.json").read_text())
    summary = json.loads((straight[0] / "results" / "summary.json").read_text())
    pick = lambda s: [r["accuracy"] for r in s["evaluations"] if r["protocol"]["name"] == "linear"]  # noqa: E731
    np.testing.assert_allclose(pick(again), pick(summary), atol=1e-9)


def test_linear_probe_names_a_folder_that_holds_no_run(tmp_path):
    code, _, err = finish(start(tmp_path, *SETTINGS, module="linear_probe"))
    assert code == 4
    assert "holds no run" in err


def test_evaluate_scores_by_every_protocol_and_transfers(straight):
    words = (*SETTINGS, *QUICK, "--epochs=1")
    names = "knn,linear,ridge,retrieval,clusters,sgd,finetune"
    code, out, err = finish(start(straight[0], *words, f"--protocols={names}", module="evaluate"))
    assert code == 0, err
    result = json.loads((straight[0] / "results" / "evaluation.json").read_text())
    rows = result["evaluations"]
    assert {row["protocol"]["name"] for row in rows} == set(names.split(","))
    assert {row["representation"] for row in rows} == {"trained", "untrained", "pixels"}
    assert {row["dataset"] for row in rows} == {"digits"}
    gauges = result["health"]["trained/features"]
    assert len(gauges["dimension_spectrum"]) > 1
    assert 0 < gauges["alignment"] < 2
    with np.load(straight[0] / "results" / "evaluation.npz") as kept:
        for row in rows:
            if "predictions" in row:
                assert row["accuracy"] == np.mean(kept[row["predictions"]] == kept["label"])
        assert len(kept.files) == 1 + sum("predictions" in row for row in rows)
    assert "kNN k=20 T=0.07" in out

    words = (*words, "--protocols=ridge", "--data=configs/digits.py:smoke")
    code, _, err = finish(start(straight[0], *words, module="evaluate"))
    assert code == 0, err
    moved = json.loads((straight[0] / "results" / "evaluation-digits.json").read_text())
    assert moved["evaluations"] == [row for row in rows if row["protocol"]["name"] == "ridge"]
