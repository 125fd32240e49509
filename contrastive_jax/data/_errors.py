"""How a source says that it failed."""

import contextlib
import os
from collections.abc import Iterator

from contrastive_jax.errors import DataError

PathLike = str | os.PathLike[str]
WITHOUT_DOWNLOAD = "Or run without a download: --config configs/digits.py"


@contextlib.contextmanager
def needs(packages: str) -> Iterator[None]:
    """Turn a failed import into a DataError that says what to install."""
    try:
        yield
    except ImportError as error:
        raise DataError(f"{error}\nInstall what this needs: pip install {packages}") from error


def first_line(error: BaseException) -> str:
    """What an error says, short enough for one line.

    >>> first_line(ValueError("too big" + chr(10) + "and more"))
    'too big'
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
