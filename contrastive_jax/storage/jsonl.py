"""Write and read metrics.jsonl, the metrics of a run."""

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from contrastive_jax.storage import workdir
from contrastive_jax.storage._sink import scalars


class JsonlWriter:
    """Write metrics.jsonl: one JSON object a logged step, in order, each step once, flushed.

    Keys: `step` first, then the metrics by name. A NaN or infinity is written as null, since
    JSON has neither.

    Args:
      path: the file; its folder must exist.
      resume_step: rows after this step, and half-written ones, are removed at the start, so that
        a resumed run repeats none. None removes all rows: the run starts anew.

    Raises:
      ValueError: a step is not after the last one, or a metric is not a number.

    >>> import tempfile
    >>> from contextlib import closing
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with closing(JsonlWriter(folder + "/metrics.jsonl", resume_step=None)) as writer:
    ...         writer.write(10, {"loss": 2.5, "accuracy": 0.5})
    ...     read_jsonl(folder + "/metrics.jsonl")
    [{'step': 10, 'accuracy': 0.5, 'loss': 2.5}]
    """

    def __init__(self, path: str | os.PathLike[str], resume_step: int | None):
        self._last = _rewind(Path(path), -1 if resume_step is None else resume_step)
        self._file = open(path, "a", encoding="utf-8")

    def write(self, step: int, row: Mapping[str, Any]) -> None:
        """Append the row of `step`: scalars by name."""
        if step <= self._last:
            raise ValueError(f"step {step} is not after the last logged step {self._last}.")
        numbers = {"step": int(step), **scalars(row)}
        finite = {k: v if math.isfinite(v) else None for k, v in numbers.items()}
        self._file.write(json.dumps(finite, allow_nan=False) + "\n")
        self._file.flush()
        self._last = int(step)

    def close(self) -> None:
        """Close the file; again is harmless."""
        self._file.close()


def _rewind(path: Path, resume_step: int) -> int:
    """Keep the rows up to `resume_step`; return the step of the last one kept, -1 for none."""
    if not path.exists():
        return -1
    kept, last = [], -1
    for line, row in _rows(path):
        if last < row["step"] <= resume_step:
            kept.append(line)
            last = row["step"]
    workdir.replace_file(path, lambda temporary: temporary.write_bytes(b"".join(kept)))
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


def read_jsonl(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Read all whole rows of a metrics file in order; a half-written last line is left out.

    Args:
      path: a file of JsonlWriter.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "metrics.jsonl")
    ...     _ = file.write_text('{"step": 1, "loss": 0.5}\\n{"step": 2, "lo')
    ...     read_jsonl(file)
    [{'step': 1, 'loss': 0.5}]
    """
    return [row for _, row in _rows(Path(path))]
