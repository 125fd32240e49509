"""Collections to search: documents, queries, and which documents are relevant to which query.

A folder in the layout of BEIR (Thakur et al. 2021, arXiv 2104.08663):

    corpus.jsonl        {"_id": "d1", "title": "may be empty", "text": "..."}
    queries.jsonl       {"_id": "q1", "text": "..."}
    qrels/SPLIT.tsv     query-id <tab> corpus-id <tab> score, below one line of headings
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from contrastive_jax.data._errors import PathLike
from contrastive_jax.data.text import rows
from contrastive_jax.errors import DataError


class Collection(NamedTuple):
    """Documents, the queries of a split and their judgements, by id."""

    name: str
    split: str
    documents: dict[str, str]
    queries: dict[str, str]  # those that are judged
    grades: dict[str, dict[str, int]]  # query -> document -> grade; above 0 is relevant
    notes: tuple[str, ...]  # what is odd, with counts
    # document, and of several sets also query -> what it comes from, where that is known
    groups: Mapping[str, str] = {}


def load(folder: PathLike, split: str = "test") -> Collection:
    """Read a folder in the layout of BEIR; a title stands before its text.

    Blanks around a text are no part of it, as in a file of pairs.

    Raises:
      DataError: a file that is missing, a broken line, an id that is there twice, judgements that
        point nowhere or contradict one another, or a query without a relevant document.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise DataError(f"There is no folder {root}.\nGive one with corpus.jsonl and qrels/.")
    documents = _by_id(root / "corpus.jsonl", _document)
    queries = _by_id(root / "queries.jsonl", _query)
    grades = _grades(root / "qrels", split)
    _check_ids(root / "qrels" / f"{split}.tsv", grades, queries, documents)
    judged = {query: queries[query] for query in grades}
    notes = tuple(_notes(documents, judged, grades))
    return Collection(root.resolve().name, split, documents, judged, grades, notes)


def of_pairs(
    name: str,
    split: str,
    pairs: Sequence[tuple[str, Sequence[str]]],
    notes: tuple[str, ...] = (),
    others: Sequence[str] = (),
) -> Collection:
    """Make a collection of pairs; equal texts are one document, or one query with all it asks for.

    Args:
      name, split, notes: of the collection.
      pairs: a query and its relevant documents.
      others: further documents to search.

    >>> found = of_pairs("few", "all", [("a", ["x"]), ("b", ["y"]), ("a", ["y"])])
    >>> found.documents, found.grades
    ({'d0': 'x', 'd1': 'y'}, {'q0': {'d0': 1, 'd1': 1}, 'q1': {'d1': 1}})
    """
    texts = dict.fromkeys(text for _, relevant in pairs for text in relevant)
    document_id = {text: f"d{i}" for i, text in enumerate(texts | dict.fromkeys(others))}
    query_id = {text: f"q{i}" for i, text in enumerate(dict.fromkeys(query for query, _ in pairs))}
    grades: dict[str, dict[str, int]] = {query: {} for query in query_id.values()}
    for query, relevant in pairs:
        grades[query_id[query]] |= {document_id[text]: 1 for text in relevant}
    documents = {key: text for text, key in document_id.items()}
    queries = {key: text for text, key in query_id.items()}
    odd = tuple(_notes(documents, queries, grades))
    return Collection(name, split, documents, queries, grades, (*notes, *odd))


def union(found: Mapping[str, Collection]) -> Collection:
    """Make one collection of several, by name, which are then the groups of what they hold.

    Equal texts are one document, or one query with all it asks for.

    >>> one, other = of_pairs("", "", [("a", ["x"])]), of_pairs("", "", [("a", ["x", "y"])])
    >>> union({"one": one, "other": other}).grades
    {'0/q0': {'0/d0': 1, '1/d1': 1}}
    """
    first: dict[str, dict[str, str]] = {"documents": {}, "queries": {}}  # text -> id
    groups: dict[str, str] = {}
    for number, (name, each) in enumerate(found.items()):
        for kind, id_of in first.items():
            for key, text in getattr(each, kind).items():
                groups.setdefault(id_of.setdefault(text, f"{number}/{key}"), name)
    document_id, query_id = first.values()
    grades: dict[str, dict[str, int]] = {query: {} for query in query_id.values()}
    for each in found.values():
        for query, judged in each.grades.items():
            known = grades[query_id[each.queries[query]]]
            for document, grade in judged.items():
                key = document_id[each.documents[document]]
                known[key] = max(grade, known.get(key, grade))
    documents, queries = ({key: text for text, key in ids.items()} for ids in first.values())
    notes = tuple(f"{name}: {note}" for name, each in found.items() for note in each.notes)
    split = next(each.split for each in found.values())
    return Collection(" + ".join(found), split, documents, queries, grades, notes, groups)


def _document(line: str) -> tuple[str, str]:
    row = rows.json_object(line)
    title, text = rows.text_of(row, "title", default=""), rows.text_of(row, "text")
    return id_of(row), f"{title.strip()} {text.strip()}".strip()


def _query(line: str) -> tuple[str, str]:
    row = rows.json_object(line)
    return id_of(row), rows.text_of(row, "text").strip()


def id_of(row: Mapping[str, Any]) -> str:
    """Read the `_id` of a row.

    >>> id_of({"_id": 3})
    '3'

    Raises:
      ValueError: it is missing, empty, or neither a text nor an integer.
    """
    value = row.get("_id", "")
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise ValueError("'_id' is no text")
    if value == "":
        raise ValueError("no '_id'")
    return str(value)


def _by_id(path: Path, parse: Callable[[str], tuple[str, str]]) -> dict[str, str]:
    read = rows.read(path, parse)
    first: dict[str, int] = {}
    for number, (key, _) in read:
        if key in first:
            where = f"lines {first[key]} and {number}"
            raise DataError(f"{path}: the id {key!r} is there twice, {where}.\nKeep one of them.")
        first[key] = number
    return {key: text for _, (key, text) in read}


def _grades(folder: Path, split: str) -> dict[str, dict[str, int]]:
    path = folder / f"{split}.tsv"
    if not path.is_file():
        there = ", ".join(sorted(file.stem for file in folder.glob("*.tsv"))) or "none"
        raise DataError(f"{path} is not there.\nSplits with judgements: {there}.")
    grades: dict[str, dict[str, int]] = {}
    for number, judged in rows.read(path, _judgement):
        if judged is not None:
            query, document, grade = judged
            before = grades.setdefault(query, {}).setdefault(document, grade)
            if before != grade:
                raise DataError(
                    f"{path}, line {number}: {document!r} has the scores {before} and {grade} for "
                    f"{query!r}.\nKeep one of the lines."
                )
    if not grades:
        raise DataError(f"{path} has no judgements below its headings.\nGive at least one.")
    return grades


def _judgement(line: str) -> tuple[str, str, int] | None:
    """Read a line of judgements, None for the headings."""
    cells = line.split("\t")
    if len(cells) != 3:
        raise ValueError(f"{len(cells)} columns, not 3 divided by tabs")
    if cells[0] == "query-id":
        return None
    try:
        return cells[0], cells[1], int(cells[2])
    except ValueError:
        raise ValueError(f"the score {cells[2]!r} is no integer") from None


def _check_ids(
    path: Path,
    grades: Mapping[str, Mapping[str, int]],
    queries: Mapping[str, str],
    documents: Mapping[str, str],
) -> None:
    judged = [document for row in grades.values() for document in row]
    for kind, used, known in (("queries", grades, queries), ("documents", judged, documents)):
        lost = [key for key in used if key not in known]
        if lost:
            shown = ", ".join(map(repr, lost[:5]))
            raise DataError(
                f"{path} judges {len(lost)} {kind} that are not there: {shown}\n"
                f"Add them to the .jsonl file, or remove their lines."
            )
    empty = [query for query, row in grades.items() if max(row.values()) <= 0]
    if empty:
        shown = ", ".join(map(repr, empty[:5]))
        raise DataError(
            f"{path}: {len(empty)} queries have no relevant document: {shown}\n"
            "Remove their lines, or judge a document with 1 or more."
        )


def _notes(
    documents: Mapping[str, str],
    queries: Mapping[str, str],
    grades: Mapping[str, Mapping[str, int]],
) -> Iterable[str]:
    """Count what may spoil scores without being an error."""
    copies = {query: queries[query].strip() for query in grades}
    same = sum(
        any(documents[document].strip() == copies[query] for document in row)
        for query, row in grades.items()
    )
    for kind, texts in (("documents", documents), ("queries", queries)):
        yield from _counted(f"{kind} are empty", _n_empty(texts.values()))
        yield from _counted(f"{kind} have the text of an earlier one", _n_repeated(texts.values()))
    yield from _counted("queries equal a document that is judged for them", same)


def _counted(what: str, n: int) -> Iterable[str]:
    return [f"{n:,} {what}"] if n else []


def _n_empty(texts: Iterable[str]) -> int:
    return sum(not text.strip() for text in texts)


def _n_repeated(texts: Iterable[str]) -> int:
    counts = Counter(text.strip() for text in texts if text.strip())
    return sum(counts.values()) - len(counts)
