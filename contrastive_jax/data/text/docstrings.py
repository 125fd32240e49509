"""Docstrings of installed code: what a function is said to do, and the body that does it.

A query is the first line of a docstring, its document the body of that function with the
function's own name hidden. Files of the standard library and of the packages that
requirements.txt installs are parsed and never imported. The set moves with their versions, so a
digest of it belongs to every score.
"""

import ast
import hashlib
import importlib.metadata
import importlib.util
import json
import platform
import re
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from contrastive_jax.data import _cache
from contrastive_jax.data.text.collection import Collection, of_pairs
from contrastive_jax.errors import DataError

PACKAGES = (
    *("PIL", "absl", "flax", "grain", "jax", "jinja2", "markdown_it", "matplotlib"),
    *("ml_collections", "numpy", "optax", "orbax", "safetensors", "scipy", "sklearn"),
    *("tensorboardX", "tensorflow_datasets", "tqdm"),
)
SPLITS = ("train", "validation", "test")
GROUPS = ("file", "package")
STDLIB = "stdlib"
_SKIPPED = {"test", "tests", "testing", "site-packages", "dist-packages", "lib2to3", "idlelib"}
_LONGEST = 2000  # characters of a body
_FEWEST = 4  # words of a summary, and of a body
_FORMAT = 1  # of the cache


class Docstring(NamedTuple):
    """A summary, the body of its function, and where both stand."""

    query: str
    document: str
    package: str  # top-level name
    file: str  # relative to what holds the package


def of_source(source: str, package: str, file: str) -> Iterator[Docstring]:
    """Find the documented functions and methods of a source text.

    >>> text = '''def double(x):
    ...     "Return twice the given number."
    ...     if isinstance(x, str): return double(int(x))
    ...     return 2 * x'''
    >>> [found] = of_source(text, "pkg", "pkg/a.py")
    >>> found.query
    'Return twice the given number.'
    >>> print(found.document)
    if isinstance(x, str): return _(int(x))
    return 2 * x
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other people's escapes
        tree = ast.parse(source)
    lines = source.splitlines()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            summary, body = _summary(node), _body(node, lines)
            if min(_n_words(summary), _n_words(body)) >= _FEWEST:
                yield Docstring(summary, body[:_LONGEST], package, file)


def _summary(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    return ((ast.get_docstring(node) or "").strip().splitlines() or [""])[0].strip()


def _body(node: ast.FunctionDef | ast.AsyncFunctionDef, lines: Sequence[str]) -> str:
    """The lines below the docstring, with the name of the function hidden."""
    if len(node.body) < 2:
        return ""
    kept = lines[(node.body[0].end_lineno or 0) : node.end_lineno]
    indent = min((len(x) - len(x.lstrip()) for x in kept if x.strip()), default=0)
    return re.sub(rf"\b{node.name}\b", "_", "\n".join(line[indent:] for line in kept)).strip()


def _n_words(text: str) -> int:
    return len(re.findall(r"[^\W\d_]{2,}", text))


def _folders() -> dict[str, tuple[Path, str]]:
    """The folder of each package that is installed, and its version; nothing is imported."""
    found = {STDLIB: (Path(sysconfig.get_paths()["stdlib"]), platform.python_version())}
    owners = importlib.metadata.packages_distributions()
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations:
            folder = Path(next(iter(spec.submodule_search_locations)))
            version = importlib.metadata.version(owners[name][0]) if name in owners else ""
            found[name] = folder, version
    return found


def _parse(name: str, folder: Path) -> Iterator[Docstring]:
    for path in sorted(folder.rglob("*.py")):
        inside = path.relative_to(folder)
        if _SKIPPED & set(inside.parts) or path.name.startswith(("test_", "conftest")):
            continue
        top = inside.parts[0].removesuffix(".py") if name == STDLIB else name
        try:
            source = path.read_text("utf-8")
            yield from of_source(source, top, f"{name}/{inside.as_posix()}")
        except (OSError, ValueError, SyntaxError, RecursionError):
            continue  # files of templates and of other versions of Python


def extract(folders: dict[str, Path]) -> list[Docstring]:
    """Parse whole packages; of equal summaries, and of equal bodies, the first is kept."""
    kept: list[Docstring] = []
    seen: set[str] = set()
    for name, folder in folders.items():
        for row in _parse(name, folder):
            if row.query not in seen and row.document not in seen:
                seen |= {row.query, row.document}
                kept.append(row)
    return kept


def split_of(group: str) -> str:
    """Assign a file or a package to a split by its name: 7 of 10 train, 1 validation, 2 test.

    >>> split_of("stdlib/ast.py"), split_of("numpy")
    ('train', 'train')
    """
    part = int(hashlib.sha256(group.encode()).hexdigest(), 16) % 10
    return "test" if part < 2 else "validation" if part == 2 else "train"


def load(
    split: str = "test", group: str = "file", packages: Sequence[str] | None = None
) -> Collection:
    """Make the collection of a split: its queries, and the bodies of the same split to search.

    The first call parses all files, which takes about half a minute, and caches what it found.

    Args:
      split: "train", "validation" or "test".
      group: "file" or "package": whose members are in one split.
      packages: those of them alone, of `PACKAGES` and "stdlib"; None for all.

    Raises:
      ValueError: another split, group or package. DataError: nothing was found.
    """
    if split not in SPLITS or group not in GROUPS:
        key, value = ("group", group) if split in SPLITS else ("split", split)
        known = GROUPS if key == "group" else SPLITS
        raise ValueError(f"the {key} of docstrings is {value!r}; give one of {known}")
    folders = _folders()
    unknown = [name for name in packages or () if name not in (*PACKAGES, *folders)]
    if unknown or packages == ():
        known = ", ".join((STDLIB, *PACKAGES))
        raise ValueError(f"data.packages is {packages}; give some of {known}, or None for all")
    rows = [row for row in _cached(folders) if _is_of(row, packages)]
    chosen = [row for row in rows if split_of(getattr(row, group)) == split]
    if not chosen:
        raise DataError("No docstrings were found.\nInstall the packages of requirements.txt.")
    missing = [name for name in packages or PACKAGES if name not in folders]
    notes = [f"{len(rows):,} docstrings by {group}, sha256 {digest(rows)[:16]}"]
    notes += [f"not installed, so left out: {', '.join(missing)}"] if missing else []
    pairs = [(row.query, (row.document,)) for row in chosen]
    found = of_pairs(f"docstrings by {group}", split, pairs, tuple(notes))
    package_of = {row.document: row.package for row in chosen}
    groups = {document: package_of[text] for document, text in found.documents.items()}
    return found._replace(groups=groups)


def _is_of(row: Docstring, packages: Sequence[str] | None) -> bool:
    return packages is None or row.file.partition("/")[0] in packages


def digest(rows: Sequence[Docstring]) -> str:
    """Digest all rows, with their order."""
    found = hashlib.sha256()
    for row in rows:
        found.update(json.dumps(row).encode())
    return found.hexdigest()


def _cached(folders: dict[str, tuple[Path, str]]) -> list[Docstring]:
    """Read what an earlier call found in the same versions, or find and keep it."""
    parsed = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()  # by this very code
    key = _FORMAT, parsed, [(name, str(f), v) for name, (f, v) in folders.items()]
    path = _cache.path_of("docstrings", key, ".json")
    try:
        kept = json.loads(path.read_text())
        rows = [Docstring(*row) for row in kept["rows"]]
        if kept["sha256"] == digest(rows):
            return rows
    except (OSError, ValueError, TypeError, KeyError):
        pass  # not there yet, or damaged: found again
    rows = extract({name: folder for name, (folder, _) in folders.items()})
    kept = json.dumps({"sha256": digest(rows), "rows": rows})
    _cache.keep(path, lambda target: target.write_text(kept))
    return rows
