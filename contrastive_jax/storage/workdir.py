"""The folder of one run: lock it, replace its files in one step, make new folders in one."""

import fcntl
import json
import math
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contrastive_jax.errors import ConfigError, WorkdirBusyError


def prepare(path: str | os.PathLike[str], flag: str = "--workdir") -> Path:
    """Make a folder if need be and return its absolute path, proven writable.

    Args:
      path: the folder, relative or absolute; `~` is expanded.
      flag: of the command line that gave it.

    Raises:
      ConfigError: the path is empty, remote (`gs://`), a file or under one, or not writable.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     prepare(folder + "/runs/first").is_dir()
    True
    """
    text = os.fspath(path)
    if not text:
        raise ConfigError(f"The path of {flag} is empty: pass {flag} DIR.")
    if "://" in text:
        raise ConfigError(f"{flag} {text} is a remote address; give a local folder: mount it.")
    folder = Path(os.path.abspath(os.path.expanduser(text)))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"The folder {folder} cannot be used: {_reason(error)}.\n"
            f"Pass {flag} with a folder that you can write to."
        ) from error
    return folder


def _reason(error: Exception) -> str:
    if isinstance(error, FileExistsError | NotADirectoryError):
        return "it, or a folder above it, is a file"
    return getattr(error, "strerror", None) or str(error)


@contextmanager
def lock(path: str | os.PathLike[str]) -> Iterator[None]:
    """Hold the workdir for this process; the kernel lets go when it ends, however it ends.

    On a mounted bucket the kernel speaks for one host only: start one run per folder there.

    Raises:
      WorkdirBusyError: at once, when another process holds it, naming its pid and host.
      ConfigError: the file system cannot lock.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, lock(folder):
    ...     (Path(folder) / ".lock").exists()
    True
    """
    file = Path(path) / ".lock"
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise ConfigError(f"Cannot open {file}: {_reason(error)}.") from error
    try:
        _take(descriptor, file)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, file: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise WorkdirBusyError(
            f"Another run holds {file.parent}: {holder(file.parent)}.\n"
            "Wait for it or stop it, or pass another --workdir."
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{file.parent} is on a file system without locks ({_reason(error)}).\n"
            "Pass a --workdir on a local disk."
        ) from error
    start = time.strftime("%Y-%m-%d %H:%M:%S %z")
    signed = {"pid": os.getpid(), "host": socket.gethostname(), "start": start}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(signed).encode(), 0)
    os.fsync(descriptor)  # for the other hosts of a shared file system


def holder(path: str | os.PathLike[str]) -> str:
    """Who holds this workdir, or held it last, as its lock says."""
    try:
        signed = json.loads((Path(path) / ".lock").read_text())
        return f"pid {signed['pid']} on {signed['host']}, since {signed['start']}"
    except (OSError, ValueError, KeyError, TypeError):  # it has the lock but has not yet signed
        return "its pid is not known yet"


def replace_file(path: str | os.PathLike[str], write: Callable[[Path], object]) -> None:
    """Replace a file in one step: a reader sees the old content or the new, never a part.

    The new content survives a power cut, and the file has the mode that the umask gives, whatever
    `write` does with modes.

    Args:
      path: the file; its folder must exist.
      write: writes the whole content to the path that it is given, a temporary file beside `path`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     target = Path(folder, "weights.bin")
    ...     replace_file(target, lambda temporary: temporary.write_bytes(b"123"))
    ...     target.read_bytes()
    b'123'
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)  # left by a process of this number that was killed
        temporary.touch()
        mode = temporary.stat().st_mode  # 0666 without the bits of the umask
        write(temporary)
        if temporary.stat().st_mode != mode:  # not every mounted file system can change it
            os.chmod(temporary, mode)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())  # else a power cut may keep the rename and lose the content
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a folder whole or not at all.

    Args:
      path: of no folder yet, or of an empty one.

    Yields:
      A temporary folder beside it, which takes its name in one step when the block ends.

    Raises:
      OSError: there are files in it, or it cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with new_folder(folder + "/model") as made:
    ...         size = (made / "weights.bin").write_bytes(b"123")
    ...     [path.name for path in Path(folder).rglob("*")]
    ['model', 'weights.bin']
    """
    target = Path(path).expanduser().resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # left by a process of this number
    try:
        temporary.mkdir()
        yield temporary
        os.replace(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file in UTF-8, in one atomic step; its folder must exist."""
    replace_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: str | os.PathLike[str], obj: Any) -> None:
    """Write `obj` as indented, standard JSON in one atomic step.

    Args:
      path: the file; its folder must exist.
      obj: dicts, lists, strings, finite numbers; arrays and scalars of numpy or JAX are
        written as lists and numbers.

    Raises:
      ValueError: a number is NaN or infinite; the message names its place.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_json(folder + "/knn.json", {"accuracy": 0.5, "k": 20})
    ...     read_json(folder + "/knn.json")
    {'accuracy': 0.5, 'k': 20}
    """
    plain = _plain(obj, at="")
    write_text(path, json.dumps(plain, indent=2, allow_nan=False) + "\n")


def _plain(value: Any, at: str) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item, f"{at}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{at}[{i}]") for i, item in enumerate(value)]
    if hasattr(value, "tolist"):  # numpy and JAX
        return _plain(value.tolist(), at)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{at.lstrip('.') or 'the value'} is {value}: JSON holds finite numbers.")
    return value


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file.

    Raises:
      ConfigError: the content is not JSON.
      FileNotFoundError: there is no such file.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON ({error}): restore it from a copy.") from error
