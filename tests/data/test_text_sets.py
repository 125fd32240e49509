"""Texts become tokens and pairs: the same ones every time, what belongs together under one id."""

import json

import numpy as np
import pytest

from contrastive_jax import data
from contrastive_jax.data.text import sets, sources, tokens
from contrastive_jax.errors import DataError

WORDS = "red blue green fox whale bird runs swims flies small large".split()


def write_pairs(path, n=30, negatives=True):
    rng, rows = np.random.default_rng(0), []
    for i in range(n):
        words = [WORDS[j] for j in rng.integers(0, len(WORDS), 6)]
        row = {"query": f"what {' '.join(words[:3])} {i}", "pos": [f"{' '.join(words)} {i}"]}
        if negatives and i % 3:
            row["neg"] = [f"other {j} of {i}" for j in range(i % 3)]
        rows.append(row)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def path(tmp_path):
    return write_pairs(tmp_path / "mine.jsonl")


def make(path, n_negatives=0, **options):
    corpus = sources.read("pairs", path=path, **options)
    return sets.dataset(corpus, sets.settings(80, 8, 12), batch_size=4, n_negatives=n_negatives)


def test_a_vocabulary_is_a_function_of_the_texts_alone():
    texts = [f"{a}{b}{c}" for a in "abcd" for b in "efgh" for c in "ijkl"] * 2  # nothing but ties
    assert len({tokens.train(texts, 40).json for _ in range(4)}) == 1
    assert tokens.train(texts, 40).size <= 40


def test_padding_and_truncation_of_the_file_are_not_applied():
    from tokenizers import Tokenizer

    plain = tokens.train(["a red fox", "a blue whale"], 60)
    inner = Tokenizer.from_str(plain.json)
    inner.enable_padding(length=9, pad_id=0)
    inner.enable_truncation(2)
    found, wanted = (t.encode(["a red fox", ""], 8) for t in (tokens.read(inner.to_str()), plain))
    assert found.tokens_NL.shape == (2, 3)
    assert found.length_N.tolist() == [3, 1]
    np.testing.assert_array_equal(found.tokens_NL, wanted.tokens_NL)


def test_tokens_are_those_of_the_library_text_by_text():
    from tokenizers import Tokenizer

    trained = tokens.train(["a red fox", "whales swim"], 60)
    inner = Tokenizer.from_str(trained.json)
    texts = ["red whales", "a foxWhale_red naive", "swimming", "x" * 30]
    rows = trained.encode(texts, 6, prompt="a ")
    for text, row, length in zip(texts, *rows, strict=True):
        ids = inner.encode("a " + text).ids[:6]
        assert row[:length].tolist() == ids
        assert not row[length:].any()
    assert rows.tokens_NL.dtype == np.uint16


def test_what_is_no_tokenizer_is_named(tmp_path):
    (tmp_path / "tokenizer.json").write_text("[]")
    with pytest.raises(DataError, match=r"tokenizer\.json is no tokenizer"):
        tokens.read(tmp_path / "tokenizer.json")
    with pytest.raises(DataError, match="cannot be read"):
        tokens.read(tmp_path / "none.json")


def test_the_same_texts_have_the_same_identity_and_others_another(path):
    first, second = data.identity(make(path)), data.identity(make(path))
    assert first == second
    assert first["train"] == 27
    assert first["test"] == 3
    assert "image_shape" not in first
    rows = path.read_text().splitlines()
    path.write_text("\n".join([rows[0].replace("what", "why"), *rows[1:]]))
    assert data.identity(make(path))["sha256"] != first["sha256"]


def test_a_query_is_in_one_split_only(path):
    corpus = sources.read("pairs", path=path, validation_split="any", test_fraction=0.2)
    parts = [
        {pair.query for pair in corpus.train},
        set(corpus.test.queries.values()),
        set(corpus.validation.queries.values()),
    ]
    assert [len(part) for part in parts] == [18, 6, 6]
    assert len(set.union(*parts)) == 30
    assert len(corpus.test.documents) == 60  # all that the file holds


def test_negatives_are_padded_and_masked(path):
    dataset = make(path, n_negatives=3)
    train = dataset.train
    count = train["negatives_mask"].sum(axis=1)
    assert set(count.tolist()) == {0, 1, 2}
    assert train["negatives"].shape[:2] == (27, 3)
    batch = data.feed(train, 4, seed=0).batch_at(0)
    assert batch["index"].shape == (4,)
    with pytest.raises(DataError, match="has no negatives"):
        make(write_pairs(path, negatives=False), n_negatives=1)


def test_pairs_that_share_a_query_or_a_document_share_an_id(tmp_path):
    rows = [("a", ["x", "y"]), ("b", ["y"]), ("c", ["z"]), ("d", ["w"])]
    negatives = {"c": ["x", "nobody's"]}
    lines = [{"query": q, "pos": p, "neg": negatives.get(q, [])} for q, p in rows] * 2
    path = tmp_path / "few.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    corpus = sources.read("pairs", path=path)
    corpus = corpus._replace(train=[*corpus.train, *corpus.train])  # repeats are dropped
    held_out = set(corpus.test.queries.values())
    dataset = sets.dataset(corpus, sets.settings(80), batch_size=2, n_negatives=2)
    named = [(q, d) for q, p in rows if q not in held_out for d in p]
    id_of = dict(zip(named, dataset.train["id"].tolist(), strict=True))
    same = [("a", "x"), ("a", "y"), ("b", "y")]
    groups = [{id_of[pair] for pair in same if pair in id_of}]
    groups += [{id_of[pair]} for pair in id_of if pair not in same]
    assert all(len(group) <= 1 for group in groups)
    assert len(set.union(*groups)) == sum(map(len, groups))
    if "c" not in held_out and "a" not in held_out:
        row = named.index(("c", "z"))
        first, second = dataset.train["negatives_id"][row].tolist()
        assert first == id_of["a", "x"]  # of another query's document
        assert second not in id_of.values()


def test_mined_negatives_join_the_pairs_of_their_query(path, tmp_path):
    corpus = sources.read("pairs", path=path)
    hard = tmp_path / "hard.jsonl"
    chosen = corpus.train[:5]
    lines = [{"query": p.query, "pos": p.positives, "neg": ["mined"]} for p in chosen]
    hard.write_text("".join(json.dumps(line) + "\n" for line in lines))
    joined = sources.read("pairs", path=path, negatives_path=hard)
    assert [p.negatives[0] for p in joined.train[:5]] == ["mined"] * 5
    assert joined.train[5:] == corpus.train[5:]
    assert joined.test == corpus.test
    hard.write_text(json.dumps({"query": "none", "pos": "a", "neg": "b"}))
    with pytest.raises(DataError, match="no negatives of the 27 training pairs"):
        sources.read("pairs", path=path, negatives_path=hard)


def test_leaks_are_counted(tmp_path):
    for name in ("corpus", "queries"):
        rows = [{"_id": f"{name[0]}{i}", "text": f"{name} {i % 3}"} for i in range(4)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "qrels").mkdir()
    for split, lines in {"train": "q0\tc0\t1\n", "test": "q3\tc3\t1\nq1\tc1\t2\n"}.items():
        (tmp_path / "qrels" / f"{split}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{lines}")
    notes = sources.read("beir", path=tmp_path).notes
    assert "1 test queries are training queries" in notes
    assert "1 test queries have a relevant document that answers a training query" in notes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "csv"}, "data.source is 'csv'"),
        ({"source": "pairs"}, "give a file of pairs"),
        ({"source": "docstrings", "path": "x"}, "leave it out"),
        ({"source": "docstrings", "limit_test": 0}, "limit_test is 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        sources.read(**options)


@pytest.mark.parametrize("fraction", [0.0, 0.99, 1.0])
def test_a_split_leaves_some_to_train_on(path, fraction):
    with pytest.raises(ValueError, match="leave some to train on"):
        sources.read("pairs", path=path, test_fraction=fraction)


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_spaces_around_a_text_make_no_other_text(tmp_path):
    rows = [
        {"query": f"q {i}{' ' * j}", "pos": [f"a {i}{' ' * j}"]} for i in range(9) for j in (0, 1)
    ]
    corpus = sources.read("pairs", path=write_rows(tmp_path / "few.jsonl", rows), test_fraction=0.3)
    assert not {pair.query for pair in corpus.train} & set(corpus.test.queries.values())
    assert len(corpus.test.documents) == 9


def test_pairs_that_are_all_joined_are_refused_and_many_are_said(tmp_path):
    rows = [{"query": f"q {i}", "pos": [f"a {i}", "the manual"]} for i in range(12)]
    with pytest.raises(DataError, match="none has a negative"):
        make(write_rows(tmp_path / "hub.jsonl", rows))
    rows += [{"query": f"p {i}", "pos": [f"b {i}"]} for i in range(12)]
    found = make(write_rows(tmp_path / "part.jsonl", rows)).texts
    assert any("are no negatives of one another" in note for note in found.notes)


def test_negatives_that_answer_test_queries_are_counted_and_give_no_vocabulary(tmp_path):
    rows = [{"query": f"q {i}", "pos": [f"answer {i}"]} for i in range(20)]
    path = write_rows(tmp_path / "few.jsonl", rows)
    asked = sources.read("pairs", path=path).test
    answer = next(iter(asked.documents[d] for judged in asked.grades.values() for d in judged))
    trained = next(row for row in rows if row["query"] not in asked.queries.values())
    mined = [{**trained, "neg": [answer, "zebra"]}]
    corpus = sources.read(
        "pairs", path=path, negatives_path=write_rows(tmp_path / "m.jsonl", mined)
    )
    assert any("is a training negative" in note for note in corpus.notes)
    found = sets.dataset(corpus, sets.settings(80, 8, 12), batch_size=4, n_negatives=2)
    assert '"z"' not in found.texts.tokenizer.json


def test_half_a_character_is_a_broken_line(tmp_path):
    path = tmp_path / "cut.jsonl"
    path.write_text('{"query": "a", "pos": ["b"]}\n{"query": "c \\ud83d", "pos": ["d"]}\n')
    with pytest.raises(DataError, match=r"line 2 \(half of a character"):
        sources.read("pairs", path=path)


def test_lengths_that_hold_special_tokens_alone_are_refused(path):
    from tokenizers import Tokenizer, models, processors

    inner = Tokenizer(models.WordLevel({"[PAD]": 0, "[CLS]": 1, "[SEP]": 2}, unk_token="[PAD]"))
    ends = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    inner.post_processor = ends
    corpus, chosen = sources.read("pairs", path=path), sets.settings(80, 2, 12)
    with pytest.raises(ValueError, match="tokens.query_length is 2, .* give at least 3"):
        sets.dataset(corpus, chosen, batch_size=4, tokenizer=tokens.Tokenizer(inner.to_str()))
