"""Read files of rows, and name every broken one by its line."""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from contrastive_jax.errors import DataError

_NAMED = 10  # broken lines that a message holds
Row = TypeVar("Row")


def read(path: Path, parse: Callable[[str], Row]) -> list[tuple[int, Row]]:
    """Parse every line of a UTF-8 file that is not blank.

    Args:
      path: the file.
      parse: a line to a row; its ValueError says what is wrong with it.

    Returns:
      (number of the line from 1, row).

    Raises:
      DataError: no such file, one without rows, or broken lines, all of them named.
    """
    rows, broken = [], []
    for number, raw in enumerate(_lines(path), 1):
        try:
            line = raw.decode("utf-8").lstrip("\ufeff").rstrip("\r\n")
            if line.strip():
                rows.append((number, parse(line)))
        except ValueError as error:
            why = "not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
            broken.append(f"line {number} ({why})")
    if broken:
        more = f" and {len(broken) - _NAMED} more" if len(broken) > _NAMED else ""
        named = ", ".join(broken[:_NAMED]) + more
        raise DataError(f"{path} has {len(broken)} broken lines: {named}\nMend or remove them.")
    if not rows:
        raise DataError(f"{path} has no rows.\nGive a file with at least one.")
    return rows


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from file
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}\nCheck the path.") from error


def parser(
    ending: str,
    row_of: Callable[[dict[str, Any]], Row],
    check: Callable[[dict[str, Any]], Any],
) -> Callable[[str], Row | None]:
    """Make the parser of a line of JSON, or of a table whose first line has the headings.

    Args:
      ending: ".jsonl", ".tsv" or ".csv".
      row_of: values by name to a row.
      check: its ValueError says that names are missing among the headings.

    Returns:
      A line to a row, the line of headings to None.

    >>> parse = parser(".tsv", lambda row: row["text"], lambda names: names["text"])
    >>> parse("id\\ttext"), parse("1\\ta fox")
    (None, 'a fox')
    """
    if ending == ".jsonl":
        return lambda line: row_of(json_object(line))
    columns: list[str] = []

    def parse(line: str) -> Row | None:
        [cells] = csv.reader([line], delimiter="\t" if ending == ".tsv" else ",", strict=True)
        if not columns:
            columns.extend(cells)
            check(dict.fromkeys(columns))
            return None
        if len(cells) != len(columns):
            raise ValueError(f"{len(cells)} columns, not {len(columns)}")
        return row_of(dict(zip(columns, cells, strict=True)))

    def checked(line: str) -> Row | None:
        try:
            return parse(line)
        except csv.Error as error:
            raise ValueError(str(error)) from error

    return checked


def json_object(line: str) -> dict[str, Any]:
    """Parse a line of JSON that holds an object.

    >>> json_object('{"text": "a"}')
    {'text': 'a'}

    Raises:
      ValueError: anything else.
    """
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from error
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    if "\\ud" in line.lower():
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("half of a character: an escape \\ud... without its pair") from None
    return value


def text_of(row: dict[str, Any], key: str, default: str | None = None) -> str:
    """Read a text of a row.

    >>> text_of({"text": "a"}, "text"), text_of({}, "title", default="")
    ('a', '')

    Raises:
      ValueError: the key is missing, or holds something else.
    """
    value = row.get(key, default)
    if not isinstance(value, str):
        raise ValueError(f"no {key!r}" if value is None else f"{key!r} is no text")
    return value
