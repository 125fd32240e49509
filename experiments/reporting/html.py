"""Pieces of a report's page: every string is escaped unless it is HTML already."""

import base64
import html
import re
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template

TEMPLATE = Path(__file__).with_name("page.html")
_PIXELS_PER_CSS_PIXEL = 150 / 96  # the pictures are drawn at 150 dots an inch
_BROAD = 1100  # CSS pixels from which on a picture takes a row of its own


class Html(str):
    """Text that is HTML already."""


def element(name: str, *children: str | None, **attributes: str | int | None) -> Html:
    """An element; an attribute of None is left out, and `class_` is `class`.

    >>> element("p", "1 < 2 ", element("b", "so"), class_="note")
    '<p class="note">1 &lt; 2 <b>so</b></p>'
    """
    given = {key.rstrip("_"): value for key, value in attributes.items() if value is not None}
    written = "".join(f' {key}="{html.escape(str(value))}"' for key, value in given.items())
    inside = join(child for child in children if child is not None)
    return Html(f"<{name}{written}>{inside}</{name}>")


def join(pieces: Iterable[str]) -> Html:
    """Pieces in a row, escaped where they are plain text."""
    return Html("".join(p if isinstance(p, Html) else html.escape(p) for p in pieces))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Html:
    """A table that scrolls by itself where it is too wide; the first cell of a row is its head.

    >>> table(["key", "a"], [["seed", "1"]])
    '<div class="wide"><table><thead><tr><th>key</th><th>a</th></tr></thead>...'
    """
    body = [
        element("tr", element("th", row[0]), *(cell(value) for value in row[1:])) for row in rows
    ]
    return wide_table(head, body)


def wide_table(head: Sequence[str], rows: Iterable[Html]) -> Html:
    """A table of finished rows."""
    top = element("thead", element("tr", *(element("th", text) for text in head)))
    return element("div", element("table", top, element("tbody", *rows)), class_="wide")


def cell(value: str) -> Html:
    """A cell, unless it is one."""
    is_cell = isinstance(value, Html) and value.startswith("<td")
    return Html(value) if is_cell else element("td", value)


def figure(path: Path, caption: str, name: str = "") -> Html:
    """A PNG, embedded, with its caption; `name` says of which run it is."""
    data = path.read_bytes()
    width, height = struct.unpack(">II", data[16:24])  # of the PNG's header
    across, down = (round(side / _PIXELS_PER_CSS_PIXEL) for side in (width, height))
    image = Html(
        f'<img src="data:image/png;base64,{base64.b64encode(data).decode()}" '
        f'width="{across}" height="{down}" '
        f'alt="{html.escape(" ".join(filter(None, [name, caption])))}">'
    )
    words = [element("b", name), " ", caption] if name else [caption]
    broad = "broad" if across > _BROAD else None
    return element("figure", image, element("figcaption", *words), class_=broad)


def figures(pieces: Sequence[Html]) -> Html:
    """Figures beside one another where the window has room."""
    single = " single" if len(pieces) == 1 else ""
    return element("div", *pieces, class_="figures" + single)


def details(summary: str, *children: str) -> Html:
    """What is folded away until it is asked for."""
    return element("details", element("summary", summary), *children)


def note(text: str) -> Html:
    """Something that the reader must not miss."""
    return element("p", text, class_="note")


def section(title: str, *children: str) -> Html:
    """A section with an anchor of its own name."""
    return element("section", element("h2", title), *children, id=anchor(title))


def anchor(title: str) -> str:
    """The id of a section.

    >>> anchor("Hardest pairs")
    'hardest-pairs'
    """
    return re.sub(r"\W+", "-", title.lower()).strip("-")


def markdown(text: str) -> Html:
    """The pipe tables, lists, paragraphs, bold and code of a Markdown text; no more is known.

    >>> markdown("| a | b |\\n|---|---|\\n| **1** | 2 |")
    '<div class="wide"><table>...<th><b>1</b></th><td>2</td>...'
    """
    return join(_block(block.splitlines()) for block in re.split(r"\n\s*\n", text.strip()))


def _block(lines: Sequence[str]) -> Html:
    if len(lines) > 1 and all(line.lstrip().startswith("|") for line in lines):
        rows = [[inline(w.strip()) for w in line.strip().strip("|").split("|")] for line in lines]
        return table(rows[0], rows[2:])
    if lines and all(line.startswith("- ") for line in lines):
        return element("ul", *(element("li", inline(line[2:])) for line in lines))
    return element("p", inline(" ".join(line.lstrip("# ") for line in lines)))


def inline(text: str) -> Html:
    """The bold and the code of a line of Markdown."""
    escaped = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", html.escape(text))
    return Html(re.sub(r"`(.+?)`", r"<code>\1</code>", escaped))


def page(title: str, lead: str, sections: Sequence[tuple[str, Html]], footer: str) -> str:
    """The whole page, of (title, section) in order."""
    links = [element("a", name, href=f"#{anchor(name)}") for name, _ in sections]
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=html.escape(title),
        lead=join([lead]),
        nav=join(links),
        body="\n".join(piece for _, piece in sections),
        footer=join([footer]),
    )
