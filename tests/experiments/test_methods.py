"""Each method on images goes through each command, from training to the ablations."""

import json

import numpy as np
import pytest

from contrastive_jax import export as exports
from contrastive_jax.errors import CheckpointError, ConfigError
from contrastive_jax.storage import jsonl, workdir
from experiments import ablations, evaluate, export, linear_probe, report
from experiments.run import lifecycle, restore
from experiments.run.methods import METHODS
from tests.experiments import tiny

pytestmark = pytest.mark.usefixtures("in_the_repository_of_a_module")
ABLATION = """
from ml_collections import ConfigDict
from contrastive_jax.evaluation import claims

def get_config(preset=""):
    return ConfigDict({values!r})

def grid(preset):
    return {{
        "experiment": {method!r},
        "axes": {{"head.output_dim": (4, 8)}},
        "columns": {{"linear": {{"name": "linear", "layer": "features"}}}},
    }}

def claim(results):
    "More dimensions do no harm."
    small, large = (results[f"output_dim={{n}}"]["linear"] for n in (4, 8))
    return claims.above(large, small, by=-1.0)
"""


@pytest.fixture(scope="module", autouse=True)
def _no_compilation_cache():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lifecycle, "set_up_jax", lambda: None)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.write_arrays(tmp_path_factory.mktemp("data") / "shades.npz")


@pytest.fixture(scope="module", params=tiny.METHOD_SECTIONS)
def run(request, data, tmp_path_factory):
    """A finished run of each method: (method, folder)."""
    folder = tmp_path_factory.mktemp("runs") / request.param
    assert tiny.train(folder, request.param, data) == 0
    return request.param, folder


def test_the_tests_know_every_method():
    assert {*tiny.METHOD_SECTIONS, "text"} == METHODS.keys()  # that one in test_text_run.py


def test_training_says_where_its_numbers_come_from(run):
    method, folder = run
    description = workdir.read_json(folder / "config.json")
    assert description["method"] == method
    assert description["data"]["name"] == "shades"
    assert description["data"]["image_shape"] == [8, 8, 3]
    assert len(description["data"]["sha256"]) == len(description["code"]["sha256"]) == 64
    assert {"commit", "dirty"} <= set(description["code"])
    summary = workdir.read_json(folder / "results" / "summary.json")
    assert summary["schema"] == 2
    for name in ("method", "code", "data"):
        assert summary[name] == description[name]
    assert "accuracy" in {row["measure"] for row in summary["evaluations"]}
    assert summary["step_cost"]["milliseconds"] > 0
    assert summary["step_cost"]["megabytes"] > tiny.arrays()["image"].nbytes / 2**20


def test_a_longer_training_resumes_where_the_run_ended(run, data, tmp_path, capsys):
    method, _ = run
    folder = tmp_path / method
    assert (
        tiny.train(folder, method, data, "--config.train.steps=1", "--config.eval.figures=False")
        == 0
    )
    assert tiny.train(folder, method, data, "--config.eval.figures=False") == 0
    assert "resumed from step 1" in capsys.readouterr().out
    resumed = jsonl.read_jsonl(folder / "metrics.jsonl")
    uninterrupted = jsonl.read_jsonl(run[1] / "metrics.jsonl")
    assert [row["step"] for row in resumed] == [1, 2]
    assert [row["loss"] for row in resumed] == [row["loss"] for row in uninterrupted]
    description = workdir.read_json(folder / "config.json")
    assert "train.steps=1" in description["command"]  # its first start
    assert len(description["resumed"]) == 1
    with pytest.raises(ConfigError, match="checkpoint of step 2, and the config trains 1 steps"):
        tiny.train(folder, method, data, "--config.train.steps=1")


def test_linear_probe_scores_it_again(run):
    method, folder = run
    assert tiny.main_of(linear_probe.main, folder) == 0
    again = workdir.read_json(folder / "results" / "linear_probe.json")
    summary = workdir.read_json(folder / "results" / "summary.json")
    assert again["evaluations"] == summary["evaluations"]
    assert again["method"] == method


def test_scores_of_a_read_only_folder_are_printed_and_not_kept(run, monkeypatch, capsys):
    _, folder = run
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    monkeypatch.setattr(restore.os, "access", lambda *args: False)
    for command in (linear_probe.main, evaluate.main):
        with pytest.raises(CheckpointError, match="read-only: the scores above were printed"):
            tiny.main_of(command, folder)
        assert "linear, L-BFGS" in capsys.readouterr().out
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_evaluate_scores_it_by_every_protocol(run, capsys):
    method, folder = run
    every = "knn,linear,ridge,few,retrieval,clusters,sgd,finetune"
    names = every if method == "simclr" else "knn,finetune"
    assert tiny.main_of(evaluate.main, folder, f"--protocols={names}", "--epochs=1") == 0
    result = workdir.read_json(folder / "results" / "evaluation.json")
    scored = {row["protocol"]["name"] for row in result["evaluations"]}
    assert scored == {"few-label" if name == "few" else name for name in names.split(",")}
    assert {"alignment", "rankme"} <= set(result["diagnostics"]["trained/features"])
    with np.load(folder / "results" / "evaluation.npz") as kept:
        for row in result["evaluations"]:
            if "predictions" in row:
                assert row["value"] == np.mean(kept[row["predictions"]] == kept["label"])
    assert tiny.main_of(evaluate.main, folder, "--protocols=knn", f"--against={folder}") == 0
    assert "+0.0 points" in capsys.readouterr().out
    merged = workdir.read_json(folder / "results" / "evaluation.json")["evaluations"]
    assert {row["protocol"]["name"] for row in merged} == scored  # the others are kept
    assert len(merged) == len(result["evaluations"])


def test_export_and_report_need_no_data(run, data, tmp_path):
    method, folder = run
    hidden = data.with_suffix(".hidden")
    data.rename(hidden)
    try:
        assert tiny.main_of(export.main, folder, "--to", tmp_path / "exported") == 0
        assert tiny.main_of(report.main, folder, "--to", tmp_path / "report.html") == 0
    finally:
        hidden.rename(data)
    exported = exports.load(tmp_path / "exported")
    assert exported.card["method"] == method
    assert exported.card["data"]["name"] == "shades"
    assert np.isfinite(exported.embed(np.zeros((2, 8, 8, 3), np.uint8))).all()
    text = (tmp_path / "report.html").read_text()
    assert method in text
    assert "could not be computed" in text  # what needs the data says that it is not there


def test_an_older_folder_without_a_method_is_known_by_its_sections(run, tmp_path):
    method, folder = run
    if method not in ("simclr", "moco"):
        pytest.skip("a method that no older version had")
    description = workdir.read_json(folder / "config.json")
    old = {name: description[name] for name in ("config", "command", "versions")}
    old["config"].pop("log")
    workdir.write_json(folder / "config.json", old)
    try:
        assert tiny.main_of(export.main, folder, "--to", tmp_path) == 0
        assert json.loads((tmp_path / exports.CARD).read_text())["method"] == method
    finally:
        workdir.write_json(folder / "config.json", description)


def test_a_finished_run_is_scored_as_it_was_trained(run, data):
    method, folder = run
    with pytest.raises(ConfigError, match="would make it another run"):
        tiny.main_of(linear_probe.main, folder, "--config.optimizer.learning_rate=1.0")
    path = folder.with_suffix(".py")
    old_form = (f"--config={path}", f"--workdir={folder}")
    with pytest.raises(ConfigError, match="augment.hue: 0.1 -> 0.2"):
        tiny.main_of(linear_probe.main, *old_form, "--config.augment.hue=0.2")
    pictures = {p: p.read_bytes() for p in (folder / "figures").glob("*.png")}
    assert pictures
    assert tiny.main_of(linear_probe.main, *old_form, "--config.eval.labels_per_class=0") == 0
    assert {p: p.read_bytes() for p in (folder / "figures").glob("*.png")} == pictures


def test_other_data_in_the_same_folder_is_refused(run, data, tmp_path):
    method, folder = run
    arrays = tiny.arrays()
    arrays["image"][0, 0, 0, 0] ^= 1
    other = tiny.write_arrays(tmp_path / "shades.npz", **arrays)
    with pytest.raises(ConfigError, match="was trained on other data"):
        tiny.train(folder, method, other)
    with pytest.raises(ConfigError, match="was trained on other data"):
        tiny.main_of(linear_probe.main, folder, f"--data_dir={other}")
    moved = tiny.write_arrays(tmp_path / "moved.npz")  # the content counts, not the place
    said = {name: (folder / name).read_bytes() for name in ("config.json", "results/summary.json")}
    assert tiny.train(folder, method, moved, "--config.log.tensorboard=True") == 0
    assert {name: (folder / name).read_bytes() for name in said} == said


def test_ablations_run_it(run, data, tmp_path):
    method, _ = run
    values = {**tiny.config(method, data), "train": {"steps": 1}}
    values["eval"] = {**values["eval"], "figures": False, "labels_per_class": 0}
    page = tmp_path / "page.py"
    page.write_text(ABLATION.format(values=values, method=method))
    assert tiny.main_of(ablations.main, f"--config={page}", f"--workdir={tmp_path / 'out'}") == 0
    assert "More dimensions do no harm." in (tmp_path / "out" / "table.md").read_text()
    rows = _rows(tmp_path / "out" / "results.jsonl")
    assert [row["cell"] for row in rows] == ["output_dim=4", "output_dim=8"]
    assert all(len(row["code"]["sha256"]) == 64 for row in rows)


def _rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_captions_are_retrieved_beside_what_learns_nothing(run):
    method, folder = run
    rows = workdir.read_json(folder / "results" / "summary.json")["evaluations"]
    found = [row for row in rows if row["protocol"]["name"] == "cross-modal"]
    if method != "clip":
        assert not found
        return
    assert {row["representation"] for row in found} == {"trained", "untrained", "nearest neighbors"}
    assert {row["measure"] for row in found} == {"recall@1", "recall@5", "recall@10", "MRR"}
    assert {row["protocol"]["gallery"] for row in found} == {3, 12}  # captions, images
    for row in found:
        assert row["value"] >= row["without_twins"]
        if row["measure"] == "recall@10" and row["protocol"]["gallery"] == 3:
            assert row["value"] == 1.0
    assert (folder / "figures" / "nearest_captions.png").exists()
