"""Runs on captioned images of a list: every text tower, frozen towers, resumes, what is refused."""

import collections
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from contrastive_jax import sentence_folder
from contrastive_jax.data import Dataset
from contrastive_jax.errors import ConfigError, DataError
from contrastive_jax.storage import workdir
from experiments import evaluate, export
from experiments.run import command_line, lifecycle, restore
from experiments.run.methods import METHODS
from tests.experiments import tiny
from tests.test_sentence_folder import random_model

pytestmark = pytest.mark.usefixtures("in_the_repository_of_a_module", "without_a_compilation_cache")
COLORS = {"red": (200, 0, 0), "blue": (0, 0, 200), "green": (0, 200, 0)}
TEXT = {
    "words": {"name": "words", "width": 4, "hidden_dim": 4},
    "bag": {"name": "bag", "dim": 4},
    "transformer": {"name": "transformer", "dim": 8, "layers": 1, "heads": 2, "context": 6},
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A list of 30 photos with one or two captions."""
    folder = tmp_path_factory.mktemp("photos")
    rng, rows = np.random.default_rng(0), []
    for i in range(30):
        name = tuple(COLORS)[i % 3]
        noise = rng.integers(0, 50, (10, 12, 3)) + np.array(COLORS[name])
        Image.fromarray(noise.astype(np.uint8)).save(folder / f"{i}.png")
        texts = [f"a {name} square, number {i}", f"{i} is {name}"]
        rows.append({"image": f"{i}.png", "texts": texts[: 1 + i % 2]})
    path = folder / "photos.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def config(path, text, **sections):
    values = tiny.config("clip", path)
    data = {"source": "captions", "path": str(path), "batch_size": 8, "image_size": 8}
    data |= {"context": text["context"]} if "context" in text else {}
    values |= {"data": data, "text": text}
    values["eval"] = {**values["eval"], "figures": False}
    return {**values, **sections}


def train(folder, values, *arguments):
    path = tiny.write_config(folder.with_suffix(".py"), values)
    argv = ["clip", f"--config={path}", f"--workdir={folder}", *arguments]
    return lifecycle.main(METHODS["clip"], argv)


def recall(folder):
    rows = workdir.read_json(folder / "results" / "summary.json")["evaluations"]
    return [row["value"] for row in rows if "image to text" in str(row)]


@pytest.mark.parametrize("name", TEXT)
def test_every_text_tower_learns_and_resumes_bit_for_bit(photos, tmp_path, name, capsys):
    values, whole = config(photos, TEXT[name]), tmp_path / "whole"
    assert train(whole, values) == 0
    assert recall(whole)
    folder = shutil.copytree(whole, tmp_path / "again")
    shutil.rmtree(folder / "checkpoints" / "2")
    shutil.rmtree(folder / "results")
    rows = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text(rows[0])
    assert train(folder, values) == 0
    assert "resumed from step 1" in capsys.readouterr().out
    assert (folder / "metrics.jsonl").read_text() == "".join(rows)
    ends = [workdir.read_json(f / "results" / "summary.json") for f in (folder, whole)]
    assert ends[0]["state_sha256"] == ends[1]["state_sha256"]


def test_labeled_images_are_captioned_by_prompts_and_scored(tmp_path):
    values = tiny.config("clip", tiny.write_arrays(tmp_path / "a.npz", text=None, test_text=None))
    values["data"] |= {"prompts": ("a photo of a {}", "one {}")}
    values["eval"] |= {"figures": False, "baselines": False}
    folder = tmp_path / "run"
    assert train(folder, values) == 0
    rows = workdir.read_json(folder / "results" / "summary.json")["evaluations"]
    [row] = [row for row in rows if row["protocol"]["name"] == "zero-shot"]
    assert (row["chance"], row["n"]) == (1 / 3, 12)
    galleries = {row["protocol"]["gallery"] for row in rows if "gallery" in row["protocol"]}
    assert galleries == {3 * 2, 12}


def test_a_streamed_list_is_scored_as_one_in_memory(photos, tmp_path):
    scores = []
    for streaming in (False, True):
        values = config(photos, TEXT["words"])
        values["data"]["streaming"] = streaming
        values["augment"] = {**values["augment"], "crop_probability": 1.0}
        folder = tmp_path / str(streaming)
        assert train(folder, values) == 0
        rows = workdir.read_json(folder / "results" / "summary.json")["evaluations"]
        scores.append({str(row["protocol"].get("task")) for row in rows})
    assert "image to text, test" in scores[0] & scores[1]


def test_captions_longer_than_the_text_tower_reads_are_refused(photos, tmp_path):
    values = config(photos, TEXT["transformer"])
    values["data"]["context"] = 7
    with pytest.raises(ConfigError, match=r"7 tokens \(data.context\), and the text tower reads 6"):
        train(tmp_path / "run", values)


def test_other_images_keep_the_words_and_the_tokenizer_of_the_run():
    Run = collections.namedtuple("Run", "dataset")
    image = {"image": np.zeros((2, 4, 4, 3), np.uint8)}
    own = Dataset("own", image, image, (), vocabulary=("", "a"), tokenizer="that of the run")
    found = evaluate._on_other_data(Run(own), Dataset("other", image, image, ("x",)))
    assert found.dataset.name == "other"
    assert (found.dataset.vocabulary, found.dataset.tokenizer) == (("", "a"), "that of the run")


def test_a_text_tower_starts_from_a_folder_with_its_tokenizer(photos, tmp_path):
    start = tmp_path / "start"
    model = random_model(layers=1, pooling="mean", attention_dropout=0.0, dropout=0.0)
    sentence_folder.write(start, model, card="")
    folder, values = tmp_path / "run", config(photos, {"name": "bert", "folder": str(start)})
    values["data"]["context"] = 20  # that of the model
    assert train(folder, values) == 0
    assert (folder / "tokenizer.json").read_text() == sentence_folder.read(start).tokenizer_json
    loaded = restore.open_run(folder).load()
    fresh = loaded.run.fresh_state().params["text"]
    theirs = sentence_folder.read(start).params
    assert all(np.array_equal(a, b) for a, b in zip(*map(_leaves, (fresh, theirs)), strict=True))
    encoded = loaded.run.dataset.tokenizer.encode(["a red square"], 64).tokens_NL[0]
    assert any((row[: len(encoded)] == encoded).all() for row in loaded.run.dataset.train["tokens"])
    shutil.rmtree(start)
    assert restore.open_run(folder).load_without_data().step == 2


def _leaves(tree):
    import jax

    return jax.tree.leaves(tree)


def test_an_image_tower_of_another_run_is_locked_and_scored(photos, tmp_path):
    first = tmp_path / "first"
    assert train(first, config(photos, TEXT["words"])) == 0
    assert tiny.main_of(export.main, first, "--to", tmp_path / "out") == 0
    [file] = (tmp_path / "out").rglob("*.safetensors")
    values = config(photos, TEXT["words"])
    values["encoder"] = {**values["encoder"], "init": str(file)}
    values["optimizer"] = {"name": "adamw", "weight_decay": 0.1, "frozen": "encoder/"}
    folder = tmp_path / "lit"
    assert train(folder, values) == 0
    before, after = (restore.open_run(run).load().trained for run in (first, folder))
    for of in (lambda s: s.params["encoder"], lambda s: s.model_state["encoder"]):
        for a, b in zip(_leaves(of(before)), _leaves(of(after)), strict=True):
            np.testing.assert_array_equal(a, b)
    assert tiny.main_of(evaluate.main, folder, "--protocols=knn") in (0, 3)  # without labels


def test_chunks_change_nothing_but_memory(photos, tmp_path):
    head = {"kind": "linear", "output_dim": 4}
    vit = {"name": "vit", "patch_size": 4, "dim": 8, "layers": 1, "heads": 2}  # no statistics
    losses = []
    for chunk_size in (None, 8):  # a multiple of the devices
        settings = {"steps": 2, "log_every": 1, "chunk_size": chunk_size}
        sections = {"head": head, "encoder": vit, "train": settings}
        values = config(photos, TEXT["transformer"], **sections)
        values["data"]["batch_size"] = 16
        folder = tmp_path / f"of_{chunk_size}"
        assert train(folder, values, "--config.eval.baselines=False") == 0
        rows = (folder / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(row)["loss"] for row in rows])
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_a_list_with_a_missing_image_stops_before_training(photos, tmp_path, capsys):
    rows = photos.read_text().splitlines()
    rows[4] = json.dumps({"image": "gone.png", "text": "a red square, number 4"})
    path = photos.with_name("broken.jsonl")
    path.write_text("\n".join(rows))
    with pytest.raises(SystemExit) as stopped, command_line.exit_codes():
        train(tmp_path / "run", config(path, TEXT["words"]))
    assert stopped.value.code == 3
    error = capsys.readouterr().err
    assert "gone.png (line 5 of broken.jsonl)" in error
    assert len(error.strip().splitlines()) <= 3
    with pytest.raises(DataError, match="has 40 places|in common|cannot read"):
        train(tmp_path / "other", config(path, TEXT["words"]))
