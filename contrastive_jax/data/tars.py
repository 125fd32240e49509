"""Images in tar files, as WebDataset writes them: members of one name are an image and its label.

    train-000.tar    n01440764_10026.jpg  n01440764_10026.cls  n01440764_10027.jpg  ...
    val-000.tar      ...
    classnames.txt   a class a line, or not there

An index of the members of each tar is made once and cached; then images are read at random, like
those of a folder.
"""

import fnmatch
import logging
import os
import re
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from contrastive_jax.data import _cache, folder, tree
from contrastive_jax.data._errors import first_line
from contrastive_jax.data.examples import UNLABELED, Dataset, Members
from contrastive_jax.data.folder import Part, Request
from contrastive_jax.data.records import map_chunks
from contrastive_jax.errors import DataError

LABELS = ("cls", "cls.txt")
NAMES = ("classnames.txt", "classes.txt")
_FORMAT = 1  # of the cache
_log = logging.getLogger(__name__)


class Index(NamedTuple):
    """The images of a tar, in its order."""

    name_N: np.ndarray  # bytes, of the member
    start_N: np.ndarray  # int64, of its first byte
    size_N: np.ndarray  # int64, in bytes
    label_N: np.ndarray  # int64, -1 where there is none
    without_image: np.ndarray  # int64, how many samples


def load_tars(request: Request, streaming: bool, workers: int, bank: int | None) -> Dataset:
    """Read the images of tar files into memory, or open them for streaming.

    Args:
      request: which images. The splits are names that the files begin with, or patterns of their
        paths, such as "train-{000..099}.tar" or "train/*.tar".
      streaming, workers, bank: as `folder.load_folder`.

    Raises:
      ValueError: a key that cannot be meant. DataError: tars that are missing or damaged, a label
        that is no integer.
    """
    folder.check(request, "webdataset", "a folder of .tar files", streaming)
    root = Path(request.data_dir or "").expanduser().absolute()
    train, test = _shards(root, request)
    parts = [_part(root, shards, request.on_corrupt) for shards in (train, test) if shards]
    if len(parts) == 1:
        whole, fraction = parts[0], request.test_fraction or folder.TEST_FRACTION
        rows = tree.sampled_split(whole.label_N, fraction, request.split_seed)
        if not all(map(len, rows)):
            raise DataError(f"{root} holds one image of a class\nTraining and test need one each")
        parts = [_rows_of(whole, each) for each in rows]
    names = _class_names(root, parts)
    return folder.of_parts(root.resolve().name, (parts[0], parts[1]), names, request, streaming,
                           workers, bank)  # fmt: skip


def _shards(root: Path, request: Request) -> tuple[list[str], list[str]]:
    """Choose the tars of both splits; none for the test where it is to be sampled."""
    found = _tars(root)
    test = _of_split(root, found, request.test_split)
    asked = request.train_split != "train", request.test_split != "test"
    if not test and not asked[1]:
        test = [name for name in found if name.lower().startswith("val")]
    train = _of_split(root, found, request.train_split)
    if not train and not asked[0]:
        train = [name for name in found if name not in test]
    for split, chosen, needed in (("train", train, True), ("test", test, asked[1])):
        if needed and not chosen:
            raise DataError(
                f"{root} has no .tar of data.{split}_split {getattr(request, split + '_split')!r}, "
                f"but {_few(found)}\nGive how their names begin, or a pattern: "
                '"train-{000..099}.tar"'
            )
    both = sorted({*train} & {*test})
    if both:
        raise DataError(
            f"{root / both[0]} is of both splits\nSet data.train_split, data.test_split"
        )
    if test and request.test_fraction is not None:
        raise ValueError(f"test_fraction is given, but {root} has {test[0]} for the test")
    return train, test


def _tars(root: Path) -> list[str]:
    """List the tars below a folder; compressed ones are none, as nothing in them can be found."""
    if not root.is_dir():
        raise DataError(f"there is no folder {root}\nSet data.data_dir to a folder of .tar files")
    below = [path.relative_to(root) for path in sorted(root.rglob("*.tar"))]
    found = [path.as_posix() for path in below if not any(p.startswith(".") for p in path.parts)]
    if not found:
        packed = next(root.rglob("*.tar.*"), next(root.rglob("*.tgz"), None))
        if packed is not None:
            raise DataError(
                f"{packed} is compressed, and images in it cannot be found\nUnpack it to a .tar"
            )
        raise DataError(f"{root} holds no .tar\nFor image files use data.source=folder")
    return found


def _of_split(root: Path, found: Sequence[str], split: str) -> list[str]:
    if not re.search(r"[*?\[{]", split) and not split.endswith(".tar"):
        return [name for name in found if name.lower().startswith(split.lower())]
    chosen = []
    for pattern in expand(split):
        matched = fnmatch.filter(found, pattern)
        if not matched:
            raise DataError(
                f"{root} has no {pattern}, but {_few(found)}\nChange the split's pattern"
            )
        chosen += matched
    return sorted(set(chosen))


def expand(pattern: str) -> Iterator[str]:
    """Write out braces as a shell does.

    >>> [*expand("t-{08..10}.tar")], [*expand("{a,b}-{0..1}")]
    (['t-08.tar', 't-09.tar', 't-10.tar'], ['a-0', 'a-1', 'b-0', 'b-1'])
    """
    found = re.search(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}", pattern)
    if found is None:
        yield pattern
        return
    first, last, listed = found.groups()
    if listed is None:
        numbers = range(int(first), int(last) + 1)
        choices = [f"{number:0{len(first)}}" for number in numbers]
    else:
        choices = listed.split(",")
    for choice in choices:
        yield from expand(pattern[: found.start()] + choice + pattern[found.end() :])


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _part(root: Path, shards: Sequence[str], on_corrupt: str) -> Part:
    """Index the tars of a split."""
    found = []
    for index in map_chunks(
        lambda names: read_index(root / names[0], on_corrupt), [[name] for name in shards], "tars"
    ):
        found.append(index)
    without = sum(int(index.without_image) for index in found)
    if without:
        _log.warning("%s: %d samples have no image", root, without)
    name_N, start_N, size_N, label_N = (
        np.concatenate([getattr(index, field) for index in found]) for field in Index._fields[:4]
    )
    if not len(name_N):
        endings = ", ".join(tree.SUFFIXES)
        raise DataError(f"{root}: no image in {_few(shards)}\nImages end in {endings}")
    shard_N = np.repeat(np.arange(len(found), dtype=np.int32), [len(i.name_N) for i in found])
    return Part(root, name_N, label_N, Members(tuple(shards), shard_N, start_N, size_N))


def _rows_of(part: Part, rows: np.ndarray) -> Part:
    assert part.members is not None
    return Part(part.folder, part.paths[rows], part.label_N[rows], part.members.take(rows))


def _class_names(root: Path, parts: Sequence[Part]) -> tuple[str, ...]:
    """Read the names of the classes, where a file has them."""
    path = next((root / name for name in NAMES if (root / name).is_file()), None)
    if path is None:
        return ()
    names = tuple(line for line in path.read_text("utf-8").splitlines() if line.strip())
    highest = max(int(part.label_N.max()) for part in parts)
    if highest >= len(names):
        raise DataError(f"{path} names {len(names)} classes, and a label is {highest}\nMend it")
    return names


def read_index(path: Path, on_corrupt: str = "error") -> Index:
    """Find the images of a tar and their labels; what an earlier call found is cached.

    Args:
      path: of a tar that is not compressed.
      on_corrupt: "skip" keeps the members before the place where a tar is cut, with a warning.

    Raises:
      DataError: the tar is cut or is none, or a label is no integer.
    """
    status = path.stat()
    key = _FORMAT, str(path.resolve()), status.st_size, status.st_mtime_ns, on_corrupt
    kept = _cache.path_of("tar", key, ".npz")
    try:
        with open(kept, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return Index(*(arrays[field] for field in Index._fields))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # not there yet, or damaged
    found, whole = _scan(path, on_corrupt)
    if whole:  # else the next run warns again
        _cache.keep(kept, lambda target: np.savez(target, **found._asdict()))
    return found


def _scan(path: Path, on_corrupt: str) -> tuple[Index, bool]:
    """Read the headers; whether the tar ends as a whole one does."""
    images: dict[str, tuple[bytes, int, int]] = {}
    labels: dict[str, int] = {}
    keys: set[str] = set()
    whole = True
    try:
        with tarfile.open(path, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # which would grow with the tar  # type: ignore[misc]
                above, _, name = member.name.rpartition("/")
                stem, _, ending = name.partition(".")
                key, ending = f"{above}/{stem}", ending.lower()
                if not member.isfile() or not stem or not ending:
                    continue
                keys.add(key)
                if f".{ending}" in tree.SUFFIXES:
                    place = os.fsencode(member.name), member.offset_data, member.size
                    images.setdefault(key, place)
                elif ending in LABELS:
                    labels[key] = _label(path, member.name, tar.extractfile(member))
            if tar.offset + tarfile.BLOCKSIZE > path.stat().st_size:
                raise tarfile.ReadError("it lacks the mark of its end, as a tar that is cut")
    except (tarfile.TarError, OSError, EOFError) as error:
        if on_corrupt != "skip" or not images:
            raise DataError(
                f"cannot read {path}: {first_line(error)}\n"
                'Set data.on_corrupt="skip" to use what stands before, or mend that file'
            ) from error
        whole = False
        _log.warning("%s is cut after %d images: %s", path, len(images), first_line(error))
    found = Index(
        np.array([name for name, _, _ in images.values()], np.bytes_),
        np.array([start for _, start, _ in images.values()], np.int64),
        np.array([size for _, _, size in images.values()], np.int64),
        np.array([labels.get(key, UNLABELED) for key in images], np.int64),
        np.array(len(keys - images.keys())),
    )
    return found, whole


def _label(path: Path, name: str, file: object) -> int:
    content = file.read(100) if file is not None else b""  # type: ignore[attr-defined]
    try:
        label = int(content)
    except ValueError:
        label = -1
    if label < 0:
        raise DataError(
            f"{path}: {name} is {content[:20]!r}, no class number\nClasses are integers from 0 on"
        )
    return label
