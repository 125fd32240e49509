"""Sources of text: docstrings of code that is parsed and not imported, and files of pairs."""

import csv
import json

import pytest

from contrastive_jax.data.text import docstrings, pairs
from contrastive_jax.errors import DataError

MODULE = '''raise RuntimeError("imported")

def area(width, height):
    """Compute the area of a rectangle.

    More about it.
    """
    check(width, height)  # both are needed
    return area.scale * width * height


class Shape:
    async def paint(self, color):
        """Paint the shape in a color."""
        await self.canvas.fill(color, outline=False)

    def short(self):
        """Too short."""
        return self.width + self.height + self.depth


def nothing():
    """Do nothing whatsoever in here."""
'''


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Forty packages of one file each, and where the cache of them is."""
    for i in range(40):
        folder = tmp_path / "packages" / f"pkg{i}"
        (folder / "tests").mkdir(parents=True)
        own = MODULE.replace("rectangle", f"rectangle of kind {i}").replace("color", f"hue{i}")
        (folder / "main.py").write_text(own.replace("both are", f"{i} are"))
        (folder / "tests" / "main.py").write_text(MODULE)
        (folder / "template.py").write_text("def {{ name }}(): pass")
    found = {f"pkg{i}": (tmp_path / "packages" / f"pkg{i}", "1") for i in range(40)}
    monkeypatch.setattr(docstrings, "_folders", lambda: found)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def test_functions_are_found_with_their_own_name_hidden():
    first, second = docstrings.of_source(MODULE, "pkg", "pkg/main.py")
    assert first.query == "Compute the area of a rectangle."
    assert first.document == (
        "check(width, height)  # both are needed\nreturn _.scale * width * height"
    )
    assert second.document == "await self.canvas.fill(color, outline=False)"


def test_files_are_in_one_split_and_tests_of_packages_in_none(packages):
    splits = {split: docstrings.load(split) for split in docstrings.SPLITS}
    texts = {split: set(found.queries.values()) for split, found in splits.items()}
    assert sum(map(len, texts.values())) == len(set().union(*texts.values())) == 80
    assert all(map(len, texts.values()))
    for found in splits.values():
        assert len(found.documents) == len(found.queries)
        kinds = [text.split()[-1] for text in found.queries.values() if "kind" in text]
        assert len(kinds) == len(found.queries) / 2  # both of a file are in one split
        assert found.groups.keys() == found.documents.keys()
        assert len(set(found.groups.values())) == len(kinds)
    assert "sha256" in splits["test"].notes[0]
    by_package = docstrings.load("test", "package")
    assert by_package.name == "docstrings by package"
    with pytest.raises(ValueError, match="pakage"):
        docstrings.load("test", "pakage")


def test_some_packages_alone_are_splits_of_their_own(packages):
    whole = docstrings.load("train")
    few = docstrings.load("train", packages=("pkg1", "pkg2", "pkg3", "pkg4"))
    assert 0 < len(few.queries) <= 8
    assert set(few.queries.values()) < set(whole.queries.values())
    assert few.notes[0] != whole.notes[0]  # another digest
    for wrong in (("nump",), ()):
        with pytest.raises(ValueError, match=r"data.packages is .*give some of stdlib"):
            docstrings.load("train", packages=wrong)


def test_what_was_parsed_is_kept_and_a_damaged_cache_is_parsed_again(packages, monkeypatch):
    before = docstrings.load()
    [path] = (packages / "cache" / "contrastive_jax").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(docstrings, "extract", None)  # not called again
        assert docstrings.load() == before
    kept = json.loads(path.read_text())
    kept["rows"][0][0] = "changed"
    path.write_text(json.dumps(kept))
    assert docstrings.load() == before
    path.write_text("{")
    assert docstrings.load() == before
    assert json.loads(path.read_text())["rows"][0][0] != "changed"


def test_no_docstrings_are_an_error(packages, monkeypatch):
    monkeypatch.setattr(docstrings, "_folders", dict)
    with pytest.raises(DataError, match="No docstrings"):
        docstrings.load()


ROWS = [
    pairs.Pair("what is red?", ("a fox",), ("a whale", "a frog")),
    pairs.Pair("what swims?", ("a whale", "a frog")),
    pairs.Pair("what is red?", ("blood",), ("a fox",)),
]


def test_both_sets_of_names_are_read_and_equal_texts_are_one(tmp_path):
    path = tmp_path / "mine.jsonl"
    lines = [{"query": p.query, "pos": p.positives, "neg": p.negatives} for p in ROWS]
    path.write_text("\n\n".join(map(json.dumps, lines)), "utf-8-sig")
    assert pairs.load(path) == ROWS
    found = pairs.collection(path)
    assert found.queries == {"q0": "what is red?", "q1": "what swims?"}
    assert list(found.documents.values()) == ["a fox", "a whale", "a frog", "blood"]
    assert found.grades == {"q0": {"d0": 1, "d3": 1}, "q1": {"d1": 1, "d2": 1}}


@pytest.mark.parametrize(("ending", "delimiter"), [("tsv", "\t"), ("csv", ",")])
def test_tables_have_a_line_of_headings(tmp_path, ending, delimiter):
    path = tmp_path / f"mine.{ending}"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["anchor", "positive", "negative", "source"])
        writer.writerow(["what, exactly?", 'a "fox"', "", "here"])
    assert pairs.load(path) == [pairs.Pair("what, exactly?", ('a "fox"',))]


def test_every_broken_line_is_named(tmp_path):
    path = tmp_path / "mine.jsonl"
    good = b'{"query": "q", "pos": "a"}\n'
    broken = [
        (b'{"query": "q", "pos": []}\n', "no text in 'pos'"),
        (b'{"query": " ", "pos": ["a"]}\n', "'query' is empty"),
        (b'{"query": "q", "pos": 3}\n', "'pos' is no text and no list of texts"),
        (b'{"query": 3, "pos": "a"}\n', "'query' is no text"),
        (b'{"question": "q"}\n', "neither 'query' and 'pos' nor"),
        (b'{"query": "\xff", "pos": "a"}\n', "not UTF-8"),
    ]
    path.write_bytes(b"".join(good + line for line, _ in broken))
    with pytest.raises(DataError) as caught:
        pairs.load(path)
    message = str(caught.value)
    assert len(message.splitlines()) <= 3
    for i, (_, why) in enumerate(broken):
        assert f"line {2 * i + 2} ({why}" in message
    path.write_bytes(broken[0][0] * 30)
    with pytest.raises(DataError, match="30 broken lines.*and 20 more"):
        pairs.load(path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "x", "ends in .jsonl"),
        ("a.tsv", "one\ttwo\nx\ty\n", "line 1: its headings are 'one', 'two'"),
        ("a.csv", "", "line 1: its headings are not there"),
        ("a.csv", "query;pos\nx;y\n", "divided by semicolons, and .csv is divided by commas"),
        ("a.tsv", "query,pos\nx,y\n", "divided by commas, and .tsv is divided by tabs"),
        ("a.csv", "query\tpos\nx\ty\n", "divided by tabs, and .csv is divided by commas"),
        ("a.csv", "query,pos,pos\nx,y,z\n", "line 1: two headings are 'pos'"),
        ("a.csv", "query,pos\nx\n", "line 2 .1 columns, not 2"),
        ("a.csv", 'query,pos\n"x,y\nz,u\n', "1 broken lines: line 2 .a quote is not closed"),
        ("a.csv", 'query,pos\n"x"y,z\n', "line 2 .text behind a closing quote"),
        ("a.csv", "query,pos\rx,y\r", "a carriage return alone"),
        ("a.csv", "query,pos\n", "has no rows"),
        ("a.jsonl", "[" * 100_000, "too many brackets"),
    ],
)
def test_files_that_hold_no_pairs_are_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message) as refused:
        pairs.load(tmp_path / name)
    assert str(refused.value).count("\n") < 3


def test_a_cell_in_quotes_may_have_several_lines_and_blank_rows_are_none(tmp_path):
    path = tmp_path / "mine.csv"
    rows = 'query,pos\r\n"two\r\n\r\nlines","a ""fox"""\r\n\r\n , \r\nlast,one\r\n'
    path.write_text(rows, "utf-8-sig", newline="")
    assert pairs.load(path) == [
        pairs.Pair("two\r\n\r\nlines", ('a "fox"',)),
        pairs.Pair("last", ("one",)),
    ]
    path.write_bytes(rows.encode() + b'"b\n",\n\xff,x\n')
    with pytest.raises(DataError, match=r"line 8 \(no text in 'pos'\), line 10 \(not UTF-8\)"):
        pairs.load(path)


def test_odd_pairs_are_counted(tmp_path):
    path = tmp_path / "mine.jsonl"
    row = {"query": "q", "pos": ["q"], "neg": ["q"]}
    path.write_text(f"{json.dumps(row)}\n{json.dumps(row)}\n")
    assert pairs.collection(path).notes == (
        "1 pairs are there twice",
        "2 pairs have a negative that is one of their positives",
        "1 queries equal a document that is judged for them",
    )
