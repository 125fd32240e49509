"""Ctrl-C and SIGTERM: the first finishes the step and saves, the second leaves at once."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPED = 75  # saved on request: run the same command again
ABANDONED = 130


class StopRequested(BaseException):
    """Raised where nothing has to be finished first."""


class StopSignal:
    """Inside `deferred()` a first signal only sets `requested`; elsewhere it raises at once."""

    def __init__(self) -> None:
        self.requested = False
        self._defer = False

    def install(self) -> None:
        """Take over SIGINT and SIGTERM."""
        signal.signal(signal.SIGINT, self._receive)
        signal.signal(signal.SIGTERM, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.requested:
            os._exit(ABANDONED)  # the last committed checkpoint stands
        self.requested = True
        name = signal.Signals(number).name
        if not self._defer:
            raise StopRequested(name)
        print(f"\n{name}: finishing this step and saving; again to quit now.", file=sys.stderr)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Let the block finish what it is doing; it has to ask `requested` itself."""
        self._defer = True
        try:
            yield
        finally:
            self._defer = False
