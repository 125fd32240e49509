"""Messages of data sources that fail."""

import contextlib
import os
import shlex
from collections.abc import Iterator

from contrastive_jax.errors import DataError

PathLike = str | os.PathLike[str]
PREPARABLE = ("cifar10", "cifar100")  # what `python -m experiments.prepare` can write
WITHOUT_DOWNLOAD = "Or run without a download: --config configs/digits.py"


@contextlib.contextmanager
def needs(packages: str) -> Iterator[None]:
    """Turn a failed import into a DataError that says what to install."""
    try:
        yield
    except ImportError as error:
        raise DataError(f"{error}\nInstall what this needs: pip install {packages}") from error


def check_packages(streaming: bool) -> None:
    """Ask for what image files are read with."""
    with needs("pillow grain" if streaming else "pillow"):
        import PIL  # noqa: F401

        if streaming:
            import grain  # noqa: F401


def first_line(error: BaseException) -> str:
    """Shorten what an error says to one line.

    >>> first_line(ValueError("too big" + chr(10) + "and more"))
    'too big'
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def how_to_prepare(name: str, root: PathLike) -> str:
    """Give the command that writes a set as ArrayRecord below a data folder.

    >>> how_to_prepare("cifar10", "DIR")
    'python -m experiments.prepare cifar10 --data_dir DIR'
    """
    if name in PREPARABLE:
        return f"python -m experiments.prepare {name} --data_dir {shlex.quote(str(root))}"
    build = f"tfds build {name} --file_format=array_record --data_dir={shlex.quote(str(root))}"
    return f"{build} (where TensorFlow is installed)"
