"""Image sets prepared by TensorFlow Datasets as ArrayRecord, read without TensorFlow.

Only the prepared folder is read (`tfds.builder_from_directory`): no code of the set, no network.
"""

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from contrastive_jax.data._errors import (
    WITHOUT_DOWNLOAD,
    PathLike,
    first_line,
    how_to_prepare,
    needs,
)
from contrastive_jax.data.examples import Dataset, StoredSplit
from contrastive_jax.data.features import Features, choose_features
from contrastive_jax.data.in_memory import read_split
from contrastive_jax.data.records import split_at
from contrastive_jax.errors import DataError

_VERSION = re.compile(r"\d+\.\d+\.\d+")
_SET_NAME = re.compile(
    r"(?P<base>\w[\w-]*(/(?!\d+\.\d+\.\d+$)\w[\w.+-]*)?)([:/](?P<version>\d+\.\d+\.\d+))?"
)


class Request(NamedTuple):
    """The keys of `data.load` that say which images of a prepared set are wanted."""

    name: str | None
    data_dir: PathLike | None
    train_split: str
    test_split: str
    image_size: int | None
    limit_train: int | None
    limit_test: int | None
    on_corrupt: str
    image_key: str | None
    label_key: str | None


class Prepared(NamedTuple):
    """A prepared set that was found, its metadata read."""

    name: str
    folder: str
    features: Features

    def split(self, split: str, limit: int | None, on_corrupt: str | None) -> StoredSplit:
        """Open a split: its first `limit` images."""
        n = len(split_at(self.folder, split))
        chosen = self.features
        return StoredSplit(
            self.folder, split, min(n, limit or n), chosen.mode, chosen.image_key, chosen.label_key,
            on_corrupt=on_corrupt,
        )  # fmt: skip


def load_tfds(request: Request) -> Dataset:
    """Read a prepared set into memory; only training can do with fewer images."""
    found = open_prepared(request)
    train = found.split(request.train_split, request.limit_train, request.on_corrupt)
    test = found.split(request.test_split, request.limit_test, None)
    shape = _shape(found, request.image_size)
    train, test = (read_split(split, shape, request.image_size) for split in (train, test))
    return Dataset(found.name, train, test, found.features.class_names)


def open_prepared(request: Request) -> Prepared:
    """Find a set by name below the data folder and read its metadata.

    Raises:
      ValueError: for a name that cannot be one. DataError: for a set that is not there.
    """
    name = request.name
    if name is None or not _SET_NAME.fullmatch(name):
        raise ValueError(
            f"source 'tfds' needs the name of a set, got {name!r}\n"
            "Such as cifar10, imagenette/320px-v2 or cifar10:3.0.2"
        )
    root = request.data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    folder = find_prepared(name, Path(root).expanduser())
    with needs("tensorflow-datasets array_record importlib_resources pillow"):
        import array_record  # noqa: F401
        import PIL  # noqa: F401
        import tensorflow_datasets as tfds
    split_at.cache_clear()  # the folder may have been written anew
    try:
        builder: Any = tfds.builder_from_directory(str(folder))
        features = dict(sorted(builder.info.features.items()))
    except Exception as error:  # absent, truncated or foreign metadata: many types
        raise DataError(
            f"cannot read the metadata in {folder}: {first_line(error)}\nPrepare the set again "
            f"elsewhere: {how_to_prepare(name, 'ANOTHER_DIR')}\n{WITHOUT_DOWNLOAD}"
        ) from error
    chosen = choose_features(features, request.image_key, request.label_key, folder)
    return Prepared(name, str(folder), chosen)


def find_prepared(name: str, root: Path) -> Path:
    """Find the newest prepared version of a set, or the version that `name` asks for.

    Args:
      name: "cifar10", "imagenette/320px-v2", or with a version "cifar10:3.0.2" (or with a slash).
      root: the data folder; the folder of the set or of its version is understood as well.

    Raises:
      DataError: when it is not there, with the command that prepares it.
    """
    parts = _SET_NAME.fullmatch(name)
    base, version = (parts["base"], parts["version"]) if parts else (name, None)
    root, given = _data_folder(root.absolute(), base)
    version = version or given
    found = [path.parent for path in (root / base).glob("*/dataset_info.json")]
    versions = {path.name: path for path in found if _VERSION.fullmatch(path.name)}
    if version in versions:
        return versions[version]
    if versions and not version:
        return versions[max(versions, key=lambda text: tuple(map(int, text.split("."))))]
    configs = sorted({path.parts[-3] for path in (root / base).glob("*/*/dataset_info.json")})
    if versions:
        problem = f"{root} has {base} in version {', '.join(sorted(versions))}, not {version}"
    elif configs:
        problem = f"{root} has {base} only by config: set name to '{base}/{configs[0]}'"
    else:
        problem = f"no {base} in {root}: {base}/<version>/dataset_info.json is not there"
    raise DataError(f"{problem}\nPrepare it: {how_to_prepare(base, root)}\n{WITHOUT_DOWNLOAD}")


def _data_folder(root: Path, base: str) -> tuple[Path, str | None]:
    """Go up to the data folder where that of a set, or of its version, was given in its place."""
    parts = Path(base).parts
    version = root.name if _VERSION.fullmatch(root.name) else None
    folder = root.parent if version else root
    for depth in range(len(parts), 0, -1):
        if folder.parts[-depth:] == parts[:depth] and not (root / base).is_dir():
            return folder.parents[depth - 1], version
    return root, None


def _shape(found: Prepared, image_size: int | None) -> tuple[int, int, int]:
    height, width, channels = found.features.shape
    if image_size:
        return image_size, image_size, channels
    if height is None or width is None:
        raise DataError(
            f"the images of {found.name} vary in size\n"
            "Set image_size: their short side in pixels, after which a square is cropped"
        )
    return height, width, channels
