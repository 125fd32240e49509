"""A report's HTML: one self-contained file, every string of which is escaped by the template."""

import base64
import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2
import markupsafe
from markdown_it import MarkdownIt

import contrastive_jax

Drawn = tuple[Path, str]  # a PNG and its caption
_DOTS_PER_PIXEL = 150 / 96  # figures have 150 dots an inch, CSS 96 pixels


def page(content: Mapping[str, Any]) -> str:
    """Render the content of a report."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"markdown": _markdown, "json": json.dumps}
    return environment.get_template("page.html").render(
        content, version=contrastive_jax.__version__
    )


def picture(name: str, drawn: Drawn | str) -> dict[str, Any]:
    """Embed a picture of a run as a data URI, or give a note where there is none."""
    if isinstance(drawn, str):
        return {"note": f"{name}: {drawn}" if name else drawn}
    path, caption = drawn
    data = path.read_bytes()
    if data[:8] != b"\x89PNG\r\n\x1a\n" or len(data) < 24:
        return {"note": f"{name}: {path} is no PNG and is not shown."}
    width, height = (round(n / _DOTS_PER_PIXEL) for n in struct.unpack(">II", data[16:24]))
    source = "data:image/png;base64," + base64.b64encode(data).decode()
    return {"name": name, "caption": caption, "source": source, "width": width, "height": height}


def attempt(make: Callable[[], Drawn | str]) -> Drawn | str:
    """Draw a picture, or give the reason why it could not be drawn: it never costs the report."""
    try:
        return make()
    except Exception as error:
        return f"could not be drawn. {reason(error)}"


def reason(error: Exception) -> str:
    """Write an error on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _markdown(text: str) -> markupsafe.Markup:
    """Render Markdown with tables; HTML in it is escaped, links and images stay text."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.disable(["link", "image", "autolink", "reference"])
    return markupsafe.Markup(parser.render(text))
