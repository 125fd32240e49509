"""A run on several sets goes through each command, and a resume changes no bit."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict

from contrastive_jax.data.text import sources
from contrastive_jax.errors import ConfigError
from contrastive_jax.storage import workdir
from experiments import evaluate, mine, retrieval
from experiments.run import restore
from experiments.scoring import graded
from tests.data import test_text_mix
from tests.experiments import tiny
from tests.experiments.test_text_losses_run import write
from tests.experiments.test_text_run import config, train, write_pairs

pytestmark = pytest.mark.usefixtures("in_the_repository_of_a_module", "without_a_compilation_cache")


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return str(write_pairs(folder / "homes.jsonl")), str(write(folder / "parts.jsonl"))


def values(paths):
    mixed = {"source": "mix", "path": paths, "weights": (3, 1)}
    return config(paths, data=mixed, eval={"figures": False}, train={"steps": 6})


@pytest.fixture(scope="module")
def run(paths, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "mix"
    assert train(folder, values(paths)) == 0
    return folder


def test_each_set_is_scored_among_all_documents(run):
    summary = workdir.read_json(run / "results" / "summary.json")
    assert {name: found["queries"] for name, found in summary["by_set"].items()} == {
        "homes": 8,
        "parts": 8,
    }
    for row in summary["evaluations"]:
        found = [
            each["systems"][row["representation"]][row["measure"]]
            for each in summary["by_set"].values()
        ]
        assert row["n"] == 16
        assert sum(each["value"] for each in found) / 2 == pytest.approx(row["value"])
    assert workdir.read_json(run / "config.json")["data"]["sets"] == {"homes": 32, "parts": 32}


def test_a_resume_changes_no_bit(run, paths, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    for step in ("4", "6"):
        shutil.rmtree(folder / "checkpoints" / step)
    shutil.rmtree(folder / "results")
    assert train(folder, values(paths)) == 0
    ours, theirs = (workdir.read_json(f / "results" / "summary.json") for f in (folder, run))
    assert ours["seconds"]["resumed_from_step"] == 2
    assert ours["state_sha256"] == theirs["state_sha256"]
    with pytest.raises(ConfigError, match=r"data.weights: \[3, 1\] -> \[1, 3\]"):
        train(folder, values(paths), "--config.data.weights=(1,3)")


def test_later_commands_take_it(run, paths, tmp_path):
    moved = [str(shutil.copy(path, tmp_path)) for path in paths]
    assert restore.open_run(run, ",".join(moved)).config.data.path == tuple(moved)
    assert tiny.main_of(evaluate.main, run, f"--data_dir={', '.join(moved)}") == 0
    scores = [
        workdir.read_json(run / "results" / f"{name}.json")["evaluations"]
        for name in ("summary", "evaluation")
    ]
    assert scores[0] == scores[1]
    assert tiny.main_of(mine.main, run, "--ranks=0,9", "--to", tmp_path / "hard.jsonl") == 0
    assert len((tmp_path / "hard.jsonl").read_text().splitlines()) == 64
    with pytest.raises(ConfigError, match="a file that is read"):
        tiny.main_of(mine.main, "--data", paths[0], "--by", run, "--ranks=0,9", "--to", paths[1])
    assert retrieval.main(["retrieval", "--data", paths[0], str(run), "--at=5"]) == 0


def test_the_command_line_names_several_files_or_one(run, paths):
    typed = f"--config.data.path={paths!r}"
    assert train(run, values(("other.jsonl", "more.jsonl")), typed) == 0  # it is complete
    with pytest.raises(ConfigError, match="several files or folders"):
        train(run.with_name("refused"), values(paths), f"--config.data.path={paths[0]}")


def test_pairs_with_scores_are_also_scored_within_each_set(tmp_path, monkeypatch):
    names = ("one", "other")
    files = tuple(
        test_text_mix.write(tmp_path / f"{name}.jsonl", name, 40, score=lambda i: i % 9)
        for name in names
    )
    corpus = sources.read("mix", path=files, test_fraction=0.3)
    rng = np.random.default_rng(0)
    q, d = rng.normal(size=(2, len(corpus.graded), 4))
    monkeypatch.setattr(graded, "_both", lambda *_: (q, d))
    run = SimpleNamespace(
        dataset=SimpleNamespace(texts=corpus), config=ConfigDict({"eval": {"baselines": False}})
    )
    found = graded.score(run, None, tmp_path, {})["by_set"]  # type: ignore[arg-type]
    score_N = graded.columns(corpus.graded)[2]
    assert [(name, found[name]["pairs"]) for name in found] == [(name, 12) for name in names]
    for name, own in zip(names, (slice(12), slice(12, None)), strict=True):
        for row in graded.rows({"trained": (q[own], d[own])}, score_N[own], "test"):
            assert found[name]["systems"]["trained"][row["measure"]]["value"] == row["value"]
