"""The mining command: what is written equals a search by hand, and can be read again."""

import json

import numpy as np
import pytest

from contrastive_jax.data.text import pairs
from contrastive_jax.errors import RunError
from contrastive_jax.evaluation import bm25
from contrastive_jax.mining import in_blocks
from experiments import mine, retrieval

QUERIES, DOCUMENTS = 7, 20


@pytest.fixture
def files(tmp_path):
    """Pairs of which query i asks for documents i and i + 10, and vectors of all."""
    rng = np.random.default_rng(0)
    words = [f"word{i}" for i in range(12)]
    documents = [" ".join(rng.choice(words, 5)) + f" own{i}" for i in range(DOCUMENTS)]
    queries = [" ".join(rng.choice(words, 3)) + f" asked{i}" for i in range(QUERIES)]
    rest = documents[QUERIES:10] + documents[QUERIES + 10 :]
    rows = [
        {"query": q, "pos": [documents[i], documents[i + 10]], "neg": rest if i == 0 else []}
        for i, q in enumerate(queries)
    ]
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    target = pairs.collection(path)
    query, document = rng.normal(size=(QUERIES, 4)), rng.normal(size=(DOCUMENTS, 4))
    npz = tmp_path / "v.npz"
    ids = {"query_id": list(target.queries), "document_id": list(target.documents)}
    np.savez(npz, query=query, document=document, **ids)
    return path, npz, target, query, document


def call(files, *words):
    to = files[0].parent / "hard.jsonl"
    command = ["mine", "--data", str(files[0]), "--to", str(to), "--ranks", "1,9", *words]
    assert mine.main(command) == 0
    return [json.loads(line) for line in to.read_text().splitlines()], to


def by_hand(scores, relevant, texts, first, last, limit):
    """Rank one query's documents by loops: (score, text) of ranks [first, last) below a limit."""
    ranked = sorted(
        ((s, t) for s, t in zip(scores, texts, strict=True) if t not in relevant), reverse=True
    )
    return [(s, t) for s, t in ranked[first:last] if s <= limit]


@pytest.mark.parametrize(("flag", "margin"), [(None, 0.0), ("margin", 0.3), ("relative", 0.5)])
def test_negatives_of_vectors_are_those_of_a_search_by_hand(files, monkeypatch, flag, margin):
    monkeypatch.setattr(in_blocks, "AT_ONCE", 3)  # more than one block of queries
    name = {"margin": "--margin", "relative": "--relative_margin"}.get(flag)
    rows, to = call(files, "--by", str(files[1]), *([name, str(margin)] if name else []))
    _, _, target, query, document = files
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (query, document)]
    texts = list(target.documents.values())
    assert [row["query"] for row in rows] == list(target.queries.values())
    for row, cosines in zip(rows, unit[0] @ unit[1].T, strict=True):
        worst = min(cosines[texts.index(text)] for text in row["pos"])
        limits = {None: np.inf, "margin": worst - margin, "relative": worst - abs(worst) * margin}
        expected = by_hand(cosines, row["pos"], texts, 1, 9, limits[flag])[:5]
        assert row["neg"] == [text for _, text in expected]
        np.testing.assert_allclose(row["neg_scores"], [s for s, _ in expected], atol=1e-6)
    report = json.loads(to.with_suffix(".json").read_text())["report"]
    assert report["found"] == pytest.approx(np.mean([len(row["neg"]) / 5 for row in rows]))
    if flag:
        assert report["above_positive"] in (0.0, None)


def test_negatives_of_words_are_those_of_bm25(files):
    rows, to = call(files, "--by", "bm25", "--negatives", "3")
    texts = list(files[2].documents.values())
    index = bm25.Bm25(texts)
    for row, (found, scores) in zip(
        rows, index.search([row["query"] for row in rows], DOCUMENTS), strict=True
    ):
        best = [(s, texts[i]) for i, s in zip(found, scores, strict=True)]
        expected = [(s, text) for s, text in best if text not in row["pos"]][1:9][:3]
        assert row["neg"] == [text for _, text in expected]
        np.testing.assert_allclose(row["neg_scores"], [s for s, _ in expected], rtol=1e-6)
    read = pairs.load(to)
    assert [pair.negatives for pair in read] == [tuple(row["neg"]) for row in rows]
    assert json.loads(to.with_suffix(".json").read_text())["report"]["mean_margin"] is None


@pytest.mark.parametrize("by", ["bm25", "vectors"])
def test_a_sample_is_a_function_of_its_seed(files, by):
    by = ["--by", "bm25" if by == "bm25" else str(files[1]), "--negatives", "3"]
    best, _ = call(files, *by)
    first, _ = call(files, *by, "--sample", "1")
    assert first == call(files, *by, "--sample", "1")[0] != call(files, *by, "--sample", "2")[0]
    assert first != best
    wide, _ = call(files, *by[:2], "--negatives", "8")
    for row, every in zip(first, wide, strict=True):
        assert set(row["neg"]) <= set(every["neg"])
        assert row["neg_scores"] == sorted(row["neg_scores"], reverse=True)


@pytest.mark.parametrize("by", ["bm25", "vectors"])
def test_copies_of_a_positive_and_of_the_query_are_no_negatives(tmp_path, by):
    texts = ["red fox", "a red fox runs", "red fox ", "red", "red whale", "the red one"]
    rows = [{"_id": f"d{i}", "text": text} for i, text in enumerate(texts)]
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "red"}))
    (tmp_path / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq\td0\t1\n")
    ids = {"query_id": ["q"], "document_id": [row["_id"] for row in rows]}
    np.savez(tmp_path / "v.npz", query=np.ones((1, 2)), document=np.ones((6, 2)), **ids)
    to, system = tmp_path / "hard.jsonl", "bm25" if by == "bm25" else str(tmp_path / "v.npz")
    words = ["--data", str(tmp_path), "--by", system, "--to", str(to), "--ranks", "0,6"]
    assert mine.main(["mine", *words]) == 0
    [row] = map(json.loads, to.read_text().splitlines())
    assert sorted(row["neg"]) == ["a red fox runs", "red whale", "the red one"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--by", "bm26"], "--by is 'bm26'"),
        (["--by", "bm25", "--margin", "0.1"], "Margins are of vectors"),
        (["--by", "bm25", "--negatives", "9"], "--negatives 9"),
        (["--by", "bm25", "--ranks", "3"], "--ranks"),
        (["--by", "bm25", "--ranks", "0,90"], "above the 20 documents"),
        (["--by", "bm25", "--split", "train"], "leave it out"),
        (["--by", "bm25", "--sample", "-1"], "--sample is -1"),
        (["--by", "bm25", "--to", "hard.txt"], ".jsonl"),
        (["--by", "bm25", "--to", "{data}"], "a file that is read"),
        ([], "--by"),
    ],
)
def test_a_command_that_cannot_be_meant_is_refused(files, words, message):
    words = [word.format(data=files[0]) for word in words]
    with pytest.raises(RunError, match=message) as caught:
        call(files, *words)
    assert caught.value.exit_code == 2


def test_no_file_of_a_folder_that_is_read_is_overwritten(tmp_path):
    (tmp_path / "corpus.jsonl").touch()
    with pytest.raises(RunError, match="a file that is read"):
        retrieval.check_target(tmp_path / "corpus.jsonl", ".jsonl", str(tmp_path))
    retrieval.check_target(tmp_path / "hard.jsonl", ".jsonl", str(tmp_path))
