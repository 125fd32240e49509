"""Each method on images goes through each command, from training to the ablations."""

import functools
import json
import shutil

import numpy as np
import pytest

from contrastive_jax import export as exports
from contrastive_jax.errors import CheckpointError, ConfigError
from contrastive_jax.storage import jsonl, workdir
from experiments import ablations, evaluate, export, linear_probe, report, retrieval
from experiments.run import restore
from experiments.run.methods import METHODS
from tests.experiments import tiny

pytestmark = pytest.mark.usefixtures("in_the_repository_of_a_module", "without_a_compilation_cache")
# What the commands do beside the method itself is tested once for each kind of data.
KINDS = ("simclr", "clip")
ABLATION = """
from ml_collections import ConfigDict
from contrastive_jax.evaluation import claims

def get_config(preset=""):
    return ConfigDict({values!r})

def grid(preset):
    return {{
        "experiment": {method!r},
        "axes": {{"checkpoint.keep": (1, 2)}},  # nothing is compiled for it
        "columns": {{"linear": {{"name": "linear", "layer": "features"}}}},
    }}

def claim(results):
    "More checkpoints do no harm."
    one, two = (results[f"keep={{n}}"]["linear"] for n in (1, 2))
    return claims.above(two, one, by=-1.0)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.write_arrays(tmp_path_factory.mktemp("data") / "shades.npz")


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """Map a method to the folder of its finished run, trained once."""

    @functools.cache
    def folder_of(method):
        folder = tmp_path_factory.mktemp("runs") / method
        pictures = f"--config.eval.figures={method in KINDS}"
        assert tiny.train(folder, method, data, pictures) == 0
        return folder

    return folder_of


@pytest.fixture(params=tiny.METHOD_SECTIONS)
def run(request, runs):
    """A finished run of each method: (method, folder)."""
    return request.param, runs(request.param)


@pytest.fixture(params=KINDS)
def run_of_a_kind(request, runs):
    """A finished run of each kind of data, with its pictures."""
    return request.param, runs(request.param)


EVERY_METHOD = [  # one of each kind of data in every run of the tests, the others before a release
    method if method in KINDS else pytest.param(method, marks=pytest.mark.slow)
    for method in tiny.METHOD_SECTIONS
]


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


def test_it_resumes_as_if_nothing_had_happened(run, data, tmp_path, capsys):
    method, uninterrupted = run
    folder = shutil.copytree(uninterrupted, tmp_path / method)
    shutil.rmtree(folder / "checkpoints" / "2")
    shutil.rmtree(folder / "results")
    rows = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text(rows[0])
    assert tiny.train(folder, method, data, "--config.eval.figures=False") == 0
    assert "resumed from step 1" in capsys.readouterr().out
    assert (folder / "metrics.jsonl").read_text() == "".join(rows)
    ends = [workdir.read_json(f / "results" / "summary.json") for f in (folder, uninterrupted)]
    for part in ("state_sha256", "evaluations"):
        assert ends[0][part] == ends[1][part]


def test_a_longer_training_resumes_where_the_run_ended(run_of_a_kind, data, tmp_path, capsys):
    method, uninterrupted = run_of_a_kind
    folder = tmp_path / method
    plain = ("--config.eval.figures=False", "--config.eval.baselines=False")
    assert tiny.train(folder, method, data, "--config.train.steps=1", *plain) == 0
    assert tiny.train(folder, method, data, *plain) == 0
    assert "resumed from step 1" in capsys.readouterr().out
    resumed, whole = (jsonl.read_jsonl(f / "metrics.jsonl") for f in (folder, uninterrupted))
    assert [row["step"] for row in resumed] == [1, 2]
    assert [row["loss"] for row in resumed] == [row["loss"] for row in whole]
    description = workdir.read_json(folder / "config.json")
    assert "train.steps=1" in description["command"]  # its first start
    assert len(description["resumed"]) == 1
    with pytest.raises(ConfigError, match="checkpoint of step 2, and the config trains 1 steps"):
        tiny.train(folder, method, data, "--config.train.steps=1")


@pytest.mark.parametrize("method", EVERY_METHOD)
def test_linear_probe_scores_it_again(method, runs):
    folder = runs(method)
    assert tiny.main_of(linear_probe.main, folder) == 0
    again = workdir.read_json(folder / "results" / "linear_probe.json")
    summary = workdir.read_json(folder / "results" / "summary.json")
    assert again["evaluations"] == summary["evaluations"]
    assert again["method"] == method


def test_scores_of_a_read_only_folder_are_printed_and_not_kept(run_of_a_kind, monkeypatch, capsys):
    _, folder = run_of_a_kind
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    monkeypatch.setattr(restore.os, "access", lambda *args: False)
    for command, *words in ((linear_probe.main,), (evaluate.main, "--protocols=linear")):
        with pytest.raises(CheckpointError, match="read-only: the scores above were printed"):
            tiny.main_of(command, folder, *words)
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
    before = workdir.read_json(folder / "results" / "summary.json")["evaluations"]
    assert set() < _nearest_neighbors(before) <= _nearest_neighbors(result["evaluations"])
    with np.load(folder / "results" / "evaluation.npz") as kept:
        for row in result["evaluations"]:
            if "predictions" in row:
                assert row["value"] == np.mean(kept[row["predictions"]] == kept["label"])
    if method not in KINDS:
        return
    assert tiny.main_of(evaluate.main, folder, "--protocols=knn", f"--against={folder}") == 0
    assert "+0.0 points" in capsys.readouterr().out
    merged = workdir.read_json(folder / "results" / "evaluation.json")["evaluations"]
    assert {row["protocol"]["name"] for row in merged} == scored  # the others are kept
    assert len(merged) == len(result["evaluations"])


def _nearest_neighbors(rows):
    """The accuracy of each representation by k-NN, and its k."""
    where = ("representation", "layer", "value")
    found = [row for row in rows if row["protocol"]["name"] == "knn"]
    return {(*(row[name] for name in where), row["protocol"].get("k")) for row in found}


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


@pytest.mark.parametrize("method", ["simclr", "moco"])  # those that older versions had
def test_an_older_folder_without_a_method_is_known_by_its_sections(method, runs, tmp_path):
    folder = runs(method)
    description = workdir.read_json(folder / "config.json")
    old = {name: description[name] for name in ("config", "command", "versions")}
    old["config"].pop("log")
    workdir.write_json(folder / "config.json", old)
    try:
        assert tiny.main_of(export.main, folder, "--to", tmp_path) == 0
        assert json.loads((tmp_path / exports.CARD).read_text())["method"] == method
    finally:
        workdir.write_json(folder / "config.json", description)


def test_a_finished_run_is_scored_as_it_was_trained(run_of_a_kind, data):
    method, folder = run_of_a_kind
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


def test_other_data_in_the_same_folder_is_refused(run_of_a_kind, data, tmp_path):
    method, folder = run_of_a_kind
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


@pytest.mark.parametrize("method", EVERY_METHOD)
def test_ablations_run_it(method, data, tmp_path):
    values = tiny.config(method, data)
    values["eval"] = {**values["eval"], "figures": False, "labels_per_class": 0}
    page = tmp_path / "page.py"
    page.write_text(ABLATION.format(values=values, method=method))
    assert tiny.main_of(ablations.main, f"--config={page}", f"--workdir={tmp_path / 'out'}") == 0
    assert "More checkpoints do no harm." in (tmp_path / "out" / "table.md").read_text()
    rows = _rows(tmp_path / "out" / "results.jsonl")
    assert [row["cell"] for row in rows] == ["keep=1", "keep=2"]
    assert len({row["value"] for row in rows}) == 1  # it is no part of the training
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


def _cross_modal(rows):
    return [row for row in rows if row["protocol"]["name"] == "cross-modal"]


def test_prompts_that_are_the_captions_classify_as_retrieval_does(runs, data, tmp_path):
    folder, prompts = runs("clip"), tmp_path / "prompts.txt"
    prompts.write_text("# a comment\n\nshade {} of gray\n")
    assert tiny.main_of(evaluate.main, folder, f"--prompts={prompts}", f"--data={data}") == 0
    found = workdir.read_json(folder / "results" / "evaluation-shades.json")["evaluations"]
    assert [row["representation"] for row in found] == ["trained", "untrained"]
    assert found[0]["protocol"]["prompts"] == ["shade {} of gray"]
    retrieved = _cross_modal(workdir.read_json(folder / "results" / "summary.json")["evaluations"])
    for row in found:
        task, whose = ("image to text, test", "recall@1"), row["representation"]
        [first] = [
            other
            for other in retrieved
            if (other["protocol"]["task"], other["measure"]) == task
            and other["representation"] == whose
        ]
        assert row["accuracy"] == first["value"]


def test_prompts_without_a_slot_or_a_text_encoder_are_refused(runs, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a {}\na photo\n")
    with pytest.raises(ConfigError, match="line 2: 'a photo' has no {} for the name"):
        tiny.main_of(evaluate.main, runs("clip"), f"--prompts={prompts}")
    with pytest.raises(ConfigError, match="'simclr' has no text encoder"):
        tiny.main_of(evaluate.main, runs("simclr"), f"--prompts={prompts}")


def test_a_run_retrieves_its_own_captions_as_its_summary_says(runs, tmp_path):
    scores = tmp_path / "scores.json"
    assert tiny.main_of(retrieval.main, runs("clip"), "--to", scores) == 0
    summary = workdir.read_json(runs("clip") / "results" / "summary.json")
    assert workdir.read_json(scores)["evaluations"] == _cross_modal(summary["evaluations"])
    with pytest.raises(ConfigError, match="run of 'simclr': say by --data"):
        tiny.main_of(retrieval.main, runs("simclr"))


def test_a_typed_caption_finds_images_by_cosine(runs, capsys):
    folder = runs("clip")
    assert tiny.main_of(retrieval.main, folder, "--query", "Shade 1 of gray!") == 0
    assert (folder / "figures" / "queries.png").exists()
    lines = capsys.readouterr().out.splitlines()
    start = lines.index("Shade 1 of gray!") + 1
    cosines = [float(line.split()[0]) for line in lines[start : start + 3]]
    run, _, trained = restore.open_run(folder).load()
    image = run.objective.embed["image"](*trained[1:3], {"image": run.dataset.test["image"]})
    tokens = run.dataset.test["tokens"][1:2]
    text = run.objective.embed["text"](*trained[1:3], {"tokens": tokens})
    z, y = (np.asarray(x["embedding"]) for x in (image, text))
    want = (z @ y[0]) / np.linalg.norm(z, axis=1) / np.linalg.norm(y)
    np.testing.assert_allclose(cosines, sorted(want)[::-1][:3], atol=2e-3)
    with pytest.raises(ConfigError, match="no word of 'xyz'"):
        tiny.main_of(retrieval.main, folder, "--query", "xyz")
