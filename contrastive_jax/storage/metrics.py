"""Writers of metrics.jsonl and TensorBoard events."""

import json
import logging
import math
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_log = logging.getLogger(__name__)


class JsonlWriter:
    """metrics.jsonl: one JSON object a logged step, in order, each step once, flushed at once.

    Keys: `step` first, then the metrics by name. A NaN or infinity is written as null, since
    JSON has neither.

    Args:
        path: the file; its folder must exist.
        resume_step: rows after this step, and half-written ones, are removed at the start, so
            that a resumed run repeats none. None removes all rows: the run starts anew.

    Raises:
        ValueError: a step is not after the last one, or a metric is not a number.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with JsonlWriter(folder + "/metrics.jsonl", resume_step=None) as writer:
        ...         writer.write(10, {"loss": 2.5, "accuracy": jnp.float32(0.5)})
        ...     read_jsonl(folder + "/metrics.jsonl")
        [{'step': 10, 'accuracy': 0.5, 'loss': 2.5}]
    """

    def __init__(self, path: str | os.PathLike[str], resume_step: int | None):
        self._last = _rewind(Path(path), -1 if resume_step is None else resume_step)
        self._file = open(path, "a", encoding="utf-8")

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Append the row of `step`; `metrics` are scalars by name."""
        if step <= self._last:
            raise ValueError(f"step {step} is not after the last logged step {self._last}.")
        row = {"step": int(step), **_scalars(metrics)}
        finite = {k: None if _is_nonfinite(v) else v for k, v in row.items()}
        self._file.write(json.dumps(finite, allow_nan=False) + "\n")
        self._file.flush()
        self._last = int(step)

    def close(self) -> None:
        """Close the file; again is harmless."""
        self._file.close()

    def __enter__(self) -> "JsonlWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _rewind(path: Path, resume_step: int) -> int:
    """Keep the rows up to `resume_step`; the step of the last one kept, -1 for none."""
    if not path.exists():
        return -1
    kept, last = [], -1
    for line, row in _rows(path):
        if last < row["step"] <= resume_step:
            kept.append(line)
            last = row["step"]
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(b"".join(kept))
    os.replace(temporary, path)  # a crash here leaves the old file whole
    return last


def _rows(path: Path) -> Iterable[tuple[bytes, dict[str, Any]]]:
    with open(path, "rb") as file:
        for line in file:
            try:
                row = json.loads(line)
            except ValueError:  # cut by a crash
                continue
            if line.endswith(b"\n") and isinstance(row, dict) and type(row.get("step")) is int:
                yield line, row


def _scalars(metrics: Mapping[str, Any]) -> dict[str, int | float]:
    if "step" in metrics:
        raise ValueError("a metric is named 'step', the key of the row: rename it.")
    host = jax.device_get(dict(metrics))
    return {name: _scalar(name, host[name]) for name in sorted(host)}


def _scalar(name: str, value: Any) -> int | float:
    array = np.asarray(value)
    if array.shape or not (jnp.issubdtype(array.dtype, jnp.number) or array.dtype == bool):
        raise ValueError(
            f"metric {name!r} has shape {array.shape} and dtype {array.dtype}: log one number."
        )
    return array.item()


def _is_nonfinite(value: int | float) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def read_jsonl(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """All whole rows of a metrics file in order; a half-written last line is left out.

    Args:
        path: a file of JsonlWriter.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "metrics.jsonl")
        ...     _ = file.write_text('{"step": 1, "loss": 0.5}\\n{"step": 2, "lo')
        ...     read_jsonl(file)
        [{'step': 1, 'loss': 0.5}]
    """
    return [row for _, row in _rows(Path(path))]


class TensorBoardWriter:
    """Scalars for TensorBoard where tensorboardX is installed, and nothing where it is not.

    A sink that fails warns once and is dropped: training goes on.

    Args:
        directory: where the event files go.
        resume_step: TensorBoard hides events after this step, left by a run that was cut off.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with TensorBoardWriter(folder, resume_step=None) as writer:
        ...         writer.write(10, {"loss": 2.5})
    """

    def __init__(self, directory: str | os.PathLike[str], resume_step: int | None):
        self._file: Any = None
        try:
            from tensorboardX.event_file_writer import EventsWriter
        except ImportError:
            return
        first = 0 if resume_step is None else resume_step + 1
        try:
            os.makedirs(directory, exist_ok=True)
            # Not SummaryWriter: its thread dies on a full disk, and the caller then waits forever.
            self._file = EventsWriter(os.path.join(directory, "events"), f".{os.getpid()}")
            self._add(first, session_log={"status": "START"})
        except Exception as error:
            self._drop(error)

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Add the scalars of `step`."""
        scalars = _scalars(metrics)
        if self._file is None:
            return
        values = [{"tag": name, "simple_value": value} for name, value in scalars.items()]
        try:
            self._add(step, summary={"value": values})
        except Exception as error:
            self._drop(error)

    def _add(self, step: int, **content: Any) -> None:
        from tensorboardX.proto import event_pb2

        make: Any = event_pb2  # its messages are made at import, where pyright cannot see them
        event = make.Event(wall_time=time.time(), step=step, **content)
        self._file.write_event(event)
        self._file.flush()

    def close(self) -> None:
        """Close the file; again is harmless."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(Exception):  # each row was flushed: nothing is pending
                file.close()

    def _drop(self, error: Exception) -> None:
        _log.warning("TensorBoard events stop here (%s); metrics.jsonl goes on.", error)
        self.close()

    def __enter__(self) -> "TensorBoardWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
