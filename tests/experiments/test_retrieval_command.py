"""The retrieval command on a small collection: systems, tests, and what it refuses."""

import json
import shutil

import numpy as np
import pytest

from contrastive_jax.data.text import collection
from contrastive_jax.errors import RunError
from experiments import retrieval

DOCUMENTS = {"d1": "red fox", "d2": "blue whale", "d3": "green frog", "d4": "gray wolf"}
QUERIES = {"q1": "the fox", "q2": "whale", "q3": "a green animal", "q4": "wolf of the woods"}


@pytest.fixture
def folder(tmp_path):
    """A collection in the layout of BEIR; query i is about document i."""
    root = tmp_path / "animals"
    (root / "qrels").mkdir(parents=True)
    rows = [{"_id": key, "title": "", "text": text} for key, text in DOCUMENTS.items()]
    (root / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    rows = [{"_id": key, "text": text} for key, text in QUERIES.items()]
    (root / "queries.jsonl").write_text("\n".join(map(json.dumps, rows)))
    judged = [f"q{i}\td{i}\t1" for i in range(1, 5)]
    (root / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *judged]))
    return root


def call(*words):
    return retrieval.main(["retrieval", *map(str, words)])


def vectors(path, **changed):
    """Vectors by which query i is nearest to document i, and as near to the next."""
    x = np.eye(4, dtype=np.float32)
    arrays = {
        "query_id": np.array(list(QUERIES)),
        "query": x + np.roll(x, 1, axis=1),
        "document_id": np.array(list(DOCUMENTS)),
        "document": x,
    }
    np.savez(path, **{k: v for k, v in {**arrays, **changed}.items() if v is not None})
    return path


def test_systems_are_scored_compared_and_written(folder, tmp_path, capsys):
    run = tmp_path / "run.trec"
    run.write_text("q1 Q0 d2 1 0.9 x\nq1 Q0 d1 2 0.8 x\nq2 Q0 d2 1 0.5 x\n")
    target = tmp_path / "scores.json"
    npz = vectors(tmp_path / "v.npz")
    assert call("--data", folder, "--at", "2,3", "bm25", npz, run, "--to", target) == 0
    shown = capsys.readouterr().out
    assert "4 queries, 4 documents" in shown
    assert "2 queries unanswered" in shown
    written = json.loads(target.read_text())
    bm25 = written["systems"]["bm25"]
    assert bm25["by_query"]["nDCG@2"] == [1.0, 1.0, 1.0, 1.0]
    # rows are [1, 1, 0, 0]: of equal similarities the larger id, which is relevant only to q4
    discounted = 1 / np.log2(3)
    expected = [discounted] * 3 + [1.0]
    np.testing.assert_allclose(written["systems"][str(npz)]["by_query"]["nDCG@2"], expected)
    expected = [discounted, 1.0, 0.0, 0.0]
    np.testing.assert_allclose(written["systems"][str(run)]["by_query"]["nDCG@2"], expected)
    against = written["comparisons"][1]
    assert (against["first"], against["second"]) == ("bm25", str(run))
    assert {row["text"] for row in against["harmed"]} == set(QUERIES.values()) - {"whale"}
    assert against["improved"] == []


HEAD = "query-id\tcorpus-id\tscore\n"
BAD_FILES = {
    "not JSON": ("corpus.jsonl", '{"_id": "d1", "text": "a"}\n{"_id"\n', "line 2 (not JSON"),
    "no text": ("queries.jsonl", '{"_id": "q1"}\n', "line 1 (no 'text')"),
    "no id": ("queries.jsonl", '{"text": "a"}\n', "line 1 (no '_id')"),
    "another id": ("queries.jsonl", '{"_id": ["q1"], "text": "a"}\n', "line 1 ('_id' is no text)"),
    "no object": ("queries.jsonl", "[]\n", "not a JSON object"),
    "empty": ("corpus.jsonl", "\n", "no rows"),
    "twice": ("corpus.jsonl", '{"_id": "a", "text": "x"}\n' * 2, "lines 1 and 2"),
    "no document": ("qrels/test.tsv", HEAD + "q1\td9\t1\n", "1 documents that are not there"),
    "no query": ("qrels/test.tsv", HEAD + "q9\td1\t1\n", "1 queries that are not there"),
    "no positive": ("qrels/test.tsv", HEAD + "q1\td1\t0\n", "no relevant document: 'q1'"),
    "columns": ("qrels/test.tsv", HEAD + "q1 d1 1\n", "line 2 (1 columns"),
    "grade": ("qrels/test.tsv", HEAD + "q1\td1\thigh\n", "'high' is no integer"),
    "two grades": (
        "qrels/test.tsv",
        HEAD + "q1\td1\t1\nq1\td1\t1\nq1\td1\t2\n",
        "line 4: 'd1' has the scores 1 and 2 for 'q1'",
    ),
    "headings only": ("qrels/test.tsv", HEAD, "no judgements"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_broken_collection_is_refused_by_line(case, folder):
    name, text, message = BAD_FILES[case]
    (folder / name).write_text(text)
    refused(3, message, "--data", folder, "bm25")


def refused(code, message, *words):
    with pytest.raises(RunError) as caught:
        call(*words)
    assert message in str(caught.value)
    assert (caught.value.exit_code, len(str(caught.value).splitlines()) <= 3) == (code, True)


def test_texts_that_are_not_utf8_and_folders_that_are_not_there_are_refused(folder):
    refused(3, "Splits with judgements: test", "--data", folder, "--split", "dev", "bm25")
    (folder / "corpus.jsonl").write_bytes(b'{"_id": "d1", "text": "\xff"}\n')
    refused(3, "line 1 (not UTF-8)", "--data", folder, "bm25")
    (folder / "corpus.jsonl").unlink()
    refused(3, "cannot be read", "--data", folder, "bm25")
    shutil.rmtree(folder)
    refused(3, "no folder", "--data", folder, "bm25")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["bm26"], "no system"),
        (["bm25", "bm25"], "twice"),
        (["bm25", "--at", "5"], "above the 4 documents"),
        (["bm25", "--at", "ten"], "--at"),
        (["bm25", "--measure", "nDGC"], "did you mean 'nDCG'"),
        ([], "systems"),
    ],
)
def test_a_command_line_that_cannot_be_meant_is_refused(folder, words, message):
    refused(2, message, "--data", folder, *words)


NAN = np.full((4, 4), np.nan, np.float32)
BAD_VECTORS = {
    "lacks document_id": {"document_id": None},
    "are not finite, the first is 'q1'": {"query": NAN},
    "1 ids are there twice, 1 have no vector": {"query_id": np.array(["q1", "q1", "q2", "q3"])},
    "Give both as many": {"query": np.eye(4, 3)},
    "one row an id": {"document": np.eye(3)},
    "(4, 0) with 4 ids": {"query": np.ones((4, 0)), "document": np.ones((4, 0))},
}


def torn(path):
    path.write_bytes(path.read_bytes()[:300])


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def of_one_array(path):
    with path.open("wb") as file:
        np.save(file, np.eye(3))


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [torn, flipped, of_one_array, empty])
def test_files_that_are_no_whole_npz_are_refused(damage, folder, tmp_path):
    path = vectors(tmp_path / "v.npz")
    damage(path)
    message = "it has nothing" if damage is of_one_array else "is no whole .npz"
    refused(3, message, "--data", folder, "--at", "2", path)


@pytest.mark.parametrize("message", BAD_VECTORS)
def test_bad_vectors_are_refused(message, folder, tmp_path):
    path = vectors(tmp_path / "v.npz", **BAD_VECTORS[message])
    refused(3, message, "--data", folder, "--at", "2", path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q1 d1 1", "3 columns"),
        ("q1 Q0 d1 1 high x", "line 1 (the score 'high' is not a number)"),
        ("q9 Q0 d1 1 1 x", "has none of the queries, but ['q9']"),
        ("q1 Q0 d1 1 nan x", "not a number"),
        ("q1 Q0 d1 1 2 x\nq1 Q0 d1 2 1 x", "line 2: document 'd1' is there twice"),
    ],
)
def test_bad_run_files_are_refused(line, message, folder, tmp_path):
    path = tmp_path / "run.trec"
    path.write_text(line)
    refused(3, message, "--data", folder, "--at", "2", path)


def test_a_file_of_pairs_is_a_collection(folder, tmp_path, capsys):
    path = tmp_path / "mine.jsonl"
    rows = [
        {"query": q, "pos": [d]} for q, d in zip(QUERIES.values(), DOCUMENTS.values(), strict=True)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert call("--data", path, "--at", "2", "bm25") == 0
    assert "mine all: 4 queries, 4 documents\n" in capsys.readouterr().out
    refused(2, "leave it out", "--data", path, "--split", "test", "bm25")
    refused(2, "'pakage'", "--data", "docstrings:pakage", "bm25")


def test_what_is_odd_is_counted(folder):
    (folder / "corpus.jsonl").write_text(
        '{"_id": "d1", "text": "the fox"}\n{"_id": "d2", "text": ""}\n'
        '{"_id": "d3", "title": "the", "text": "fox"}\n{"_id": "d4", "text": "x"}\n'
    )
    notes = collection.load(folder).notes
    assert notes == (
        "1 documents are empty",
        "1 documents have the text of an earlier one",
        "1 queries equal a document that is judged for them",
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--split", "dev"), "--split is of --data"),
        (("--at", "10"), "--at is of --data"),
        (("--measure", "MRR"), "--measure is of --data"),
        (("--query", "a", "--to", "scores.json"), "--to is for scores"),
    ],
)
def test_flags_that_a_run_on_captions_does_not_read_are_refused(tmp_path, words, message):
    with pytest.raises(RunError, match=message):
        call(tmp_path, *words)
