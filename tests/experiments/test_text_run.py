"""A text encoder on a few made-up pairs goes through each command, from training to mining."""

import json

import numpy as np
import pytest

from contrastive_jax.data.text import tokens
from contrastive_jax.errors import ConfigError
from contrastive_jax.storage import jsonl, workdir
from experiments import ablations, evaluate, export, linear_probe, mine, report, retrieval
from experiments.run import lifecycle, restore
from experiments.run.methods import METHODS
from experiments.scoring import texts
from tests.experiments import tiny

pytestmark = pytest.mark.usefixtures("in_the_repository_of_a_module", "without_a_compilation_cache")
THINGS = [f"{a}{b}" for a in ("fox", "whale", "frog", "wolf", "bird") for b in "abcdefgh"]


def write_pairs(path, answer="lives where {} live"):
    """Each query names its thing by a word that its document alone has."""
    rows = [
        {
            "query": f"what is the home of {thing}",
            "pos": [f"{thing} {answer.format(thing[:-1])} in part {i % 7}"],
            "neg": [f"nobody knows {thing[:-1]} number {i}"],
        }
        for i, thing in enumerate(THINGS)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def config(path, **sections):
    values = {
        "data": {"source": "pairs", "path": str(path), "batch_size": 8, "test_fraction": 0.2},
        "tokens": {"vocabulary_size": 120, "query_length": 12, "document_length": 12},
        "encoder": {"name": "bag", "dim": 8, "word_dropout": 0.2},
        "loss": {"kind": "info_nce", "temperature": "learned"},
        "optimizer": {"name": "adamw", "learning_rate": 0.02},
        "train": {"steps": 4, "log_every": 1},
        "checkpoint": {"every_steps": 2, "keep": 3},
        "eval": {"at": 5},
        "log": {"tensorboard": False},
    }
    for name, changes in sections.items():
        kept = {} if "name" in changes else values.get(name, {})
        values[name] = {**kept, **changes}
    return values


def train(folder, values, *arguments):
    page = tiny.write_config(folder.with_suffix(".py"), values)
    argv = ["text.py", f"--config={page}", f"--workdir={folder}", *arguments]
    return lifecycle.main(METHODS["text"], argv)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("data") / "homes.jsonl")


@pytest.fixture(scope="module")
def run(path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "homes"
    assert train(folder, config(path)) == 0
    return folder


def test_scores_stand_beside_untrained_and_bm25_with_intervals_and_tests(run):
    summary = workdir.read_json(run / "results" / "summary.json")
    rows = summary["evaluations"]
    assert {row["representation"] for row in rows} == {"trained", "untrained", "BM25"}
    assert {row["measure"] for row in rows} == {"nDCG@5", "MRR@5", "recall@5", "MAP@5"}
    for row in rows:
        assert row["ci95"][0] <= row["value"] <= row["ci95"][1]
        assert row["n"] == row["protocol"]["queries"] == 8
    best = {row["value"] for row in rows if row["representation"] == "BM25"}
    assert min(best) == 1.0  # by construction of the pairs
    pairs = {(test["first"], test["second"]) for test in summary["comparisons"]}
    assert {("BM25", "trained"), ("untrained", "trained")} <= pairs
    for test in summary["comparisons"]:
        assert all(moved["text"].startswith("what is") for moved in test["harmed"])
    description = workdir.read_json(run / "config.json")
    assert description["method"] == summary["method"] == "text"
    assert description["data"]["n_tokens"] == tokens.read(run / texts.TOKENIZER).size
    drawn = {file.stem for file in (run / "figures").glob("*.png")}
    assert drawn == {"curves", "scores", "gains", "cosines_trained", "cosines_untrained"}


def test_a_resumed_run_ends_in_the_same_bits(run, path, tmp_path):
    folder = tmp_path / "homes"
    values = config(path, eval={"figures": False})
    assert train(folder, values, "--config.train.steps=2") == 0
    assert train(folder, values) == 0
    ours, theirs = (jsonl.read_jsonl(f / "metrics.jsonl") for f in (folder, run))
    assert [row["step"] for row in ours] == [1, 2, 3, 4]
    assert [row["loss"] for row in ours[:2]] == [row["loss"] for row in theirs[:2]]


def test_stopping_half_way_changes_no_bit(run, path, tmp_path):
    folder, values = tmp_path / "homes", config(path, eval={"figures": False})
    assert train(folder, values) == 0
    whole = workdir.read_json(folder / "results" / "summary.json")["state_sha256"]
    assert whole == workdir.read_json(run / "results" / "summary.json")["state_sha256"]
    for step in (folder / "checkpoints").glob("*4*"):
        for file in sorted(step.rglob("*"), reverse=True):
            file.unlink() if file.is_file() else file.rmdir()
        step.rmdir()
    (folder / "results" / "summary.json").unlink()
    assert train(folder, values) == 0
    assert workdir.read_json(folder / "results" / "summary.json")["state_sha256"] == whole


def test_linear_probe_and_evaluate_score_it_again(run):
    summary = workdir.read_json(run / "results" / "summary.json")
    for command, name in ((linear_probe, "linear_probe"), (evaluate, "evaluation")):
        assert tiny.main_of(command.main, run) == 0
        again = workdir.read_json(run / "results" / f"{name}.json")
        assert again["evaluations"] == summary["evaluations"]
    with pytest.raises(ConfigError, match="is of runs on images"):
        tiny.main_of(evaluate.main, run, "--protocols=knn")


def test_export_says_what_it_writes(run, tmp_path):
    with pytest.raises(ConfigError, match="encoder.repeats 0.5; a folder of sentence-transformers"):
        tiny.main_of(export.main, run, "--to", tmp_path / "out")


def test_retrieval_takes_the_run_and_says_what_its_own_scores_say(run, tmp_path, path, capsys):
    target = restore.open_run(run).load().run.dataset.texts.test
    root = tmp_path / "homes"
    (root / "qrels").mkdir(parents=True)
    for name, found in (("corpus", target.documents), ("queries", target.queries)):
        lines = [json.dumps({"_id": key, "text": text}) for key, text in found.items()]
        (root / f"{name}.jsonl").write_text("\n".join(lines))
    judged = [f"{q}\t{d}\t{g}" for q, row in target.grades.items() for d, g in row.items()]
    lines = ["query-id\tcorpus-id\tscore", *judged]
    (root / "qrels" / "test.tsv").write_text("\n".join(lines))
    hidden = path.rename(path.with_suffix(".hidden"))  # the run is enough
    try:
        words = ["bm25", str(run), "--at", "5", "--to", str(tmp_path / "scores.json")]
        assert retrieval.main(["retrieval", "--data", str(root), *words]) == 0
    finally:
        hidden.rename(path)
    scores = workdir.read_json(tmp_path / "scores.json")["systems"]
    rows = workdir.read_json(run / "results" / "summary.json")["evaluations"]
    for name, system in (("trained", str(run)), ("BM25", "bm25")):
        [row] = [r for r in rows if (r["representation"], r["measure"]) == (name, "nDCG@5")]
        np.testing.assert_allclose(scores[system]["mean"]["nDCG@5"]["value"], row["value"])


def test_mined_negatives_train_the_next_run(run, path, tmp_path):
    hard = tmp_path / "hard.jsonl"
    assert mine.main(["mine", str(run), "--to", str(hard), "--ranks", "0,9"]) == 0
    mined = [json.loads(line) for line in hard.read_text().splitlines()]
    assert len(mined) == 32  # the training queries alone
    folder = tmp_path / "second"
    values = config(path, data={"negatives_path": str(hard), "n_negatives": 2})
    assert train(folder, {**values, "eval": {"figures": False, "at": 5}}) == 0
    rows = workdir.read_json(folder / "results" / "summary.json")["evaluations"]
    assert {row["n"] for row in rows} == {8}
    loaded = restore.open_run(folder).load().run.dataset.train
    assert loaded["negatives_mask"].all()


def test_report_shows_it(run, tmp_path):
    assert tiny.main_of(report.main, run, "--to", tmp_path / "report.html") == 0
    page = (tmp_path / "report.html").read_text()
    assert "nDCG@5" in page
    assert "could not be computed" not in page


def test_other_texts_in_the_same_folder_are_refused(run, path, tmp_path):
    other = write_pairs(tmp_path / "homes.jsonl", answer="is at home with {}")
    with pytest.raises(ConfigError, match="was trained on other data"):
        train(run, config(other))
    with pytest.raises(ConfigError, match="was trained on other data"):
        tiny.main_of(linear_probe.main, run, f"--data_dir={other}")
    (tmp_path / "moved").mkdir()
    moved = write_pairs(tmp_path / "moved" / "homes.jsonl")  # the content counts, not the place
    before = (run / "results" / "summary.json").read_bytes()
    assert train(run, config(moved)) == 0
    assert (run / "results" / "summary.json").read_bytes() == before


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("eval", {"at": 200}, "above the 80 documents"),
        ("eval", {"every_steps": 2}, "validation_split names no split"),
        ("loss", {"kind": "siglip"}, "reads no negatives"),
        ("encoder", {"name": "bert", "layers": 1, "positions": 9}, "have 12 tokens"),
        ("train", {"chunk_size": 3}, "chunk_size is 3"),
    ],
)
def test_what_cannot_work_is_refused_before_training(path, tmp_path, section, changes, message):
    values = config(path, data={"n_negatives": 1}, **{section: changes})
    with pytest.raises(ConfigError, match=message):
        train(tmp_path / "refused", values)
    assert not (tmp_path / "refused" / "metrics.jsonl").exists()


def test_validation_and_chunks_and_a_transformer_from_scratch(path, tmp_path):
    values = config(
        path,
        data={"batch_size": 16, "validation_split": "any", "n_negatives": 1, "length_buckets": 2},
        encoder={"name": "bert", "layers": 1, "dim": 8, "heads": 2, "hidden_dim": 8},
        eval={"every_steps": 2, "figures": False, "baselines": False},
        train={"chunk_size": 16, "steps": 2},
    )
    assert train(tmp_path / "bert", values) == 0
    last = jsonl.read_jsonl(tmp_path / "bert" / "metrics.jsonl")[-1]
    assert 0 <= last["nDCG_validation"] <= 1


ABLATION = """
from ml_collections import ConfigDict
from contrastive_jax.evaluation import claims

def get_config(preset=""):
    return ConfigDict({values!r})

def grid(preset):
    return {{
        "experiment": "text",
        "axes": {{"loss.temperature": (0.05, 0.2)}},
        "columns": {{"nDCG": {{"name": "ranking", "layer": "embedding", "measure": "nDCG@5"}}}},
    }}

def claim(results):
    "A higher temperature does no harm."
    cold, warm = (results[f"temperature={{t}}"]["nDCG"] for t in (0.05, 0.2))
    return claims.above(warm, cold, by=-1.0)
"""


def test_ablations_run_it(path, tmp_path):
    values = config(path, train={"steps": 1}, eval={"figures": False}, loss={"temperature": 0.1})
    page = tmp_path / "page.py"
    page.write_text(ABLATION.format(values=values))
    assert tiny.main_of(ablations.main, f"--config={page}", f"--workdir={tmp_path / 'out'}") == 0
    rows = [json.loads(x) for x in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert [row["cell"] for row in rows] == ["temperature=0.05", "temperature=0.2"]
    assert all(0 <= row["measured"]["nDCG"]["value"] <= 1 for row in rows)


def test_negatives_of_the_file_alone_are_contrasted_with(path, tmp_path):
    changed = {"data": {"n_negatives": 1}, "loss": {"kind": "per_query_info_nce"}}
    folder = tmp_path / "run"
    assert train(folder, config(path, train={"steps": 1}, **changed)) == 0
    words = ["--data", str(write_pairs(tmp_path / "others.jsonl")), str(folder), "--at=5"]
    assert retrieval.main(["retrieval", *words]) == 0  # without its data
    assert tiny.main_of(mine.main, folder, "--ranks=0,9", "--to", tmp_path / "hard.jsonl") == 0
    assert tiny.main_of(evaluate.main, folder) == 0


def test_no_command_writes_over_what_it_reads(run, path, tmp_path):
    before = path.read_bytes()
    commands = {
        "a file that is read": [
            (mine.main, run, "--ranks=0,9", "--to", path.with_suffix(".jsonl")),
            (mine.main, "--data", path, "--by", run, "--ranks=0,9", "--to", path),
        ],
        "give a .json file in a folder that exists": [
            (retrieval.main, "--data", path, "bm25", "--to", path),
            (retrieval.main, "--data", path, "bm25", "--to", tmp_path / "no" / "scores.json"),
        ],
        "a file, or a run": [(export.main, run, "--to", run), (export.main, run, "--to", path)],
    }
    for message, lines in commands.items():
        for command, *words in lines:
            with pytest.raises(ConfigError, match=message):
                tiny.main_of(command, *words)
    assert path.read_bytes() == before
    assert restore.open_run(run).description["method"] == "text"


def test_a_run_that_is_scored_on_its_own_pairs_says_so(run, path, capsys, tmp_path):
    assert retrieval.main(["retrieval", "--data", str(path), str(run), "--at=5"]) == 0
    assert "was trained on pairs of homes" in capsys.readouterr().err
    assert tiny.main_of(mine.main, run, "--ranks=0,9", "--to", tmp_path / "hard.jsonl") == 0
    assert "was trained on" not in capsys.readouterr().err  # what mining is for
