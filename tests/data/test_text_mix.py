"""Several text sets in one run: which queries are held out, and what two sets share."""

import json
from pathlib import Path

import numpy as np
import pytest

from contrastive_jax import data
from contrastive_jax.data.text import sets, sources
from contrastive_jax.errors import DataError


def write(path, name, n=20, **columns):
    rows = [
        {"query": f"{name} asks {i}", "pos": [f"{name} answers {i}"]}
        | {key: value(i) for key, value in columns.items()}
        for i in range(n)
    ]
    return write_rows(path, rows)


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def write_beir(folder):
    (folder / "qrels").mkdir(parents=True)
    same = [{"_id": "x", "text": "faq answers 3 "}, {"_id": "q", "text": "wiki asks"}]
    more = [{"_id": f"w{i}", "text": f"wiki answers {i}"} for i in range(9)]
    asked = [{"_id": f"w{i}", "text": f"wiki asks {i}"} for i in range(9)]
    write_rows(folder / "corpus.jsonl", same + more)
    write_rows(folder / "queries.jsonl", [{"_id": "q", "text": "wiki asks"}, *asked])
    train = "".join(f"w{i}\tw{i}\t1\n" for i in range(8))
    for split, lines in {"train": train, "test": "w8\tw8\t2\nq\tw8\t1\nq\tx\t1\n"}.items():
        (folder / "qrels" / f"{split}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{lines}")
    return str(folder)


@pytest.fixture
def paths(tmp_path):
    return (
        write(tmp_path / "faq.jsonl", "faq"),
        write(tmp_path / "forum.jsonl", "forum", 12),
        write_beir(tmp_path / "wiki"),
    )


def make(paths, batch_size=4, options=None, **mixed):
    corpus = sources.read("mix", path=tuple(paths), **(options or {}))
    return sets.dataset(corpus, sets.settings(80, 8, 12), batch_size=batch_size, **mixed)


def test_files_and_folders_lie_one_behind_the_other_and_are_searched_together(paths):
    corpus = sources.read("mix", path=paths)
    assert corpus.sets == (("faq", 18), ("forum", 11), ("wiki", 8))
    assert [len(pairs) for pairs in corpus.by_set()] == [18, 11, 8]
    assert corpus.name == "faq + forum + wiki"
    assert len(corpus.test.queries) == 2 + 1 + 2
    assert len(corpus.test.documents) == 20 + 12 + 11 - 1  # one is of two sets
    asked = {text: key for key, text in corpus.test.queries.items()}
    judged = corpus.test.grades[asked["wiki asks"]]
    found = {corpus.test.documents[key]: grade for key, grade in judged.items()}
    assert found == {"wiki answers 8": 1, "faq answers 3": 1}
    assert corpus.test.grades[asked["wiki asks 8"]] == {"2/w8": 2}
    assert asked["wiki asks"] in corpus.test.documents  # the query's own text, which is taken out
    assert {corpus.test.groups[query] for query in corpus.test.queries} == {"faq", "forum", "wiki"}
    one = sources.read("pairs", path=paths[0])
    alone = sources.read("mix", path=paths[:1])
    assert alone.train == one.train
    assert list(alone.test.queries.values()) == list(one.test.queries.values())


def test_a_query_that_one_set_tests_on_is_trained_on_in_none(tmp_path, paths):
    held_out = next(iter(sources.read("pairs", path=paths[0]).test.queries.values()))
    rows = [{"query": f"new {i}", "pos": [f"said {i}"]} for i in range(12)]
    other = write_rows(
        tmp_path / "other.jsonl",
        [*rows, {"query": held_out, "pos": ["another answer"]}],
    )
    queries = Path(paths[2]) / "queries.jsonl"
    queries.write_text(queries.read_text().replace("wiki asks 0", f" {held_out} "))
    corpus = sources.read("mix", path=(paths[0], other, paths[2]), limit_train=12)
    assert held_out in {pair.query for pair in sources.read("pairs", path=other).train}
    assert not {pair.query for pair in corpus.train} & set(corpus.test.queries.values())
    for name in ("other", "wiki"):
        assert f"{name}: 1 pairs are left out, of test queries" in corpus.notes
    mined = sources.to_mine("mix", path=(paths[0], other, paths[2]), limit_train=12)
    assert set(mined.queries.values()) == {pair.query for pair in corpus.train}
    assert mined.grades.keys() == mined.queries.keys()
    [query] = [key for key, text in corpus.test.queries.items() if text == held_out]
    assert corpus.test.groups[query] == "faq"


def test_what_two_sets_have_is_trained_on_once_and_joined_across_them(tmp_path):
    rows = [{"query": f"q {i}", "pos": [f"a {i}"]} for i in range(12)]
    first = write_rows(tmp_path / "first.jsonl", rows)
    more = [{"query": f"p {i}", "pos": [f"a {i}"]} for i in range(12)]
    second = write_rows(tmp_path / "second.jsonl", [*rows, *more])
    dataset = make((first, second))
    mix = dataset.texts.mix
    assert sum(mix.sizes) == dataset.n_train
    assert any("second: " in note and "of an earlier set" in note for note in dataset.texts.notes)
    tokens = dataset.train["document"]
    for row in range(mix.sizes[0], dataset.n_train):  # of the second: its answers are the first's
        same = (tokens[: mix.sizes[0]] == tokens[row]).all(axis=1)
        assert (dataset.train["id"][: mix.sizes[0]][same] == dataset.train["id"][row]).all()


def test_a_set_whose_pairs_are_all_joined_is_refused_where_it_has_batches_of_its_own(paths):
    rows = [{"query": f"hub asks {i}", "pos": ["the manual"]} for i in range(12)]
    hub = write_rows(Path(paths[0]).with_name("hub.jsonl"), rows)
    with pytest.raises(DataError, match="hub: All pairs are joined"):
        make((*paths, hub))
    notes = make((*paths, hub), mix="example").texts.notes
    assert any("11 of 48 pairs are joined" in note for note in notes)
    assert not any("are joined" in note for note in make(paths).texts.notes)  # 1 of 8 is none


@pytest.mark.parametrize("by", ["batch", "example"])
def test_batches_are_those_of_the_mix(paths, by):
    dataset = make(paths, weights=(2, 1, 1), mix=by)
    feed = data.feed(dataset.train, 4, 1, dataset.texts.mix)
    ends = np.cumsum(dataset.texts.mix.sizes)
    of_rows = [np.searchsorted(ends, feed.batch_at(s)["index"], side="right") for s in range(8)]
    assert np.bincount(np.concatenate(of_rows)).tolist() == [16, 8, 8]
    assert all(len(set(found)) == 1 for found in of_rows) == (by == "batch")
    assert dataset.steps_per_epoch == (18 // 4 + 11 // 4 + 8 // 4 if by == "batch" else 37 // 4)


def test_the_identity_is_that_of_what_the_sets_hold_wherever_they_lie(paths, tmp_path):
    first = data.identity(make(paths))
    assert first["sets"] == {"faq": 18, "forum": 11, "wiki": 8}
    (tmp_path / "moved").mkdir()
    moved = write(tmp_path / "moved" / "faq.jsonl", "faq")
    assert data.identity(make((moved, *paths[1:])))["sha256"] == first["sha256"]
    assert data.identity(make(paths[::-1]))["sha256"] != first["sha256"]
    twice = make((paths[0], write(tmp_path / "moved" / "faq.jsonl", "other")))
    assert twice.texts.mix.names == ("faq", "faq (2)")


def test_negatives_are_mined_among_the_documents_of_all_sets(paths):
    found = sources.to_mine("mix", path=paths)
    assert len(found.queries) == 18 + 11 + 8
    assert len(found.documents) == 20 + 12 + 11 - 1


@pytest.mark.parametrize(
    ("options", "mixed", "message"),
    [
        ({"source": "pairs"}, {}, "one path, or data.source 'mix'"),
        ({"path": "faq.jsonl"}, {}, "several files or folders"),
        ({"path": ()}, {}, "each of them once"),
        ({"path": (3,)}, {}, "each of them once"),
        ({}, {"weights": (1, 2)}, "has 2 numbers for 3 sets"),
        ({}, {"length_buckets": 2, "tokenizer": object()}, "are of one set"),
        ({}, {"batch_size": 9}, "wiki has 8 training pairs of its own, and a draw takes 9"),
        ({"source": "pairs", "path": 0}, {"weights": (1,)}, "are of data.source 'mix'"),
    ],
)
def test_what_cannot_be_meant_is_refused(paths, options, mixed, message):
    options = {"source": "mix", "path": paths, **options}
    options["path"] = paths[0] if options["path"] == 0 else options["path"]
    read = lambda: sets.dataset(  # noqa: E731
        sources.read(**options), sets.settings(80, 8, 12), **{"batch_size": 4, **mixed}
    )
    with pytest.raises(ValueError, match=message):
        read()


def test_the_same_set_twice_and_sets_that_are_scored_otherwise_are_refused(paths, tmp_path):
    with pytest.raises(ValueError, match="each of them once"):
        sources.read("mix", path=(paths[0], f" {paths[0]}"))
    with pytest.raises(DataError, match=r"There is no .*lost.\nMend data.path, or --data_dir"):
        sources.read("mix", path=(paths[0], str(tmp_path / "lost")))
    graded = write(tmp_path / "graded.jsonl", "graded", score=lambda i: i)
    with pytest.raises(ValueError, match="others have not; mix one kind"):
        sources.read("mix", path=(paths[0], graded))
    other = write(tmp_path / "other.jsonl", "other", score=lambda i: i)
    both = sources.read("mix", path=(graded, other))
    assert {pair.query.split()[0] for pair in both.graded} == {"graded", "other"}


def test_a_set_of_which_nothing_is_left_is_named(paths, tmp_path):
    asked = list(sources.read("mix", path=paths[:1]).test.queries.values())
    first = next(
        x for x in map(str, range(99)) if min(map(sources._hash, [x, *asked])) == sources._hash(x)
    )
    rows = [{"query": text, "pos": ["x"]} for text in (*asked, first)]  # `first` is tested on
    few = write_rows(tmp_path / "few.jsonl", rows)
    with pytest.raises(DataError, match="few has no training pairs but of test queries"):
        sources.read("mix", path=(paths[0], few))
