"""The sources that need no preparation: scikit-learn's digits, and .npz files."""

from pathlib import Path
from typing import Any

import numpy as np

from contrastive_jax.data._errors import PathLike, first_line, needs
from contrastive_jax.data.examples import Examples
from contrastive_jax.errors import DataError

_DIGITS_TEST_PER_CLASS = 50


def load_digits(
    name: str | None, data_dir: PathLike | None
) -> tuple[str, Examples, Examples, tuple[str, ...]]:
    """Title, train, test and class names of the 1,797 digits that ship with scikit-learn.

    >>> load_digits(None, None)[3]
    ('0', '1', '2', '3', '4', '5', '6', '7', '8', '9')
    """
    if name not in (None, "digits") or data_dir is not None:
        raise ValueError(
            f"source 'digits' ships with scikit-learn; name is {name!r}, data_dir {data_dir!r}\n"
            "Leave both unset, or use source 'tfds'"
        )
    with needs("scikit-learn"):
        from sklearn import datasets
    digits: Any = datasets.load_digits()
    label = digits.target.astype(np.int32)
    image = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    in_test = np.zeros(len(label), bool)
    for digit in range(10):
        in_test[np.flatnonzero(label == digit)[-_DIGITS_TEST_PER_CLASS:]] = True
    train, test = ({"image": image[rows], "label": label[rows]} for rows in (~in_test, in_test))
    return "digits", train, test, tuple(map(str, range(10)))


def load_npz(
    name: str | None, data_dir: PathLike | None
) -> tuple[str, Examples, Examples, tuple[str, ...]]:
    """Title, train, test and class numbers of an .npz, or of a folder of two; nothing pickled."""
    if data_dir is None:
        raise ValueError("source 'arrays' needs data_dir: an .npz file, or a folder of two")
    path = Path(data_dir).expanduser()
    if path.is_dir():
        train = _read_npz(path / "train.npz", "image", "label")
        test = _read_npz(path / "test.npz", "image", "label")
    else:
        train = _read_npz(path, "image", "label")
        test = _read_npz(path, "test_image", "test_label")
    integers = np.issubdtype(train["label"].dtype, np.integer) and train["label"].size
    classes = int(train["label"].max()) + 1 if integers else 0
    return name or path.stem, train, test, tuple(map(str, range(classes)))


def _read_npz(path: Path, image: str, label: str) -> Examples:
    try:
        with path.open("rb") as file:  # ours to close: numpy leaves it open when it fails
            arrays = np.load(file, allow_pickle=False)
            if not isinstance(arrays, np.lib.npyio.NpzFile):
                raise ValueError("a single array, not an .npz")
            if missing := sorted({image, label} - set(arrays.files)):
                raise ValueError(f"no {' and no '.join(missing)} in it, only {arrays.files}")
            return {"image": arrays[image], "label": arrays[label]}
    except Exception as error:  # the file system, zipfile and numpy raise many types
        raise DataError(
            f"cannot read {path}: {first_line(error)}\n"
            "Save uint8 images [N,H,W,C] and integer labels [N] by np.savez, without objects:\n"
            "image, label, test_image, test_label; or train.npz and test.npz with image, label"
        ) from error
