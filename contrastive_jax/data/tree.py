"""Which files of a folder are images, of which classes, and which of them train or test."""

import collections
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from contrastive_jax.data.examples import UNLABELED
from contrastive_jax.errors import DataError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")


class Tree(NamedTuple):
    """The image files below a folder, in order of their paths."""

    paths: tuple[str, ...]  # below the folder, with "/" on every system
    others: Mapping[str, int]  # files that are no images, by suffix
    empty: tuple[str, ...]  # folders right below it without an image

    def classes(self, least: int = 2) -> tuple[str, ...]:
        """Name the folders right below that hold images, at any depth: none of fewer than least."""
        tops = {path.partition("/")[0] for path in self.paths if "/" in path}
        return tuple(sorted(tops)) if len(tops) >= least else ()


def walk(folder: Path) -> Tree:
    """List the image files below a folder, hidden ones left out; links are followed.

    Raises:
      DataError: there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}\nSet data.data_dir to a folder of images")
    files = list(_files(str(folder), "", ()))
    paths = tuple(sorted(path for path in files if suffix(path) in SUFFIXES))
    others = collections.Counter(suffix(path) or "none" for path in files)
    others = {key: n for key, n in sorted(others.items()) if key not in SUFFIXES}
    if not paths:
        found = ", ".join(f"{n} {key}" for key, n in others.items()) or "nothing else"
        raise DataError(
            f"{folder} holds no image; it has {found}\nImages end in {', '.join(SUFFIXES)}"
        )
    tops = {path.partition("/")[0] for path in paths}
    empty = tuple(name for name in subfolders(folder) if name not in tops)
    return Tree(paths, others, empty)


def suffix(path: str) -> str:
    """Give the end of a name in lower case.

    >>> suffix("holiday/IMG_1.JPG")
    '.jpg'
    """
    return os.path.splitext(path)[1].lower()


def subfolders(folder: Path) -> list[str]:
    """Name the folders in a folder that are not hidden, sorted."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if not _hidden(entry) and entry.is_dir())


def _hidden(entry: os.DirEntry[str]) -> bool:
    return entry.name.startswith(".") or entry.name == "__MACOSX"


def _files(folder: str, below: str, above: tuple[str, ...]) -> Iterator[str]:
    real = os.path.realpath(folder)
    if real in above:  # a link back to where we came from
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if _hidden(entry):
                continue
            if entry.is_dir():
                yield from _files(entry.path, f"{below}{entry.name}/", (*above, real))
            elif entry.is_file() or entry.is_symlink():  # one to nowhere cannot be read: said later
                yield below + entry.name


def labels(paths: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """Number the class folder of each path, -1 outside of them: [N] int32.

    >>> labels(["cat/a.png", "dog/old/b.png", "c.png"], ["cat", "dog"]).tolist()
    [0, 1, -1]
    """
    number = {name: i for i, name in enumerate(classes)}
    tops = (path.partition("/") for path in paths)
    found = [number.get(top, UNLABELED) if rest else UNLABELED for top, _, rest in tops]
    return np.array(found, np.int32)


def sampled_split(label_N: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sample rows of a training and a test split, each class apart; a class of one only trains.

    Args:
      label_N: class numbers; where some are not -1, those that are only train.
      fraction: of each class for the test, at least one image.
      seed: of the sample.

    Returns:
      Rows of training and of test, in order.

    >>> train, test = sampled_split(np.array([0, 0, 0, 1, 1, 1, -1]), fraction=1 / 3, seed=0)
    >>> len(train), len(test), 6 in train
    (5, 2, True)
    """
    rng, chosen = np.random.default_rng(seed), np.zeros(len(label_N), bool)
    numbers = np.unique(label_N)
    for number in numbers[numbers != UNLABELED] if len(numbers) > 1 else numbers:
        rows = rng.permutation(np.flatnonzero(label_N == number))
        n = min(max(round(fraction * len(rows)), 1), len(rows) - 1)
        chosen[rows[:n]] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)
