"""Emoji with their names, from two npm packages: one .npz of images, texts and styles.

openmoji has the names and drawings as SVG, emoji-datasource-twitter pictures of 64x64. A name such
as "woman judge: light skin tone" is made of parts. One in five emoji is held out by a hash of its
code points, where every word of its name is in three names of the training set.
"""

import io
import json
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from contrastive_jax.data._errors import first_line, needs
from contrastive_jax.data.captions import words_of
from contrastive_jax.data.held_out import fraction_of, hold_out
from contrastive_jax.errors import DataError
from contrastive_jax.storage import workdir

SIDE = 32  # pixels
HELD_OUT = 0.2
MAX_UNPACKED = 1 << 30  # bytes; the published packages are 85 MB
_NAMES = "package/data/openmoji.json"
_LICENSES = ("LICENSE", "LICENSE.txt")


class Package(NamedTuple):
    """A published npm package."""

    url: str
    size: int
    sha256: str
    pictures: str  # folder
    ending: str
    license: str


_REGISTRY = "https://registry.npmjs.org"
PACKAGES = {
    "openmoji": Package(
        f"{_REGISTRY}/openmoji/-/openmoji-17.0.0.tgz",
        4_339_458,
        "55ee7d13485dec86e9f38c1f3a645a13382d33ff97c0cd845ee824b0aef45e68",
        "package/color/svg/",
        ".svg",
        "names and drawings: OpenMoji, https://openmoji.org, CC BY-SA 4.0",
    ),
    "emoji-datasource-twitter": Package(
        f"{_REGISTRY}/emoji-datasource-twitter/-/emoji-datasource-twitter-16.0.0.tgz",
        61_683_754,
        "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
        "package/img/twitter/64/",
        ".png",
        "pictures: Twitter and contributors (Twemoji), CC BY 4.0; code of the package: MIT",
    ),
}
STYLES = {"openmoji": "openmoji", "emoji-datasource-twitter": "twitter"}


def write(root: Path, archives: Sequence[Path]) -> Path:
    """Write emoji.npz and, beside it, the licenses; both appear only when complete.

    Args:
      root: the folder.
      archives: the two packages, as `npm pack` fetches them.

    Raises:
      DataError: not these packages, one that cannot be read, or a folder that cannot be written.
    """
    packages = dict(_read(path) for path in archives)
    if missing := PACKAGES.keys() - packages.keys():
        raise DataError(
            f"the set needs both {' and '.join(PACKAGES)}; {sorted(missing)[0]} is not there\n"
            f"Fetch it: npm pack {sorted(missing)[0]}; then give each by --archive FILE"
        )
    if not (names := _names(packages["openmoji"])):
        raise DataError(f"the openmoji package names no emoji in {_NAMES}")
    arrays = _arrays(names, {style: dict(_drawn(packages[p], p)) for p, style in STYLES.items()})
    try:
        root.mkdir(parents=True, exist_ok=True)
        text = _licenses(packages).decode("utf-8", "replace")
        workdir.write_text(root / "emoji-LICENSES.txt", text)
        workdir.replace_file(root / "emoji.npz", lambda path: _save(path, arrays))
    except OSError as error:
        raise DataError(
            f"cannot write to {root}: {first_line(error)}\nChoose another --data_dir"
        ) from error
    return root / "emoji.npz"


def check_can_draw() -> None:
    """Ask, before anything is fetched, for what draws the pictures.

    Raises:
      DataError: saying what to install.
    """
    with needs("resvg-py pillow"):
        import PIL  # noqa: F401
        import resvg_py  # noqa: F401


def _read(path: Path) -> tuple[str, dict[str, bytes]]:
    """Read what the set needs of a package: (its name, files by name)."""
    folders = tuple(package.pictures for package in PACKAGES.values())
    wanted = {"package/package.json", _NAMES, *(f"package/{name}" for name in _LICENSES)}
    files, unpacked = {}, 0
    try:
        with tarfile.open(path, "r:gz") as tar:
            for member in tar:
                unpacked += member.size
                if unpacked > MAX_UNPACKED:
                    raise tarfile.TarError(f"it unpacks to more than {MAX_UNPACKED:,} bytes")
                if member.name in wanted or member.name.startswith(folders):
                    file = tar.extractfile(member) if member.isreg() else None
                    files.update({member.name: file.read()} if file else {})
        name = json.loads(files["package/package.json"])["name"]
    except (OSError, EOFError, zlib.error, tarfile.TarError, KeyError, ValueError) as error:
        raise DataError(
            f"cannot read {path} as an npm package: {first_line(error)}\n"
            f"Fetch it again: npm pack {' '.join(PACKAGES)}"
        ) from error
    if name not in PACKAGES:
        raise DataError(f"{path} is the package {name!r}; give {' and '.join(PACKAGES)}")
    return name, files


def _names(files: Mapping[str, bytes]) -> dict[str, str]:
    """Read the name of each emoji of Unicode, by its code points."""
    rows = json.loads(files.get(_NAMES, b"[]"))
    return {
        code_points(row["hexcode"]): row["annotation"]
        for row in rows
        if not row["group"].startswith("extras-")
    }


def code_points(name: str) -> str:
    """Normalize the code points that a file is named by; variation selectors say nothing.

    >>> code_points("0023-fe0f-20e3")
    '0023-20E3'
    """
    return "-".join(part for part in name.upper().split("-") if part != "FE0F")


def _drawn(files: Mapping[str, bytes], package: str) -> Iterator[tuple[str, np.ndarray]]:
    """Draw the pictures of a package on white: (code points, [SIDE, SIDE, 3] uint8)."""
    folder, ending = PACKAGES[package].pictures, PACKAGES[package].ending
    for name, content in files.items():
        if name.startswith(folder) and name.endswith(ending):
            try:
                image = _on_white(_rasterized(content) if ending == ".svg" else content)
            except (OSError, ValueError) as error:
                raise DataError(
                    f"{package}: cannot read {name}: {first_line(error)}\n"
                    f"Fetch the package again: npm pack {package}"
                ) from error
            yield code_points(name[len(folder) : -len(ending)]), image


def _rasterized(svg: bytes) -> bytes:
    import resvg_py

    text = svg.decode("utf-8")
    return bytes(resvg_py.svg_to_bytes(svg_string=text, width=64, skip_system_fonts=True))


def _on_white(picture: bytes) -> np.ndarray:
    from PIL import Image

    with Image.open(io.BytesIO(picture)) as image:
        shown = image.convert("RGBA")
    canvas = Image.new("RGBA", shown.size, "white")
    canvas.alpha_composite(shown)
    return np.asarray(canvas.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def _arrays(
    names: Mapping[str, str], pictures: Mapping[str, Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Split the emoji and put their pictures one after another."""
    captions = {code: words_of(name) for code, name in names.items()}
    chosen = {code for code in captions if fraction_of(f"emoji {code}") < HELD_OUT}
    arrays: dict[str, Any] = {}
    for prefix, codes in zip(("", "test_"), hold_out(captions, captions, chosen), strict=True):
        rows = [
            (image[code], names[code], style)
            for code in sorted(codes)
            for style, image in pictures.items()
            if code in image
        ]
        if not rows:
            raise DataError("the packages have too few emoji: none to train on, or none to test on")
        image, text, style = zip(*rows, strict=True)
        arrays |= {f"{prefix}image": np.stack(image), f"{prefix}text": np.array(text)}
        arrays |= {f"{prefix}style": np.array(style)}
    return arrays


def _licenses(packages: Mapping[str, Mapping[str, bytes]]) -> bytes:
    """Put what both packages say of their licenses one after another."""
    parts = []
    for name, files in packages.items():
        parts.append(f"{name}\n{PACKAGES[name].license}\n".encode())
        parts += [files[f"package/{n}"] for n in _LICENSES if f"package/{n}" in files]
    head = b"emoji.npz is made of the pictures below. To pass it on, keep to both licenses:\n"
    return b"\n\n".join(
        [head + b"what is made from OpenMoji is shared under CC BY-SA 4.0.", *parts]
    )


def _save(path: Path, arrays: Mapping[str, Any]) -> None:
    with path.open("wb") as file:  # numpy would add an ending to a path
        np.savez_compressed(file, **arrays)
