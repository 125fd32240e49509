"""Folders of image files, with a folder for each class or without labels."""

import functools
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from contrastive_jax.data import decode, tree
from contrastive_jax.data._errors import PathLike, check_packages
from contrastive_jax.data.examples import UNLABELED, Dataset, ImageFiles, Members, StoredSplit
from contrastive_jax.data.in_memory import read_split
from contrastive_jax.data.records import chunks_of, map_chunks, naming, read_rows
from contrastive_jax.data.streaming import evaluated
from contrastive_jax.errors import DataError

TEST_FRACTION = 0.1
_OTHER_TESTS = ("val", "valid", "validation")  # in place of test/
_ROWS_PER_READ = 64
_log = logging.getLogger(__name__)


class Request(NamedTuple):
    """The keys of `data.load` that say which images of a folder are wanted, and how."""

    data_dir: PathLike | None
    train_split: str
    test_split: str
    test_fraction: float | None
    split_seed: int
    class_folders: bool
    image_size: int | None
    channels: int
    exif_orientation: bool
    limit_train: int | None
    limit_test: int | None
    on_corrupt: str


class Part(NamedTuple):
    """The files of a split."""

    folder: Path
    paths: Any  # below it: text, or bytes [N]
    label_N: np.ndarray
    members: Members | None = None  # where they are within tar files


def load_folder(request: Request, streaming: bool, workers: int, bank: int | None) -> Dataset:
    """Read the images of a folder into memory, or open them for streaming.

    Args:
      request: which images.
      streaming: leave them on disk.
      workers: processes that decode for training, where streamed.
      bank: how many training images evaluation reads, where streamed; all where it is None.

    Raises:
      ValueError: no folder given, or a fraction that is none. DataError: what the folder lacks.
    """
    check(request, "folder", "a folder of images", streaming)
    root = Path(request.data_dir or "").expanduser().absolute()
    parts, classes = _parts(root, request)
    return of_parts(root.resolve().name, parts, classes, request, streaming, workers, bank)


def check(request: Request, source: str, what: str, streaming: bool) -> None:
    """Ask a request for what cannot be meant, and for the packages that it takes.

    Raises:
      ValueError: names the key. DataError: names the package.
    """
    if request.data_dir is None:
        raise ValueError(f"source {source!r} needs data_dir: {what}")
    if request.test_fraction is not None and not 0 < request.test_fraction < 1:
        raise ValueError(f"test_fraction is {request.test_fraction}; give one between 0 and 1")
    if request.channels not in decode.MODES:
        raise ValueError(f"channels is {request.channels}; give 1, 2, 3 or 4")
    check_packages(streaming)


def of_parts(
    name: str,
    parts: tuple[Part, Part],
    class_names: tuple[str, ...],
    request: Request,
    streaming: bool,
    workers: int,
    bank: int | None,
) -> Dataset:
    """Read both splits into memory, or open them for streaming; see `load_folder`.

    Args:
      name: of the set.
      parts: training and test.
      class_names: by number; () where labels are any integers, or none.
      request, streaming, workers, bank: as of `load_folder`.
    """
    train = _stored(request, "train", parts[0], request.limit_train)
    test = _stored(request, "test", parts[1], request.limit_test)
    if train.label_key and not class_names:
        found = np.unique(parts[0].label_N)
        train = train._replace(classes=tuple(found[found >= 0].tolist()))
    if streaming:
        assert request.image_size is not None  # checked by `load`
        sets = evaluated(train, test, request.image_size, bank)
        return Dataset(name, *sets, class_names, stream=train._replace(workers=workers))
    shape = shape_of((train, test), request.image_size)
    return Dataset(
        name,
        read_split(train, shape, request.image_size),
        read_split(test, shape, request.image_size),
        class_names,
    )


def _parts(root: Path, request: Request) -> tuple[tuple[Part, Part], tuple[str, ...]]:
    """Choose the files of both splits: by their folders where there are, else a sampled part."""
    folders = _split_folders(root, request)
    if len(folders) == 2:
        return _of_two_folders(root, folders, request)
    folder = root.joinpath(*folders)
    found = _walk(folder)
    if len(found.paths) < 2:
        raise DataError(f"{folder} holds one image\nTraining and test need one each at least")
    classes = found.classes() if request.class_folders else ()
    label_N = tree.labels(found.paths, classes)
    fraction = request.test_fraction or TEST_FRACTION
    rows = tree.sampled_split(label_N, fraction, request.split_seed)
    if not len(rows[1]):
        raise DataError(f"{folder}: no class has two images\nTraining and test need one each")
    train, test = (Part(folder, [found.paths[i] for i in part], label_N[part]) for part in rows)
    return (train, test), classes


def _split_folders(root: Path, request: Request) -> list[str]:
    """Name the folders of training and test; of training alone where none is there for test.

    Raises:
      DataError: for a folder that was asked for, or a test folder beside none for training.
    """
    by_name = {name.lower(): name for name in tree.subfolders(root)} if root.is_dir() else {}
    usual = (request.test_split, *(_OTHER_TESTS if request.test_split == "test" else ()))
    train = by_name.get(request.train_split.lower())
    asked = request.train_split != "train", request.test_split != "test"
    test = next((by_name[name.lower()] for name in usual if name.lower() in by_name), None)
    if train is not None and test is None and len(by_name) > 1 and not any(asked):
        return []  # among other folders it is a class: trains beside cars
    if (train is None and (test is not None or any(asked))) or (test is None and asked[1]):
        has = ", ".join(by_name.values()) or "none"
        raise DataError(
            f"{root} has no folder {request.train_split if train is None else request.test_split}; "
            f"its folders are {has}\nSet data.train_split and data.test_split to two of them"
        )
    if test is not None and request.test_fraction is not None:
        raise ValueError(f"test_fraction is given, but {root} has a folder {test} for the test")
    chosen = [name for name in (train, test) if name is not None]
    unread = [name for name in by_name.values() if name not in chosen] if chosen else []
    if unread:
        _log.warning("%s: read are %s, not %s", root, " and ".join(chosen), ", ".join(unread[:10]))
    return chosen


def _of_two_folders(
    root: Path, folders: Sequence[str], request: Request
) -> tuple[tuple[Part, Part], tuple[str, ...]]:
    train, test = (_walk(root / name) for name in folders)
    of_train = train.classes() if request.class_folders else ()
    of_test = test.classes(1 if of_train else 2) if request.class_folders else ()
    classes = of_train or of_test
    new = sorted(set(of_test) - set(classes))
    if new:
        raise DataError(
            f"{root / folders[1]} has the class {new[0]}, which {root / folders[0]} lacks\n"
            "Classes are those of the training images"
        )
    label_N, label_M = (
        tree.labels(train.paths, of_train),
        tree.labels(test.paths, of_test and classes),
    )
    if of_test and (label_M == UNLABELED).any():
        stray = test.paths[int(np.flatnonzero(label_M == UNLABELED)[0])]
        raise DataError(
            f"{root / folders[1] / stray} lies in no class folder\n"
            "Only training images may lack a class where others have one"
        )
    parts = (
        Part(root / folders[0], train.paths, label_N),
        Part(root / folders[1], test.paths, label_M),
    )
    return parts, classes


def _walk(folder: Path) -> tree.Tree:
    """List the images of a folder; warnings name what it has beside them."""
    found = tree.walk(folder)
    if found.empty:
        _log.warning("%s: no image in %s", folder, ", ".join(found.empty[:10]))
    if found.others:
        kinds = ", ".join(f"{n} {kind}" for kind, n in found.others.items())
        _log.warning("%s: left out files that are no images: %s", folder, kinds)
    return found


def _stored(request: Request, split: str, part: Part, limit: int | None) -> StoredSplit:
    """Describe a split by its files, in random order: the first ones are of all classes."""
    rows = np.random.default_rng(request.split_seed).permutation(len(part.paths))[:limit]
    paths = [os.fsencode(part.paths[int(row)]) for row in rows]
    members = part.members and part.members.take(rows)
    files = ImageFiles(np.array(paths), part.label_N[rows], members=members)
    has_labels = bool((part.label_N != UNLABELED).any())
    return StoredSplit(
        str(part.folder), split, len(rows), decode.MODES[request.channels], "image",
        "label" if has_labels else None, on_corrupt=request.on_corrupt, files=files,
        upright=request.exif_orientation,
    )  # fmt: skip


def shape_of(splits: Sequence[StoredSplit], image_size: int | None) -> tuple[int, int, int]:
    """Find the one size of all images, or take that which they are brought to.

    Raises:
      DataError: names two images of different sizes.
    """
    channels = len(splits[0].mode)
    if image_size is not None:
        return image_size, image_size, channels
    first_of: dict[tuple[int, int], str] = {}
    for split in splits:
        read = functools.partial(_sizes, split)
        for sizes in map_chunks(read, chunks_of(range(split.n), _ROWS_PER_READ), split.split):
            first_of = sizes | first_of
    if len(first_of) > 1:
        (size, one), (other_size, other) = list(first_of.items())[:2]
        raise DataError(
            f"images vary in size: {one} is {size[1]}x{size[0]}, {other} {other_size[1]}x"
            f"{other_size[0]}\nSet data.image_size: their short side in pixels, after which a "
            "square is cropped"
        )
    if not first_of:
        raise DataError(f"none of the images in {splits[0].folder} can be read")
    return (*next(iter(first_of)), channels)


def _sizes(split: StoredSplit, rows: Sequence[int]) -> dict[tuple[int, int], str]:
    """Name the first image of each size among some rows."""
    found: dict[tuple[int, int], str] = {}
    for row in rows:
        try:
            for record in read_rows(split, [row]):
                with naming(split, row):
                    size = decode.read_size(record["image"], split.upright)
                found.setdefault(size, split.place(row))
        except DataError:
            if split.on_corrupt != "skip":
                raise
    return found
