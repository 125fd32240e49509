"""What reading a set takes long to find, kept in the user's cache for the next time."""

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def path_of(name: str, key: object, ending: str) -> Path:
    """Give the file of a key, below XDG_CACHE_HOME or ~/.cache.

    >>> path_of("sums", (1, 2), ".json").name[:9]
    'sums-cf4d'
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256(repr(key).encode()).hexdigest()
    return cache / "contrastive_jax" / f"{name}-{digest}{ending}"


def keep(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file in one piece; where it cannot be written, the next call finds it all again."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=path.suffix)
        os.close(handle)
        write(Path(name))
        os.replace(name, path)
    except OSError:
        return
