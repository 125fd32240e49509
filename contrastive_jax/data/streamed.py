"""Sets that stay on disk: read, decoded and cut on the host while the device trains, through grain.

A batch is a function of (seed, step): of no iterator state, and of no number of workers. Chunks of
a batch are numbered from the first step on; grain hands them to threads or processes and brings
them back in order, so that a resume begins at the number of its first chunk.
"""

import contextlib
import functools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import connection, parent_process, resource_tracker
from typing import Any, NamedTuple, cast

import jax
import numpy as np

from contrastive_jax.data import crops as cutting
from contrastive_jax.data.examples import UNLABELLED, Examples, Stream, batch_rows, check_feed
from contrastive_jax.data.failures import PathLike, first_line, needs
from contrastive_jax.data.prepared import (
    chunks_of,
    keep_reader_quiet,
    open_prepared,
    read_rows,
    run_all,
    split_at,
)
from contrastive_jax.errors import DataError
from contrastive_jax.types import Crops, Feed

_CHUNK = 16  # examples that are read at once: 5 MB at two views of 224 px
_CHUNKS_WAITING = 2  # of each worker
_CENTRE = 7 / 8  # of the short side is what evaluation sees, as 224 px of 256
_NO_END = 2**40  # chunks: more than anyone trains on
_READ_BY_THE_RUN = {signal.SIGINT, signal.SIGTERM}  # not by its workers: they end with it

Chunk = dict[str, np.ndarray]


def load_streamed(
    name: str | None,
    data_dir: PathLike | None,
    splits: tuple[str, str],
    image_size: int,
    limits: tuple[int | None, int | None],
    workers: int,
    bank: int | None,
) -> tuple[str, Examples, Examples, tuple[str, ...], Stream]:
    """Title, evaluation's part of train, test, class names, and the training split on disk."""
    with needs("grain"):
        import grain  # noqa: F401
    found = open_prepared(name, data_dir)
    train, test = (
        _open(str(found.builder.data_dir), split, found.mode, limit, workers)
        for split, limit in zip(splits, limits, strict=True)
    )
    rows = np.sort(np.random.default_rng(0).permutation(train.n)[:bank])
    label = _labels(train, rows)
    rows, label = rows[label != UNLABELLED], label[label != UNLABELLED]
    if not rows.size:
        raise DataError(f"none of the training images of {name} drawn for evaluation has a label")
    sets = Examples(cast(Any, Photos(train, rows, image_size)), label), _all_of(test, image_size)
    return found.name, *sets, found.class_names, train


def _open(folder: str, split: str, mode: str, limit: int | None, workers: int) -> Stream:
    n = len(split_at(folder, split))
    return Stream(folder, split, mode, min(n, limit or n), workers)


def _all_of(split: Stream, image_size: int) -> Examples:
    rows = np.arange(split.n)
    return Examples(cast(Any, Photos(split, rows, image_size)), _labels(split, rows))


def _labels(split: Stream, rows: np.ndarray) -> np.ndarray:
    label = np.empty(split.n, np.int32)

    def take(row: int, record: Any) -> None:
        label[row] = record["label"]

    read = functools.partial(_read, split, take=take)
    run_all(read, chunks_of(rows, 128), f"labels of {split.split}")
    return label[rows]


def _read(split: Stream, rows: np.ndarray, take: Callable[[int, Any], None]) -> None:
    read_rows(split_at(split.folder, split.split), rows, take, split.split, split.folder)


class Photos:
    """Centre squares [N, S, S, C] of images on disk, decoded in threads whenever they are indexed.

    Args:
      split: where they are.
      row_N: their places in it.
      size: S, in pixels.
    """

    dtype, ndim = np.dtype(np.uint8), 4

    def __init__(self, split: Stream, row_N: np.ndarray, size: int):
        channels = next(n for n, mode in cutting.MODES.items() if mode == split.mode)
        self._split, self._row_N = split, row_N
        self.shape = (len(row_N), size, size, channels)

    def __len__(self) -> int:
        return len(self._row_N)

    def __getitem__(self, chosen: Any) -> np.ndarray:
        row = np.asarray(self._row_N[chosen])
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            parts = list(pool.map(self._squares, chunks_of(row.ravel(), _CHUNK)))
        empty = np.empty((0, *self.shape[1:]), np.uint8)
        return np.concatenate([empty, *parts]).reshape(*row.shape, *self.shape[1:])

    def _squares(self, rows: np.ndarray) -> np.ndarray:
        squares = []

        def take(_: int, record: Any) -> None:
            mode, size = self._split.mode, self.shape[1]
            squares.append(cutting.cut_square(record["image"], mode, size, _CENTRE))

        _read(self._split, rows, take)
        return np.stack(squares)


class _Plan(NamedTuple):
    """What the workers know."""

    stream: Stream
    crops: Crops
    batch_size: int
    seed: int

    @property
    def chunks(self) -> int:
        """Of one batch."""
        return -(-self.batch_size // _CHUNK)


def stream_feed(stream: Stream, batch_size: int, seed: int, crops: Crops | None) -> Feed:
    """Batches of random crops, decoded ahead of the step; the order is that of `feed`.

    Args:
      stream: the training split.
      batch_size: B, from 1 to the images of the split.
      seed: of order and crops, int >= 0.
      crops: V views and the size S, from which boxes.

    Returns:
      A feed whose batches are {"image": [B,V,S,S,C] uint8, "label": [B] int32, "index": [B] int32}.
      `batch_at` raises DataError for an image that cannot be decoded.

    Raises:
      ValueError: for a number out of range, or no crops.
    """
    check_feed(batch_size, stream.n, seed)
    if crops is None:
        raise ValueError(
            "data.streaming cuts the views on the host, which takes augment.crop_probability 1, "
            "base_crop_probability 0 and one_branch False"
        )
    plan = _Plan(stream, crops, batch_size, seed)
    empty = _empty(plan, batch_size)
    spec = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in empty.items()}
    reader = _Reader(plan)
    return Feed({}, reader.batch_at, lambda resident, sent: dict(sent), spec, reader.close)


def _empty(plan: _Plan, n: int) -> Chunk:
    side, mode = plan.crops.size, plan.stream.mode
    channels = next(n for n, name in cutting.MODES.items() if name == mode)
    image = np.empty((n, plan.crops.n_views, side, side, channels), np.uint8)
    return {"image": image, "label": np.empty(n, np.int32), "index": np.empty(n, np.int32)}


def _chunk_at(plan: _Plan, number: int) -> Chunk:
    """A part of a batch, in whichever thread or process."""
    step, part = divmod(number, plan.chunks)
    rows = batch_rows(step, plan.stream.n, plan.batch_size, plan.seed)[part * _CHUNK :][:_CHUNK]
    epoch = step // (plan.stream.n // plan.batch_size)
    place = {int(row): i for i, row in enumerate(rows)}
    chunk = _empty(plan, len(rows))
    chunk["index"][:] = rows

    def take(row: int, record: Any) -> None:
        views = cutting.cut_views(
            record["image"], plan.stream.mode, plan.crops, plan.seed, epoch, row
        )
        chunk["image"][place[row]], chunk["label"][place[row]] = views, record["label"]

    _read(plan.stream, rows, take)
    return chunk


class _Reader:
    """Grain's iterator over chunks, begun anew when another step is asked for than the next."""

    def __init__(self, plan: _Plan):
        self._plan = plan
        self._chunks: Any = None
        self._upcoming = -1

    def batch_at(self, step: int) -> Chunk:
        step = int(step)
        try:
            if self._chunks is None or step != self._upcoming:
                self.close()
                with _workers_without_signals():
                    self._chunks = iter(_chunks_from(self._plan, step * self._plan.chunks))
                    first = next(self._chunks)
            else:
                first = next(self._chunks)
            batch = self._join(first)
        except DataError:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise DataError(
                f"reading {self._plan.stream.folder} ahead failed: {first_line(error)}\n"
                "A worker that was killed may have run out of memory: give fewer data.workers"
            ) from error
        self._upcoming = step + 1
        return batch

    def _join(self, first: Chunk) -> Chunk:
        """A whole batch; each chunk is copied out before the next is taken, to free its memory."""
        batch = _empty(self._plan, self._plan.batch_size)
        for part in range(self._plan.chunks):
            chunk = first if part == 0 else next(self._chunks)
            for name, values in chunk.items():
                batch[name][part * _CHUNK :][:_CHUNK] = values
        return batch

    def close(self) -> None:
        """End the threads or processes."""
        if self._chunks is not None:
            self._chunks.close()
        self._chunks = None


def _chunks_from(plan: _Plan, first: int) -> Any:
    """Chunks of this number and all after it, in order, some of them ahead of their use."""
    import grain

    numbers = grain.MapDataset.range(first, first + _NO_END)
    chunks = numbers.map(functools.partial(_chunk_at, plan))
    if plan.stream.workers == 0:
        threads = os.cpu_count() or 1
        ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
        return chunks.to_iter_dataset(ahead)
    in_order = chunks.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
    workers = grain.MultiprocessingOptions(
        num_workers=plan.stream.workers, per_worker_buffer_size=_CHUNKS_WAITING
    )
    return in_order.mp_prefetch(workers, worker_init_fn=_begin_worker)


def _begin_worker(index: int, count: int) -> None:
    """A worker ends when the process that started it is gone, however that ended."""
    del index, count
    keep_reader_quiet()
    threading.Thread(target=_end_with_the_run, daemon=True).start()


def _end_with_the_run() -> None:
    run = parent_process()
    if run is not None:
        connection.wait([run.sentinel])
        os._exit(1)


@contextlib.contextmanager
def _workers_without_signals() -> Iterator[None]:
    """Threads and processes begun inside do not receive Ctrl-C, which stops the run in its time."""
    resource_tracker.ensure_running()  # it would let the signals through again when it begins
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _READ_BY_THE_RUN)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
