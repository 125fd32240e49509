"""Read files of rows, and name every broken one by its line."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from contrastive_jax.errors import DataError

_NAMED = 10  # broken lines that a message holds
Given = TypeVar("Given")
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
    numbered = enumerate(raw_lines(path), 1)
    given = ((number, raw) for number, raw in numbered if _text(raw, "replace").strip())
    return parsed(path, given, lambda raw: parse(_text(raw)))


def _text(raw: bytes, errors: str = "strict") -> str:
    return raw.decode("utf-8", errors).lstrip("\ufeff").rstrip("\r\n")


def parsed(
    path: Path, given: Iterable[tuple[int, Given]], parse: Callable[[Given], Row]
) -> list[tuple[int, Row]]:
    """Parse what a file holds.

    Args:
      path: the file.
      given: (number of the line, what is there).
      parse: that to a row; its ValueError says what is wrong with it.

    Raises:
      DataError: no rows, or broken ones, all of them named by line.
    """
    rows, broken = [], []
    for number, held in given:
        try:
            rows.append((number, parse(held)))
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


def raw_lines(path: Path) -> Iterator[bytes]:
    """Read the lines of a file, with their ends.

    Raises:
      DataError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            yield from file
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}\nCheck the path.") from error


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
    except RecursionError:
        raise ValueError("not JSON: too many brackets") from None
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
