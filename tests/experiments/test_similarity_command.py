"""The similarity command: three kinds of tables, two systems, and what it refuses."""

import csv
import json

import numpy as np
import pytest

from contrastive_jax import sentence_folder
from contrastive_jax.errors import RunError
from contrastive_jax.evaluation import sentence_pairs
from experiments import similarity
from tests.test_sentence_folder import random_model

FIRST = ["a red fox", "the whale", "fox", "blue", "red whale", "the blue fox"]
SECOND = ["the fox", "a blue whale", "whale", "blue", "fox fox", "red"]
ROWS = {
    "score": [("sentence1", "sentence2", "score"), (4.5, 0, 1, 5, 2.5, 1)],
    "label": [("sentence1", "sentence2", "label"), (1, 0, 0, 1, 0, 1)],
    "triplets": [("anchor", "positive", "negative"), SECOND[::-1]],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "small"
    sentence_folder.write(folder, random_model(layers=1), card="")
    return folder


def table(path, kind):
    headings, third = ROWS[kind]
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerows([headings, *zip(FIRST, SECOND, third, strict=True)])
    return path


def call(*words):
    return similarity.main(["similarity", *map(str, words)])


@pytest.mark.parametrize("kind", ROWS)
def test_scores_are_those_of_the_models_own_vectors(kind, model, tmp_path, capsys):
    to = tmp_path / "scores.json"
    assert call("--data", table(tmp_path / "sts.tsv", kind), model, "--to", to) == 0
    loaded, third = sentence_folder.load(model), ROWS[kind][1]
    sides = ("document", "document") if kind == "triplets" else ("query", None)
    first, second = loaded.encode(FIRST, "query"), loaded.encode(SECOND, sides[0])
    columns = [sentence_pairs.cosines(first, second)]
    if kind == "triplets":
        columns += [sentence_pairs.cosines(first, loaded.encode(third, "document"))]
    else:
        columns += [np.array(third)]
    name = {"score": "similarity", "label": "classes"}.get(kind, kind)
    expected = sentence_pairs.score(name, *columns)
    written, shown = json.loads(to.read_text()), capsys.readouterr().out
    assert written["data"] == {"name": "sts", "kind": name, "rows": 6}
    for measure, found in written["systems"][str(model)].items():
        assert found["value"] == pytest.approx(expected[measure].value, abs=1e-9)
        assert found["ci95"] == pytest.approx(expected[measure].interval[:2], abs=1e-9)
        assert f"{measure}  {found['value']:.4f}" in shown


def refused(code, message, *words):
    with pytest.raises(RunError) as caught:
        call(*words)
    assert message in str(caught.value)
    assert (caught.value.exit_code, str(caught.value).count("\n") < 3) == (code, True)


HEAD = "sentence1\tsentence2\tscore\n"
BROKEN = {
    "its headings are 'a', 'b'": "a\tb\nx\ty\n",
    "line 3 ('score' is 'high', no number)": HEAD + "x\ty\t1\nx\ty\thigh\n",
    "line 2 ('score' is 'nan', no number)": HEAD + "x\ty\tnan\n",
    "line 2 ('label' is '2', neither 0 nor 1)": HEAD.replace("score", "label") + "x\ty\t2\n",
    "line 2 ('sentence2' is empty)": HEAD + "x\t \t1\n",
    "every score is 1": HEAD + "x\ty\t1\nz\ty\t1\n",
    "has no rows": HEAD,
}


@pytest.mark.parametrize("message", BROKEN)
def test_broken_tables_are_refused(message, model, tmp_path):
    path = tmp_path / "sts.tsv"
    path.write_text(BROKEN[message])
    refused(3, message, "--data", path, model)


def test_a_command_that_cannot_be_meant_is_refused(model, tmp_path):
    path = table(tmp_path / "sts.tsv", "score")
    refused(2, "is no folder", "--data", path, "bm25")
    refused(2, "holds no run", "--data", path, tmp_path)
    refused(2, "give a .json file", "--data", path, model, "--to", tmp_path / "scores.txt")
    refused(3, "is no table", "--data", tmp_path / "sts.jsonl", model)
