"""A hold on a folder of a mounted object store, where a lock of the kernel stops at the host.

All that it asks of the store is what every one has: to create an object only if there is none of
its name, to write one whole, to read and to list. The leases of a folder are numbered; whoever
created the highest number holds the folder, and writes a new count into it every few seconds. Who
finds a lease waits until that count moves (the folder is held) or has stood still for `patience`
(its holder is gone), and then tries to create the next number: only one can. No clock is compared
with another's. A holder that was overtaken, or could not renew in time, leaves at once.
"""

import itertools
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from contrastive_jax.errors import WorkdirBusyError

MOUNTS = Path("/proc/self/mounts")
LOCAL = ("fuse.fuse-overlayfs",)  # the root of some containers


class Pace(NamedTuple):
    """How often a holder renews, and how long one that does not is believed in; seconds."""

    renew: float = 10.0
    patience: float = 60.0


PACE = Pace()


def needed(folder: str | os.PathLike[str], mounts: Path = MOUNTS) -> bool:
    """Whether this folder is on a mount of user space (gcsfuse, s3fs, rclone), as buckets are.

    >>> needed("/")
    False
    """
    if not mounts.exists():
        return False
    path = Path(os.path.realpath(folder))
    best, kind = Path("/"), ""
    for line in mounts.read_text().splitlines():
        _, where, file_system, *_ = line.split()
        where = Path(where.encode().decode("unicode_escape"))  # a space is \040
        if path.is_relative_to(where) and len(where.parts) >= len(best.parts):
            best, kind = where, file_system
    return kind.startswith("fuse.") and kind not in LOCAL


@contextmanager
def hold(
    folder: str | os.PathLike[str], pace: Pace = PACE, leave: Callable[[str], Any] | None = None
) -> Iterator[None]:
    """Hold the folder against every process of every host that asks in the same way.

    Args:
      folder: an existing folder.
      pace: the same for all who ask.
      leave: called with a message, in a thread, when the hold is lost; by default the process
        ends at once with the exit code of WorkdirBusyError, and writes nothing more.

    Raises:
      WorkdirBusyError: another process holds it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place, hold(place):
    ...     sorted(os.listdir(place))
    ['.lease-000001']
    """
    path = _take(Path(folder), pace)
    ended = threading.Event()
    renewing = threading.Thread(
        target=_renew, args=(path, pace, ended, leave or _leave), daemon=True
    )
    renewing.start()
    try:
        yield
    finally:
        ended.set()
        renewing.join()
        if _newest(path.parent) == path:
            _write(path, count=None)


def _take(folder: Path, pace: Pace) -> Path:
    """The lease that this process created."""
    while True:
        newest = _newest(folder)
        if newest is not None:
            _wait_until_free(newest, pace)
        mine = folder / f".lease-{_number(newest) + 1:06d}"
        try:
            with open(mine, "x") as file:
                file.write(_signed(0))
        except FileExistsError:
            continue  # another was faster, and may hold it
        if not _is_mine(_read(mine)):  # a mount that creates when it closes
            continue
        for old in _all(folder):
            if old < mine:
                old.unlink(missing_ok=True)
        return mine


def _wait_until_free(lease: Path, pace: Pace) -> None:
    seen, since = _read(lease), time.monotonic()
    while seen.get("count", 0) is not None and not _died_here(seen):
        if time.monotonic() > since + pace.patience:
            return
        time.sleep(pace.renew / 10)
        now = _read(lease)
        if now != seen and now.get("count") is not None:
            raise WorkdirBusyError(
                f"Another run holds {lease.parent}: pid {now.get('pid')} on {now.get('host')}.\n"
                "Wait for it or stop it, or pass another --workdir."
            )
        seen = now


def _renew(lease: Path, pace: Pace, ended: threading.Event, leave: Callable[[str], Any]) -> None:
    renewed = time.monotonic()
    for count in itertools.count(1):
        if ended.wait(pace.renew):
            return
        try:
            newest = _newest(lease.parent)
            if newest != lease:
                return leave(f"Another run took {lease.parent} over while this one stood still.")
            if time.monotonic() > renewed + pace.patience / 2:
                return leave(f"The hold on {lease.parent} was not renewed in time.")
            _write(lease, count)
            renewed = time.monotonic()
        except OSError:  # the store may come back
            if time.monotonic() > renewed + pace.patience / 2:
                return leave(f"The hold on {lease.parent} could not be renewed.")


def _leave(why: str) -> None:
    os.write(2, f"\nerror: {why}\nNothing more is written; run the same command again.\n".encode())
    os._exit(WorkdirBusyError.exit_code)


def _died_here(seen: dict[str, Any]) -> bool:
    """Whether the holder was a process of this host that is gone."""
    same = all(seen.get(key) == value for key, value in _here().items())
    return same and not Path(f"/proc/{seen.get('pid')}").exists()


def _is_mine(seen: dict[str, Any]) -> bool:
    return seen.get("pid") == os.getpid() and all(seen.get(k) == v for k, v in _here().items())


def _here() -> dict[str, str]:
    """The place in which a process number means something: none of the kind, no place."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return {
            "host": socket.gethostname(),
            "boot": boot,
            "pids": os.readlink("/proc/self/ns/pid"),
        }
    except OSError:
        return {"host": socket.gethostname(), "boot": str(uuid.getnode()), "pids": str(os.getpid())}


def _signed(count: int | None) -> str:
    """The text of a lease; a count of None gives the folder back."""
    return json.dumps({**_here(), "pid": os.getpid(), "count": count})


def _write(lease: Path, count: int | None) -> None:
    lease.write_text(_signed(count))


def _read(lease: Path) -> dict[str, Any]:
    try:
        found = json.loads(lease.read_text())
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):  # just being written
        return {}


def _all(folder: Path) -> list[Path]:
    return sorted(folder.glob(".lease-" + "[0-9]" * 6))


def _newest(folder: Path) -> Path | None:
    return max(_all(folder), default=None)


def _number(lease: Path | None) -> int:
    return int(lease.name.rsplit("-", 1)[1]) if lease else 0
