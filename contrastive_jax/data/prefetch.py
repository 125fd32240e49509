"""Prefetch batches of random crops of a set that does not fit in memory (through grain).

A batch is a function of (seed, step): of no iterator state, and of no number of workers. Chunks of
a batch are numbered from the first step on; grain hands them to threads or processes and brings
them back in order, so that a resume starts at the number of its first chunk.
"""

import contextlib
import functools
import itertools
import logging
import os
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from multiprocessing import connection, parent_process, resource_tracker
from typing import Any, NamedTuple

import jax
import numpy as np

from contrastive_jax.data import cpus
from contrastive_jax.data._errors import first_line
from contrastive_jax.data.decode import cut_views
from contrastive_jax.data.examples import StoredSplit, batch_rows, check_feed
from contrastive_jax.data.records import class_number, keep_reader_quiet, naming, read_rows
from contrastive_jax.errors import DataError
from contrastive_jax.types import Crops, Feed

_CHUNK = 16  # examples that are read at once: 5 MB at two views of 224 px
_CHUNKS_WAITING = 2  # of each worker
_NO_END = 2**40  # chunks: more than anyone trains on
_TRIES = 1000  # rows after one that cannot be read: a block of records is lost as a whole
_READ_BY_THE_RUN = {signal.SIGINT, signal.SIGTERM}  # not by its workers: they end with it
_log = logging.getLogger(__name__)

Arrays = dict[str, np.ndarray]


class _Plan(NamedTuple):
    """The settings that the workers receive."""

    stream: StoredSplit
    crops: Crops
    batch_size: int
    seed: int

    @property
    def chunks(self) -> int:
        """Chunks of one batch."""
        return -(-self.batch_size // _CHUNK)


def stream_feed(stream: StoredSplit, batch_size: int, seed: int, crops: Crops | None) -> Feed:
    """Make a feed of random crops, decoded ahead of the step; the order is that of `feed`.

    Args:
      stream: the training split.
      batch_size: B, from 1 to the images of the split.
      seed: of order and crops, int >= 0.
      crops: V views and the size S, from which boxes.

    Returns:
      A feed whose batches are {"image": [B,V,S,S,C] uint8, "label": [B] int32, "index": [B] int32},
      without "label" where the set has none. `batch_at` raises DataError for an image that cannot
      be decoded, or a worker that was killed.

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


class _Reader:
    """An iterator over batches, restarted where another step is asked for than the next."""

    def __init__(self, plan: _Plan):
        self._plan = plan
        self._batches: Generator[Arrays, None, None] | None = None
        self._upcoming = -1

    def batch_at(self, step: int) -> Arrays:
        step = int(step)
        if self._batches is None or step != self._upcoming:
            self.close()
            self._batches = _batches_from(self._plan, step)
        self._upcoming = -1  # unless this one comes whole
        batch = next(self._batches)
        self._upcoming = step + 1
        return batch

    def close(self) -> None:
        """End the threads or processes."""
        if self._batches is not None:
            self._batches.close()
        self._batches = None


def _batches_from(plan: _Plan, step: int) -> Generator[Arrays, None, None]:
    """Yield the batches of this step and of all after it."""
    number = step * plan.chunks
    ahead = iter(_chunks_from(plan, number))
    try:
        with _workers_without_signals():
            chunks = itertools.chain([next(ahead)], ahead)
        while True:
            batch = _empty(plan, plan.batch_size)
            for part in range(plan.chunks):
                for name, values in next(chunks).items():  # copied, which frees shared memory
                    batch[name][part * _CHUNK :][:_CHUNK] = values
                number += 1
            yield batch
    except DataError:
        raise
    except Exception as error:
        rows = ", ".join(map(str, _rows(plan, number)))
        raise DataError(
            f"reading {plan.stream.folder} failed: {first_line(error)}\n"
            f"It was at examples {rows} of split {plan.stream.split!r}\n"
            "A worker that was killed lacked memory or shared memory: give fewer data.workers"
        ) from error
    finally:
        ahead.close()


def _rows(plan: _Plan, number: int) -> np.ndarray:
    step, part = divmod(number, plan.chunks)
    rows = batch_rows(step, plan.stream.n, plan.batch_size, plan.seed)
    return rows[part * _CHUNK :][:_CHUNK]


def _empty(plan: _Plan, n: int) -> Arrays:
    side, channels = plan.crops.size, len(plan.stream.mode)
    image = np.empty((n, plan.crops.n_views, side, side, channels), np.uint8)
    names = ("label", "index") if plan.stream.label_key else ("index",)
    return {"image": image, **{name: np.empty(n, np.int32) for name in names}}


def _chunk_at(plan: _Plan, number: int) -> Arrays:
    """Read and cut a part of a batch, in whichever thread or process."""
    rows = _rows(plan, number).tolist()
    epoch = number // plan.chunks // (plan.stream.n // plan.batch_size)
    try:
        return _cut(plan, epoch, rows)
    except DataError:
        if plan.stream.on_corrupt != "skip":
            raise
    parts = [_cut_or_next(plan, epoch, row) for row in rows]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _cut(plan: _Plan, epoch: int, rows: Sequence[int]) -> Arrays:
    """Cut the crops of some rows.

    Raises:
      DataError: names the first row that cannot be read or decoded.
    """
    stream, chunk = plan.stream, _empty(plan, len(rows))
    for place, (row, record) in enumerate(zip(rows, read_rows(stream, rows), strict=True)):
        with naming(stream, row):
            encoded, sampled = record[stream.image_key], (plan.crops, plan.seed, epoch, row)
            chunk["image"][place] = cut_views(encoded, stream.mode, *sampled, stream.upright)
        chunk["index"][place] = row
        if stream.label_key:
            chunk["label"][place] = class_number(stream, record)
    return chunk


def _cut_or_next(plan: _Plan, epoch: int, first: int) -> Arrays:
    """Cut the crops of a row, or of the next row that can be read; a warning names both.

    Raises:
      DataError: names the row, where none of the next can be read either.
    """
    stream = plan.stream
    for ahead in range(min(_TRIES, stream.n)):
        row = (first + ahead) % stream.n
        with contextlib.suppress(DataError):
            chunk = _cut(plan, epoch, [row])
            if ahead:
                _log.warning(
                    "%s cannot be read: %s in its place", stream.place(first), stream.place(row)
                )
            return chunk
    return _cut(plan, epoch, [first])  # raises


def _chunks_from(plan: _Plan, first: int) -> Any:
    """Make chunks of this number and all after it, in order, some ahead of their use."""
    import grain
    from absl import flags

    if not flags.FLAGS.is_parsed():  # by no program of absl's: grain then has its defaults
        flags.FLAGS.mark_as_parsed()
    numbers = grain.MapDataset.range(first, first + _NO_END)
    chunks = numbers.map(functools.partial(_chunk_at, plan))
    if plan.stream.workers == 0:
        threads = cpus.usable()
        ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
        return chunks.to_iter_dataset(ahead)
    in_order = chunks.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
    workers = grain.MultiprocessingOptions(
        num_workers=plan.stream.workers, per_worker_buffer_size=_CHUNKS_WAITING
    )
    return in_order.mp_prefetch(workers, worker_init_fn=_start_worker)


def _start_worker(index: int, count: int) -> None:
    """Let a worker end when the process that started it is gone, however that ended."""
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
    """Keep Ctrl-C from threads and processes started inside; the run ends them in its time."""
    resource_tracker.ensure_running()  # it would let the signals through again when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _READ_BY_THE_RUN)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
