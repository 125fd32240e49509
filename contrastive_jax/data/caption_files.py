"""Lists of captioned images: which file shows what, in words.

    .jsonl      {"image": "a.jpg", "texts": ["a red fox", "a fox in snow"]}
                {"image": "a.jpg", "text": "a red fox"}
    .tsv .csv   a line of headings with `filepath` and `title`, then an image a line

The second form is that of open_clip. Paths are relative to the list. An image may be listed in
several lines: all of their captions are its own.
"""

from pathlib import Path
from typing import Any, NamedTuple

from contrastive_jax.data.text import rows, tables
from contrastive_jax.errors import DataError

ENDINGS = (".jsonl", ".tsv", ".csv")
_NAMES = (("image", "texts"), ("image", "text"), ("filepath", "title"))


class Captioned(NamedTuple):
    """An image file and what is said of it."""

    image: str
    texts: tuple[str, ...]  # without empty ones
    n_empty: int = 0


class Listed(NamedTuple):
    """The images of a list, in its order."""

    images: tuple[Captioned, ...]  # with a caption at least
    line_N: tuple[int, ...]  # where each is first listed
    notes: tuple[str, ...]  # what was left out, with counts


def read(path: Path) -> Listed:
    """Read a list of captioned images.

    Raises:
      DataError: another kind of file, broken lines (all are named), or no caption at all.
    """
    if path.suffix not in ENDINGS:
        raise DataError(
            f"{path} is no list of captioned images.\nGive one that ends in .jsonl, .tsv or .csv."
        )
    if path.suffix == ".jsonl":
        found = rows.read(path, lambda line: captioned_of(rows.json_object(line)))
    else:
        found = tables.read(path, _NAMES, captioned_of)
    images: dict[str, Captioned] = {}
    lines: dict[str, int] = {}
    for line, row in found:
        first = images.get(row.image, Captioned(row.image, ()))
        texts = tuple(dict.fromkeys((*first.texts, *row.texts)))
        images[row.image] = Captioned(row.image, texts, first.n_empty + row.n_empty)
        lines.setdefault(row.image, line)
    with_text = tuple(each for each in images.values() if each.texts)
    if not with_text:
        raise DataError(f"{path} has no caption.\nGive each image a text at least.")
    line_N = tuple(lines[each.image] for each in with_text)
    return Listed(with_text, line_N, tuple(_notes(list(images.values()), path)))


def captioned_of(row: dict[str, Any]) -> Captioned:
    """Read a row under any set of names.

    >>> captioned_of({"image": "a.jpg", "texts": ["a fox", " "]})
    Captioned(image='a.jpg', texts=('a fox',), n_empty=1)

    Raises:
      ValueError: a name is missing, the path is empty, or no text and no list of texts.
    """
    image, text = _names(row)
    path, value = rows.text_of(row, image).strip(), row[text]
    texts = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(texts, list) or not all(isinstance(each, str) for each in texts):
        raise ValueError(f"{text!r} is no text and no list of texts")
    if not path:
        raise ValueError(f"{image!r} is empty")
    kept = tuple(each.strip() for each in texts if each.strip())
    return Captioned(path, kept, max(len(texts), 1) - len(kept))


def _names(row: dict[str, Any]) -> tuple[str, str]:
    for names in _NAMES:
        if names[0] in row and names[1] in row:
            return names
    raise ValueError("no 'image' with 'texts' or 'text', and no 'filepath' with 'title'")


def _notes(images: list[Captioned], path: Path) -> list[str]:
    counted = {
        "empty captions": sum(each.n_empty for each in images),
        "images without a caption": sum(not each.texts for each in images),
    }
    return [f"{path}: left out {n:,} {what}" for what, n in counted.items() if n]
