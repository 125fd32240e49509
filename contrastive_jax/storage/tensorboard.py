"""Write the metrics of a run as TensorBoard events."""

import os
import time
from collections.abc import Mapping
from typing import Any

from contrastive_jax.storage._sink import Sink


class TensorBoardWriter(Sink):
    """Write scalars for TensorBoard where tensorboardX is installed, and nothing where it is not.

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

    name = "Writing TensorBoard events"

    def __init__(self, directory: str | os.PathLike[str], resume_step: int | None):
        try:
            from tensorboardX.event_file_writer import EventsWriter
        except ImportError:
            return
        first = 0 if resume_step is None else resume_step + 1
        try:
            os.makedirs(directory, exist_ok=True)
            # Not SummaryWriter: its thread dies on a full disk, and the caller then waits forever.
            self._target = EventsWriter(os.path.join(directory, "events"), f".{os.getpid()}")
            self._add(first, session_log={"status": "START"})
        except Exception as error:
            self._drop(error)

    def _send(self, step: int, numbers: Mapping[str, int | float]) -> None:
        values = [{"tag": name, "simple_value": value} for name, value in numbers.items()]
        self._add(step, summary={"value": values})

    def _add(self, step: int, **content: Any) -> None:
        from tensorboardX.proto import event_pb2

        make: Any = event_pb2  # its messages are made at import, where pyright cannot see them
        self._target.write_event(make.Event(wall_time=time.time(), step=step, **content))
        self._target.flush()

    def _finish(self, target: Any) -> None:
        target.close()
