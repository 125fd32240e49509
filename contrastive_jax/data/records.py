"""Records of a split on disk, their images still encoded; failures name the example or the file.

A reader gets records from `read_rows` and decodes them inside `naming`. Rows are places in a split.
"""

import bisect
import contextlib
import functools
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from contrastive_jax.data import cpus
from contrastive_jax.data._errors import WITHOUT_DOWNLOAD, first_line, how_to_prepare
from contrastive_jax.data.examples import UNLABELED, StoredSplit
from contrastive_jax.errors import DataError

T = TypeVar("T")
Record = dict[str, Any]  # the values of one example by feature


def read_rows(split: StoredSplit, rows: Sequence[int] | np.ndarray) -> list[Record]:
    """Read the records of some rows at once.

    Raises:
      DataError: names the first row that cannot be read.
    """
    rows = [int(row) for row in rows]
    if split.files is not None:
        return [_read_file(split, row) for row in rows]
    source = split_at(split.folder, split.split)
    with contextlib.suppress(Exception):  # Riegeli and protobuf raise many types, for all rows
        return source.__getitems__(rows)
    records = []
    for row in rows:
        with naming(split, row):
            records += source.__getitems__([row])
    return records


def _read_file(split: StoredSplit, row: int) -> Record:
    assert split.files is not None
    members, label = split.files.members, split.files.label_N[row]
    with naming(split, row), open(split.path(row), "rb") as file:
        if members is None:
            return {"image": file.read(), "label": label}
        file.seek(members.start_N[row])
        return {"image": file.read(members.size_N[row]), "label": label}


@contextlib.contextmanager
def naming(split: StoredSplit, row: int) -> Iterator[None]:
    """Turn whatever fails inside into a DataError that names the image and the way on."""
    try:
        yield
    except Exception as error:  # Riegeli, protobuf and Pillow raise many types
        raise _unreadable(split, row, error) from error


def _unreadable(split: StoredSplit, row: int, error: Exception) -> DataError:
    if split.files is not None:
        return DataError(
            f"cannot read {split.place(row)}: {first_line(error)}\n"
            'Set data.on_corrupt="skip" to leave out such files, or mend that one'
        )
    if split.on_corrupt is None:
        remedy = "Evaluation needs each of its images: choose a slice without it, or prepare"
    else:
        remedy = 'Set data.on_corrupt="skip" to train without such images, or prepare'
    return DataError(
        f"cannot read {split.place(row)}: {first_line(error)}\n"
        f"{remedy} the set again in another data_dir\n{WITHOUT_DOWNLOAD}"
    )


def class_number(split: StoredSplit, record: Record) -> int:
    """Give the number of a record's class, -1 where it has none."""
    label = int(record[split.label_key or ""])
    if split.classes is None or label == UNLABELED:
        return label
    return bisect.bisect_left(split.classes, label)


@functools.lru_cache(maxsize=8)
def split_at(folder: str, split: str) -> Any:
    """Open a split by its folder, once in a process."""
    import tensorflow_datasets as tfds

    keep_reader_quiet()
    return _open_split(tfds.builder_from_directory(folder), split)


def _open_split(builder: Any, split: str) -> Any:
    """Open random access to the records of a split.

    Raises:
      DataError: for a split that is not there, or not stored as ArrayRecord.
    """
    import tensorflow_datasets as tfds

    features = builder.info.features.items()
    images = [key for key, feature in features if isinstance(feature, tfds.features.Image)]
    try:
        decoders = {key: tfds.decode.SkipDecoding() for key in images}
        return builder.as_data_source(split, decoders=decoders)
    except NotImplementedError as error:
        name = builder.info.full_name.rpartition("/")[0]
        stored = getattr(builder.info.file_format, "value", "something else")
        raise DataError(
            f"{builder.data_dir} is stored as {stored}, which has no random access\n"
            f"Prepare it as array_record elsewhere: {how_to_prepare(name, 'ANOTHER_DIR')}\n"
            f"{WITHOUT_DOWNLOAD}"
        ) from error
    except Exception as error:
        have = ", ".join(f"{k} ({v.num_examples})" for k, v in builder.info.splits.items())
        raise DataError(
            f"cannot open split {split!r} of {builder.data_dir}: {first_line(error)}\n"
            f"It has the splits {have}"
        ) from error


def chunks_of(rows: Any, size: int) -> list[Any]:
    """Cut a sequence into slices of at most `size`.

    >>> chunks_of(range(5), 2)
    [range(0, 2), range(2, 4), range(4, 5)]
    """
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def map_chunks(
    read: Callable[[Any], T], chunks: Sequence[Any], title: str, threaded: bool = True
) -> Iterator[T]:
    """Yield `read` of each chunk of rows, in order, with a progress bar if that takes long."""
    from PIL import Image
    from tqdm import tqdm

    workers = cpus.usable() if threaded else 1
    total = sum(map(len, chunks))
    bar = tqdm(desc=title, total=total, unit=" images", disable=None, leave=False, delay=1)
    with bar, warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
        # Pillow only warns of an image above 89 million pixels, a decompression bomb: refuse it.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for chunk, result in zip(chunks, pool.map(read, chunks), strict=True):
            yield result
            bar.update(len(chunk))


def keep_reader_quiet() -> None:
    """Hide what ArrayRecord logs of a group size above 1, which costs random access a little."""
    logging.getLogger("absl").addFilter(_is_not_about_groups)


def _is_not_about_groups(record: logging.LogRecord) -> bool:
    return "group size" not in str(record.msg)
