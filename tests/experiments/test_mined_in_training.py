"""Negatives that are mined while training: what they are, and that a resume changes no bit."""

import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from contrastive_jax.errors import ConfigError
from contrastive_jax.objectives.mined import TABLE
from contrastive_jax.storage import jsonl, workdir
from experiments import retrieval
from experiments.ablation import columns
from experiments.run import build, restore
from experiments.run.methods import METHODS
from experiments.run.sections import complete
from experiments.scoring import hard_negatives, texts
from tests.experiments.test_text_run import config, train, write_pairs

pytestmark = pytest.mark.usefixtures("in_the_repository_of_a_module", "without_a_compilation_cache")
K = 2


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("data") / "homes.jsonl")


def mining(path, **mine):
    return config(
        path,
        data={"n_negatives": K},
        mine={"every_steps": 2, "ranks": (0, 9), **mine},
        train={"steps": 5},
        checkpoint={"every_steps": 1, "keep": 9},
        eval={"figures": False, "baselines": False},
    )


@pytest.fixture(scope="module")
def run(path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "mining"
    assert train(folder, mining(path, sample=True)) == 0
    return folder


def test_the_table_is_that_of_an_exhaustive_search_by_the_encoder_of_its_step(path, tmp_path):
    folder = tmp_path / "run"
    assert train(folder, mining(path, relative_margin=0.05)) == 0
    loaded = restore.open_run(folder).load("4")
    run, state = loaded.run, loaded.trained
    of, chosen = texts.texts_of(run).mineable, hard_negatives.of_run(run)
    renewed, metrics = hard_negatives.refresh(run).renew(state, 4)
    after = restore.open_run(folder).load("5").trained.model_state[TABLE]
    np.testing.assert_array_equal(after, renewed.model_state[TABLE])

    rows = run.dataset.train
    q, d = (
        np.asarray(run.objective.embed[side](state.params, state.model_state, given)["embedding"])
        for side, given in (
            ("query", rows),
            ("document", {"document": of.corpus, "document_length": of.corpus_length}),
        )
    )
    places = {row.tobytes(): i for i, row in enumerate(of.corpus)}
    for n, table_K in enumerate(np.asarray(after)):
        score_M = q[n] @ d.T
        own = places[rows["document"][n].tobytes()]
        others = np.delete(np.arange(len(d)), own)
        ranked = others[np.argsort(-score_M[others], kind="stable")][: chosen.ranks[1]]
        kept = ranked[score_M[ranked] <= score_M[own] - 0.05 * abs(score_M[own])][:K]
        np.testing.assert_array_equal(table_K[: len(kept)], kept)
        assert (table_K[len(kept) :] == -1).all()
    assert metrics["mined_found"] == pytest.approx(np.mean(np.asarray(after) >= 0))


def test_the_first_negatives_are_those_of_the_file_and_rows_say_what_was_mined(run, path, tmp_path):
    rows = jsonl.read_jsonl(run / "metrics.jsonl")
    assert ["mined_found" in row for row in rows] == [False, False, True, False, True]
    given = {**mining(path), "mine": {}, "train": {"steps": 2, "log_every": 1}}
    assert train(tmp_path / "given", given) == 0
    theirs = jsonl.read_jsonl(tmp_path / "given" / "metrics.jsonl")
    assert [row["loss"] for row in theirs] == [row["loss"] for row in rows[:2]]


@pytest.mark.parametrize("step", [2, 3])  # saved before negatives are mined again, and after
def test_a_resume_across_a_refresh_changes_no_bit(run, path, tmp_path, step):
    folder = shutil.copytree(run, tmp_path / "run")
    for later in range(step + 1, 6):
        shutil.rmtree(folder / "checkpoints" / str(later))
    shutil.rmtree(folder / "results")
    assert train(folder, mining(path, sample=True)) == 0
    ours, theirs = (workdir.read_json(f / "results" / "summary.json") for f in (folder, run))
    assert ours["seconds"]["resumed_from_step"] == step
    assert ours["state_sha256"] == theirs["state_sha256"]
    assert (folder / "metrics.jsonl").read_text() == (run / "metrics.jsonl").read_text()


def test_samples_differ_between_refreshes_and_are_of_the_window(run):
    tables = [
        np.asarray(restore.open_run(run).load(step).trained.model_state[TABLE])
        for step in ("2", "3", "5")
    ]
    assert (tables[0][:, 1] == -1).all()  # the file has one of each pair
    assert (tables[1] != tables[2]).any()


def test_later_commands_open_it_without_its_data(run, path, tmp_path, capsys):
    other = write_pairs(tmp_path / "others.jsonl")
    hidden = path.rename(path.with_suffix(".hidden"))
    try:
        assert retrieval.main(["retrieval", "--data", str(other), str(run), "--at=5"]) == 0
    finally:
        hidden.rename(path)


def test_joined_pairs_are_no_negatives(path):
    method = METHODS["text"]
    made = build.build(method, complete(ConfigDict(mining(path)), method.all_sections()))
    of = texts.texts_of(made).mineable
    joined = of._replace(corpus_id=np.zeros_like(of.corpus_id))
    found = hard_negatives._mine(made, made.fresh_state(), 2, joined, hard_negatives.of_run(made))
    assert not found.valid.any()
    assert jax.tree.leaves(made.fresh_state().model_state)[0].shape == (32, K)


def test_what_is_mined_may_be_a_column_and_a_refresh_that_never_comes_is_said(path):
    method = METHODS["text"]
    found = SimpleNamespace(columns={"found": {"logged": "mined_found"}})
    for every, mined in ((2, True), (5, True), (0, False)):
        values = ConfigDict(mining(path, every_steps=every))
        made = build.build(method, complete(values, method.all_sections()))
        never = any("5 of 5 steps: nothing is mined" in x for x in hard_negatives.check(made))
        assert never == (every == 5)
        if mined:
            columns.check(found, made)
        else:
            with pytest.raises(ConfigError, match="asks for 'mined_found'"):
                columns.check(found, made)


@pytest.mark.parametrize(
    ("data", "mine", "message"),
    [
        ({"n_negatives": 0}, {}, "set data.n_negatives"),
        ({"n_negatives": 10}, {}, "hold fewer than the 10"),
        ({}, {"ranks": (0, 500)}, "above the 64 training documents"),
        ({}, {"ranks": (3,)}, "first and the last"),
        ({}, {"every_steps": -1}, "give 0 or more"),
    ],
)
def test_what_cannot_be_mined_is_refused_before_training(path, tmp_path, data, mine, message):
    values = mining(path, **mine)
    values["data"] |= data
    with pytest.raises(ConfigError, match=message):
        train(tmp_path / "run", values)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
