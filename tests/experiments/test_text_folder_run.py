"""A run from a sentence folder: its weights, its tokenizer, its prompts; exported and encoded."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict

from contrastive_jax import sentence_folder
from contrastive_jax.data.text import tokens
from contrastive_jax.errors import ConfigError, DataError
from contrastive_jax.evaluation import ranking
from contrastive_jax.storage import jsonl, workdir
from experiments import encode, export, retrieval
from experiments.run import command_line, restore, sentence_run
from experiments.run.methods import METHODS
from experiments.scoring import rankings, texts
from tests.experiments import tiny
from tests.experiments.test_text_run import config, train, write_pairs
from tests.test_sentence_folder import random_model

pytestmark = pytest.mark.usefixtures("in_the_repository_of_a_module", "without_a_compilation_cache")
RATE = {"learning_rate": 1e-3}


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    folder = tmp_path_factory.mktemp("start") / "small"
    model = random_model(layers=1, pooling="cls", attention_dropout=0.0, dropout=0.0)
    n_tokens = model.settings["n_tokens"]
    kept = {"pooler.dense.bias": np.ones(16, np.float32)}
    sentence_folder.write(folder, model._replace(pooler=kept), card="")
    assert n_tokens < 100
    return folder


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("data") / "homes.jsonl")


def from_folder(path, start, **encoder):
    values = config(path, optimizer=RATE, train={"steps": 2}, eval={"figures": False})
    return {**values, "encoder": {"name": "bert", "folder": str(start), **encoder}}


@pytest.fixture(scope="module")
def run(path, start, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "homes"
    assert train(folder, from_folder(path, start)) == 0
    return folder


def test_it_starts_at_the_folders_vectors_and_leaves_them(run, start):
    loaded = restore.open_run(run).load()
    target = loaded.run.dataset.texts.test
    theirs = retrieval.vectors_by(start, target)
    scored = ranking.score(rankings.by_cosine(target, *theirs, 6), target.grades, at=(5,))
    rows = workdir.read_json(run / "results" / "summary.json")["evaluations"]
    value = {(r["representation"], r["measure"]): r["value"] for r in rows}
    assert value["untrained", "nDCG@5"] == pytest.approx(scored.values["nDCG@5"].mean())
    ours = texts.both(loaded.run, loaded.run.fresh_state(), target)
    for mine, other in zip(ours, theirs, strict=True):
        other = other / np.linalg.norm(other, axis=1, keepdims=True)
        np.testing.assert_allclose(mine, other, atol=1e-5)
    trained, _ = texts.both(loaded.run, loaded.trained, target)
    assert np.abs(trained - ours[0]).max() > 1e-3


def test_the_config_records_what_the_folder_decided(run, start):
    found = workdir.read_json(run / "config.json")["config"]
    assert (found["encoder"]["dim"], found["encoder"]["pooling"]) == (16, "cls")
    assert found["tokens"]["query_prompt"] == "fox: "
    tokenizer = sentence_folder.read(start).tokenizer_json
    assert (run / "tokenizer.json").read_text() == tokenizer


def test_the_same_command_resumes_to_the_bit(run, path, start, tmp_path):
    values = from_folder(path, start)
    first = {**values, "checkpoint": {"every_steps": 1, "keep": 3}}
    assert train(tmp_path / "again", {**first, "train": {"steps": 1, "log_every": 1}}) == 0
    assert train(tmp_path / "again", first) == 0
    rows = [jsonl.read_jsonl(folder / "metrics.jsonl") for folder in (run, tmp_path / "again")]
    assert [row["step"] for row in rows[1]] == [1, 2]


def test_export_and_encode_give_the_vectors_of_the_run(run, start, tmp_path):
    lines = ["what is the home of foxa", "foxb lives", "whale"]
    (tmp_path / "texts.txt").write_text("\n".join(lines))
    rows = [{"_id": f"d{i}", "title": "", "text": line} for i, line in enumerate(lines)]
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert tiny.main_of(export.main, run, "--to", tmp_path / "out") == 0
    found = {}
    for model, name in ((run, "run"), (tmp_path / "out", "folder")):
        where = ["--input", tmp_path / "texts.jsonl", "--to", tmp_path / f"{name}.npz"]
        assert tiny.main_of(encode.main, model, *where, "--prompt", "query") == 0
        found[name] = np.load(tmp_path / f"{name}.npz")
    assert found["run"]["id"].tolist() == ["d0", "d1", "d2"]
    np.testing.assert_allclose(found["run"]["vector"], found["folder"]["vector"], atol=1e-6)
    tiny.main_of(encode.main, run, "--input", tmp_path / "texts.txt", "--to", tmp_path / "d.npz")
    with np.load(tmp_path / "d.npz") as document:
        assert document["id"].tolist() == ["0", "1", "2"]
        assert np.abs(document["vector"] - found["run"]["vector"]).max() > 1e-3
    read = sentence_folder.read(tmp_path / "out")
    assert read.pooler.keys() == {"pooler.dense.bias"}  # of the folder that it started from
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| started from | small |" in card
    assert "| trained | nDCG@5 |" in card


def test_later_commands_need_the_folder_no_more(run, start, tmp_path, monkeypatch):
    copy = shutil.copytree(run, tmp_path / "copy")
    description = workdir.read_json(copy / "config.json")
    description["config"]["encoder"]["folder"] = str(tmp_path / "gone")
    workdir.write_json(copy / "config.json", description)
    (tmp_path / "texts.txt").write_text("a fox")
    where = ["--input", tmp_path / "texts.txt", "--to", tmp_path / "vectors.npz"]
    assert tiny.main_of(encode.main, copy, *where) == 0
    assert tiny.main_of(export.main, copy, "--to", tmp_path / "out") == 0
    assert sentence_folder.load(tmp_path / "out").encode(["a fox"]).shape == (1, 16)


def test_what_contradicts_the_folder_is_refused(path, start, tmp_path):
    with pytest.raises(ConfigError, match="encoder.dim is 8, and .* is a model of 16; leave it"):
        train(tmp_path / "run", from_folder(path, start, dim=8))
    with pytest.raises(DataError, match="there is no such folder"):
        train(tmp_path / "run", from_folder(path, tmp_path / "no"))


def test_an_export_is_not_written_over_another_model(run, start, tmp_path, monkeypatch):
    folder = shutil.copytree(start, tmp_path / "other")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match="which has files already: 1_Pooling") as refused:
        tiny.main_of(export.main, run, "--to", folder)
    assert refused.value.exit_code == 2
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before

    def full(*args, **settings):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(sentence_folder.folder, "_in_safetensors", full)
        with pytest.raises(OSError, match="No space"):
            tiny.main_of(export.main, run, "--to", tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
    (tmp_path / "new").mkdir()  # an empty folder will do
    assert tiny.main_of(export.main, run, "--to", tmp_path / "new") == 0


@pytest.mark.parametrize("content", ["3", "null", "[]", "{", '{"model_type": 3}'])
def test_a_folder_of_hugging_face_with_a_broken_config_is_refused(start, tmp_path, content):
    folder = shutil.copytree(start, tmp_path / "broken")
    (folder / "modules.json").unlink()
    (folder / "config.json").write_text(content)
    (tmp_path / "texts.txt").write_text("a fox")
    where = ["--input", tmp_path / "texts.txt", "--to", tmp_path / "o.npz"]
    with pytest.raises(DataError, match=r"config.json cannot be used"):
        tiny.main_of(encode.main, folder, *where)


@pytest.mark.parametrize(("section", "key"), [("head", "kind"), ("dual", "towers")])
def test_what_no_folder_holds_is_refused_by_export(run, tmp_path, section, key):
    description = workdir.read_json(run / "config.json")
    description["config"][section][key] = "mlp"
    workdir.write_json(tmp_path / "config.json", description)
    with pytest.raises(ConfigError, match=f"has {section}.{key} 'mlp'; a folder of sentence"):
        tiny.main_of(export.main, tmp_path, "--to", tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("texts.csv", "a", "give a .txt or a .jsonl"),
        ("texts.jsonl", '{"_id": 1, "text": "a"}\n{"_id": 1, "text": "b"}', "id '1' twice"),
        ("texts.jsonl", '{"txt": "a"}', "1 broken lines: line 1"),
        ("texts.txt", "", "has no rows"),
    ],
)
def test_broken_texts_are_refused(start, tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises((ConfigError, DataError), match=message):
        tiny.main_of(encode.main, start, "--input", tmp_path / name, "--to", tmp_path / "o.npz")


def test_other_tensors_than_the_run_began_with_are_refused(path, start, tmp_path):
    folder = shutil.copytree(start, tmp_path / "start")
    assert train(tmp_path / "run", from_folder(path, folder)) == 0
    with pytest.raises(ConfigError, match="the folder that training started from"):
        tiny.main_of(export.main, tmp_path / "run", "--to", folder)
    model = sentence_folder.read(folder)
    changed = {**model.params, "transformer": dict(model.params["transformer"])}
    norm = changed["transformer"]["embedding_norm"]
    changed["transformer"]["embedding_norm"] = {**norm, "scale": norm["scale"] * 1.5}
    sentence_folder.write(folder, model._replace(params=changed), card="")
    with pytest.raises(ConfigError, match="holds other tensors than the run began with"):
        restore.open_run(tmp_path / "run").load().run.fresh_state()
    (tmp_path / "run" / "results" / "summary.json").unlink()
    with pytest.raises(ConfigError, match="folder_sha256"):
        train(tmp_path / "run", from_folder(path, folder))


@pytest.mark.parametrize(
    ("preset", "prompts", "temperature"),
    [
        ("minilm", ("fox: ", ""), 0.05),  # of the folder
        ("e5", ("query: ", "passage: "), 0.01),
        ("bge", ("Represent this sentence for searching relevant passages: ", ""), 0.02),
    ],
)
def test_presets_start_from_a_folder(preset, prompts, temperature, start):
    words = f"--config=configs/pairs.py:{preset}", f"--config.encoder.folder={start}"
    method = METHODS["text"]
    config = command_line.parse(["text", *words], "", method.all_sections()).config
    chosen = method.resolve(config)
    assert (chosen.tokens.query_prompt, chosen.tokens.document_prompt) == prompts
    assert chosen.loss.temperature == temperature
    assert chosen.encoder.pooling == "cls"


def test_word_vectors_are_trained_and_handed_back(path, tmp_path):
    tokenizer, rng = tokens.train(["the home of foxa is part 3"], size=80), np.random.default_rng(0)
    table = rng.normal(size=(tokenizer.size, 6)).astype(np.float32)
    start = {"weight": np.ones(len(table), np.float32), "embedding": {"embedding": table}}
    sizes = {"n_tokens": len(table), "dim": 6, "repeats": 1.0, "scale": "mean"}
    folder = sentence_folder.SentenceFolder(sizes, start, tokenizer.json, 12, encoder="bag")
    sentence_folder.write(tmp_path / "start", folder, card="")
    values = config(path, optimizer=RATE, train={"steps": 2}, eval={"figures": False})
    values["encoder"] = {"name": "bag", "folder": str(tmp_path / "start")}
    page = "--config=configs/pairs.py:static", f"--config.encoder.folder={tmp_path / 'start'}"
    method = METHODS["text"]
    chosen = command_line.parse(["text", *page], "", method.all_sections()).config
    assert method.resolve(chosen).encoder.dim == 6
    with pytest.raises(ConfigError, match="encoder.name is 'bert', and .* is a model for 'bag'"):
        train(tmp_path / "no", {**values, "encoder": {**values["encoder"], "name": "bert"}})
    assert train(tmp_path / "run", values) == 0
    loaded = restore.open_run(tmp_path / "run").load()
    untrained = loaded.run.fresh_state().params["encoder"]
    np.testing.assert_array_equal(untrained["embedding"]["embedding"], table)
    assert tiny.main_of(export.main, tmp_path / "run", "--to", tmp_path / "out") == 0
    found = sentence_folder.load(tmp_path / "out").encode(["home of foxb", "whale"])
    theirs = texts.embed(
        loaded.run, loaded.trained, tokenizer, "document", ["home of foxb", "whale"]
    )
    np.testing.assert_allclose(found, theirs, atol=1e-6)
    assert np.abs(found - sentence_folder.as_model(folder).encode(["home of foxb", "whale"])).max()


def test_the_default_prompt_of_a_folder_stands_before_both_sides(path, start, tmp_path):
    model = sentence_folder.read(start)
    prompted = model._replace(prompts={"search": "find: "}, default_prompt="search")
    sentence_folder.write(tmp_path / "start", prompted, card="")
    assert train(tmp_path / "run", from_folder(path, tmp_path / "start")) == 0
    chosen = restore.open_run(tmp_path / "run").config.tokens
    assert chosen.query_prompt == chosen.document_prompt == "find: "


@pytest.mark.parametrize("name", ["words", "transformer"])
def test_encoders_that_no_sentence_folder_holds_are_refused_by_name(name):
    config = ConfigDict({"encoder": {"name": name}, "head": {"kind": "none"}})
    with pytest.raises(ConfigError, match=f"encoder.name '{name}'"):
        sentence_run.check(SimpleNamespace(folder="runs/a", config=config))  # type: ignore[arg-type]
