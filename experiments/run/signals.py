"""Ctrl-C and SIGTERM: the first finishes the step and saves, the second exits at once."""

import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

STOPPED = 75  # stopped on request: run the same command again
ABANDONED = 130
GRACE_SECONDS = 25  # preempted machines are gone 30 seconds after their SIGTERM
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequested(BaseException):
    """Raised where nothing has to be finished first."""


class StopSignal:
    """Inside `deferred()` a first signal only sets `requested`; elsewhere it raises at once.

    Python runs no handler while the main thread is inside a compilation. A thread that sees the
    signals themselves leaves at the second one, or when the first was not heard in GRACE_SECONDS.
    """

    def __init__(self) -> None:
        self.requested = False
        self._defer = False

    def install(self) -> None:
        """Take over SIGINT and SIGTERM; outside the main thread they stay as they are."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            signal.signal(number, self._receive)
        raise_again(StopRequested)
        arrivals, arrived = os.pipe()
        os.set_blocking(arrived, False)
        signal.set_wakeup_fd(arrived, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(arrivals,), daemon=True).start()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.requested:
            os._exit(ABANDONED)  # the last committed checkpoint stands
        self.requested = True
        name = signal.Signals(number).name
        if not self._defer:
            raise StopRequested(name)
        print(f"\n{name}: finishing this step and saving; again to quit now.", file=sys.stderr)

    def _watch(self, arrivals: int) -> None:
        _next_of(arrivals)
        if not select.select([arrivals], [], [], GRACE_SECONDS)[0] and not self.requested:
            _leave(f"no answer in {GRACE_SECONDS} s (compiling?), leaving.", STOPPED)
        _next_of(arrivals)
        os._exit(ABANDONED)

    @contextmanager
    def deferred(self) -> Iterator[Callable[[], None]]:
        """From the first call of what this yields, let the block finish what it is doing.

        The block has to ask `requested` itself.
        """

        def defer() -> None:
            self._defer = True

        try:
            yield defer
        finally:
            self._defer = False


def raise_again(stop: type[BaseException]) -> None:
    """Have what a signal raises raised again where Python drops it: in a finalizer or a callback.

    XLA's callback of the garbage collector is such a place, and a busy one.
    """
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if isinstance(unraisable.exc_value, stop):
            dropped.append(unraisable.exc_value)
            signal.signal(signal.SIGALRM, again)
            signal.setitimer(signal.ITIMER_REAL, 0.01)
        else:
            before(unraisable)

    def again(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise stop(*dropped[-1].args)

    dropped: list[BaseException] = []
    sys.unraisablehook = hook


def _next_of(arrivals: int) -> None:
    while os.read(arrivals, 1)[0] not in SIGNALS:
        pass


def _leave(why: str, code: int) -> None:
    text = f"\n{why} The last checkpoint stands: run the same command again.\n"
    os.write(2, text.encode())  # not through a stream that the main thread may have locked
    os._exit(code)
