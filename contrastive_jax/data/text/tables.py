"""Tables of texts, .tsv and .csv: a line of headings, and rows below it.

A cell that holds the delimiter, a quote or the end of a line stands in double quotes, and a quote
in it is written twice: RFC 4180, and what spreadsheets write.
"""

import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from contrastive_jax.data.text import rows
from contrastive_jax.errors import DataError

DELIMITERS = {".tsv": "\t", ".csv": ","}
_NAMES = {"\t": "tabs", ",": "commas", ";": "semicolons"}
_EXPLAINED = {  # how the message of the library begins
    "new-line": "a line ends in a carriage return alone; save it with other line ends",
    "unexpected end": "a quote is not closed",
    "'": "text behind a closing quote; in a cell in quotes, write a quote twice",
}
Row = TypeVar("Row")


def read(
    path: Path, wanted: Sequence[Sequence[str]], parse: Callable[[dict[str, str]], Row]
) -> list[tuple[int, Row]]:
    """Read a table.

    Args:
      path: ends in .tsv or .csv.
      wanted: sets of headings, of which one has to be there, among others.
      parse: cells by their headings to a row; its ValueError says what is wrong with them.

    Returns:
      (number of the line where the row begins, row).

    Raises:
      DataError: other headings, or broken rows, all of them named by line.
    """
    found = _cells(path, DELIMITERS[path.suffix])
    number, names = next(found, (1, []))
    if isinstance(names, ValueError) or not any(set(group) <= set(names) for group in wanted):
        raise DataError(f"{path}, line {number}: {_other_headings(path, names, wanted)}")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{path}, line {number}: two headings are {twice!r}.\nRename one of them.")

    def row(cells: list[str] | ValueError) -> Row:
        if isinstance(cells, ValueError):
            raise cells
        if len(cells) != len(names):
            raise ValueError(f"{len(cells)} columns, not {len(names)}")
        return parse(dict(zip(names, cells, strict=True)))

    return rows.parsed(path, found, row)


def _cells(path: Path, delimiter: str) -> Iterator[tuple[int, list[str] | ValueError]]:
    """The cells of each row that is not blank, or what is wrong, with the line where it begins."""
    first, done = 1, False

    def texts() -> Iterator[str]:
        for number, raw in enumerate(rows.raw_lines(path)):
            yield raw.decode("utf-8", "surrogateescape").removeprefix("\ufeff" * (number == 0))

    reader = csv.reader(texts(), delimiter=delimiter, strict=True)
    while not done:
        try:
            cells = next(reader)
            if any(cell.strip() for cell in cells):
                "".join(cells).encode()
                yield first, cells
        except StopIteration:
            done = True
        except UnicodeEncodeError:  # half a character, which stands for a byte
            yield first, ValueError("not UTF-8")
        except csv.Error as error:
            yield first, ValueError(_explained(str(error)))
        first = reader.line_num + 1


def _explained(message: str) -> str:
    known = (said for start, said in _EXPLAINED.items() if message.startswith(start))
    return next(known, message)


def _other_headings(
    path: Path, names: list[str] | ValueError, wanted: Sequence[Sequence[str]]
) -> str:
    needed = ", or ".join(" and ".join(map(repr, group)) for group in wanted)
    advice = f"The first line has to name the columns: {needed}."
    if isinstance(names, ValueError):
        return f"{names}.\n{advice}"
    given = DELIMITERS[path.suffix]
    for other in set(_NAMES) - {given}:
        cut = [name.strip('" ') for name in other.join(names).split(other)]
        if len(names) == 1 and any(set(group) <= set(cut) for group in wanted):
            return (
                f"it is divided by {_NAMES[other]}, and {path.suffix} is divided by "
                f"{_NAMES[given]}.\nGive the file the other ending, or save it again."
            )
    shown = ", ".join(map(repr, names[:5])) or "not there"
    return f"its headings are {shown[:200]}.\n{advice}"
