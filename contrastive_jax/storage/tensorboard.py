"""Write the metrics of a run as TensorBoard events."""

import logging
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from contrastive_jax.storage._scalars import scalars

_log = logging.getLogger(__name__)


class TensorBoardWriter:
    """Write scalars for TensorBoard where tensorboardX is installed, and nothing where it is not.

    A sink that fails warns once and is dropped: training goes on.

    Args:
      directory: where the event files go.
      resume_step: TensorBoard hides events after this step, left by a run that was cut off; None
        hides all of them: the run starts anew.

    >>> import tempfile
    >>> from contextlib import closing
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with closing(TensorBoardWriter(folder, resume_step=None)) as writer:
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

    def write(self, step: int, row: Mapping[str, Any]) -> None:
        """Add the scalars of `step`."""
        numbers = scalars(row)
        if self._file is None:
            return
        values = [{"tag": name, "simple_value": value} for name, value in numbers.items()]
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
