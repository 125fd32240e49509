"""Image classification sets prepared by TensorFlow Datasets as ArrayRecord, without TensorFlow.

Only the prepared folder is read (`tfds.builder_from_directory`): no code of the set, no network.
"""

import functools
import logging
import os
import re
import shlex
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from contrastive_jax.data import decode
from contrastive_jax.data._errors import WITHOUT_DOWNLOAD, PathLike, first_line, needs
from contrastive_jax.data.examples import Examples
from contrastive_jax.errors import DataError

PREPARABLE = ("cifar10", "cifar100")  # what `python -m experiments.prepare` can write
_SET_NAME = re.compile(r"\w[\w-]*(/\w[\w.+-]*)?(:\d+\.\d+\.\d+)?")
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_ROWS_PER_READ = 128
_log = logging.getLogger(__name__)


class Prepared(NamedTuple):
    """A prepared set that was found, its metadata read."""

    name: str
    builder: Any  # of tensorflow_datasets
    class_names: tuple[str, ...]
    mode: str  # Pillow's name of its pixels


def load_tfds(
    name: str | None,
    data_dir: PathLike | None,
    splits: tuple[str, str],
    image_size: int | None,
    limits: tuple[int | None, int | None],
    on_corrupt: str = "error",
) -> tuple[str, Examples, Examples, tuple[str, ...]]:
    """Title, train, test and class names of a prepared set; only training can do with less."""
    found = open_prepared(name, data_dir)
    train, test = (
        _read_split(found.builder, split, limit, found.mode, image_size, rule)
        for split, limit, rule in zip(splits, limits, (on_corrupt, "error"), strict=True)
    )
    return found.name, train, test, found.class_names


def open_prepared(name: str | None, data_dir: PathLike | None) -> Prepared:
    """Find a set by name below the data folder and read what it says of itself.

    Raises:
      ValueError: for a name that cannot be one. DataError: for a set that is not there.
    """
    if name is None or not _SET_NAME.fullmatch(name):
        raise ValueError(
            f"source 'tfds' needs the name of a set, got {name!r}\n"
            "Such as cifar10, imagenette/320px-v2 or cifar10:3.0.2"
        )
    root = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    folder = find_prepared(name, Path(root).expanduser())
    with needs("tensorflow-datasets array_record importlib_resources pillow"):
        import array_record  # noqa: F401
        import PIL  # noqa: F401
        import tensorflow_datasets as tfds
    try:
        builder: Any = tfds.builder_from_directory(str(folder))
        class_names = tuple(builder.info.features["label"].names)
        mode = decode.MODES[builder.info.features["image"].shape[-1]]
    except Exception as error:  # absent, truncated or foreign metadata: many types
        raise _unreadable("images and labels", folder, error) from error
    return Prepared(name, builder, class_names, mode)


def find_prepared(name: str, root: Path) -> Path:
    """The folder of the newest prepared version of a set, or of the version that `name` asks for.

    Raises:
      DataError: when it is not there, with the command that prepares it.
    """
    base, _, version = name.partition(":")
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
    raise DataError(f"{problem}\nPrepare it: {_how_to_prepare(base, root)}\n{WITHOUT_DOWNLOAD}")


def _read_split(
    builder: Any,
    split: str,
    limit: int | None,
    mode: str,
    image_size: int | None,
    on_corrupt: str,
) -> Examples:
    """Decode one split, chunk by chunk, into the rows of one array."""
    source = open_split(builder, split)
    n = min(len(source), limit or len(source))
    height, width, channels = builder.info.features["image"].shape
    if image_size:
        height = width = image_size
    if height is None or width is None:
        raise DataError(
            f"the images of {builder.info.full_name} vary in size\n"
            "Set image_size: their short side in pixels, after which a square is cropped"
        )
    examples = {
        "image": np.empty((n, height, width, channels), np.uint8),
        "label": np.empty(n, np.int32),
    }
    whole = np.ones(n, bool)

    def take(row: int, record: Any) -> None:
        pixels = decode.cut_square(record["image"], mode, image_size)
        if pixels.shape != (height, width, channels):
            raise ValueError(f"image of {pixels.shape}, not {(height, width, channels)}")
        examples["image"][row], examples["label"][row] = pixels, record["label"]

    def read(rows: range) -> None:
        try:
            read_rows(source, rows, take, split, builder.data_dir)
        except DataError:
            if on_corrupt == "error":
                raise
            whole[rows.start : rows.stop] = [readable(source, row, take) for row in rows]

    # Threads pay for large images only; small ones are bound by the interpreter lock.
    run_all(read, chunks_of(range(n), _ROWS_PER_READ), builder.info.name, image_size is not None)
    if whole.all():
        return examples
    return _without(examples, whole, f"split {split!r} in {builder.data_dir}")


def _without(examples: Examples, whole_N: np.ndarray, where: str) -> Examples:
    """The examples that could be read; a warning counts and names the others."""
    lost = np.flatnonzero(~whole_N)
    if len(lost) == len(whole_N):
        raise DataError(f"none of the {len(lost)} examples of {where} can be read")
    named = ", ".join(map(str, lost[:10])) + (", ..." if len(lost) > 10 else "")
    _log.warning("left out %d of %d examples of %s: %s", len(lost), len(whole_N), where, named)
    return {"image": examples["image"][whole_N], "label": examples["label"][whole_N]}


def read_rows(
    source: Any,
    rows: Sequence[int] | np.ndarray,
    take: Callable[[int, Any], None],
    split: str,
    folder: PathLike,
) -> None:
    """Call `take(row, record)` for some rows of an open split, read at once.

    Raises:
      DataError: names the row that could not be read or taken.
    """
    rows = [int(row) for row in rows]
    try:
        for row, record in zip(rows, source.__getitems__(rows), strict=True):
            take(row, record)
    except Exception as error:  # Riegeli, protobuf and Pillow raise many types
        where = f"example {_first_failing(source, rows, take)} of split {split!r}"
        raise _unreadable(where, folder, error) from error


def _first_failing(source: Any, rows: list[int], take: Callable[[int, Any], None]) -> int:
    return next((row for row in rows if not readable(source, row, take)), rows[0])


def readable(source: Any, row: int, take: Callable[[int, Any], None]) -> bool:
    """Whether one row could be read and taken."""
    try:
        take(row, source.__getitems__([row])[0])
    except Exception:  # Riegeli, protobuf and Pillow raise many types
        return False
    return True


def open_split(builder: Any, split: str) -> Any:
    """Random access to the records of a split, images still encoded.

    Raises:
      DataError: for a split that is not there, or not stored as ArrayRecord.
    """
    import tensorflow_datasets as tfds

    try:
        return builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    except NotImplementedError as error:
        name = builder.info.full_name.rpartition("/")[0]
        stored = getattr(builder.info.file_format, "value", "something else")
        raise DataError(
            f"{builder.data_dir} is stored as {stored}, which has no random access\n"
            f"Prepare it as array_record elsewhere: {_how_to_prepare(name, 'ANOTHER_DIR')}\n"
            f"{WITHOUT_DOWNLOAD}"
        ) from error
    except Exception as error:
        have = ", ".join(f"{k} ({v.num_examples})" for k, v in builder.info.splits.items())
        raise DataError(
            f"cannot open split {split!r} of {builder.data_dir}: {first_line(error)}\n"
            f"It has the splits {have}"
        ) from error


@functools.lru_cache(maxsize=8)
def split_at(folder: str, split: str) -> Any:
    """A split by its folder, opened once in a process."""
    import tensorflow_datasets as tfds

    keep_reader_quiet()
    return open_split(tfds.builder_from_directory(folder), split)


def chunks_of(rows: Any, size: int) -> list[Any]:
    """A sequence in slices of at most `size`.

    >>> chunks_of(range(5), 2)
    [range(0, 2), range(2, 4), range(4, 5)]
    """
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def run_all(
    work: Callable[[Any], None], chunks: Sequence[Any], title: str, threaded: bool = True
) -> None:
    """Do some work on each chunk of rows, with a progress bar where that takes a while."""
    from PIL import Image
    from tqdm import tqdm

    keep_reader_quiet()
    workers = (os.cpu_count() or 1) if threaded else 1
    total = sum(map(len, chunks))
    bar = tqdm(desc=title, total=total, unit=" images", disable=None, leave=False, delay=1)
    with bar, warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
        # Pillow only warns of an image above 89 million pixels, a decompression bomb: refuse it.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for chunk, _ in zip(chunks, pool.map(work, chunks), strict=True):
            bar.update(len(chunk))


def keep_reader_quiet() -> None:
    """ArrayRecord logs a group size above 1 as an error, which costs random access a little."""
    logging.getLogger("absl").addFilter(_says_something_else)


def _says_something_else(record: logging.LogRecord) -> bool:
    return "group size" not in str(record.msg)


def _how_to_prepare(name: str, root: PathLike) -> str:
    if name in PREPARABLE:
        return f"python -m experiments.prepare {name} --data_dir {shlex.quote(str(root))}"
    build = f"tfds build {name} --file_format=array_record --data_dir={shlex.quote(str(root))}"
    return f"{build} (where TensorFlow is installed)"


def _unreadable(what: str, folder: PathLike, error: Exception) -> DataError:
    return DataError(
        f"cannot read {what} in {folder}: {first_line(error)}\n"
        "Delete that folder and prepare the set again (python -m experiments.prepare --help)\n"
        f"{WITHOUT_DOWNLOAD}"
    )
