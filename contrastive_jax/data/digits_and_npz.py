"""The sources that need no preparation: scikit-learn's digits, and .npz files."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from contrastive_jax.data._errors import PathLike, first_line, needs
from contrastive_jax.data.captions import ids_of, tokens_of, vocabulary_of, words_of
from contrastive_jax.data.examples import Dataset, Examples
from contrastive_jax.errors import DataError

_DIGITS_TEST_PER_CLASS = 50


def load_digits(name: str | None, data_dir: PathLike | None) -> Dataset:
    """Load the 1,797 digits that ship with scikit-learn.

    >>> load_digits(None, None).class_names
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
    return Dataset("digits", train, test, tuple(map(str, range(10))))


def load_npz(data_dir: PathLike | None) -> Dataset:
    """Load an .npz or a folder of two, called by its name, without class names and pickles."""
    if data_dir is None:
        raise ValueError("source 'arrays' needs data_dir: an .npz file, or a folder of two")
    path = Path(os.path.abspath(Path(data_dir).expanduser()))
    if path.is_dir():
        train, test = (_read_npz(path / f"{split}.npz", "") for split in ("train", "test"))
        return _with_styles(_with_tokens(Dataset(path.name, train, test, ())))
    parts = _read_npz(path, ""), _read_npz(path, "test_")
    return _with_styles(_with_tokens(Dataset(path.stem, *parts, ())))


def _with_styles(dataset: Dataset) -> Dataset:
    """Number the styles of images, where both splits name them.

    Raises:
      DataError: not a style for each image.
    """
    splits = (dataset.train, dataset.test)
    if not any("style" in examples for examples in splits):
        return dataset
    for examples in splits:
        style = examples.get("style", np.zeros(0))
        if style.dtype.kind != "U" or style.shape != examples["image"].shape[:1]:
            raise DataError(
                f"{dataset.name}: style is {style.dtype} {style.shape} for "
                f"{len(examples['image'])} images\nGive both splits the name of a style an image"
            )
    names = np.unique(np.concatenate([examples["style"] for examples in splits]))
    train, test = (
        {**examples, "style": np.searchsorted(names, examples["style"]).astype(np.int32)}
        for examples in splits
    )
    return dataset._replace(train=train, test=test, styles=tuple(names.tolist()))


def _with_tokens(dataset: Dataset) -> Dataset:
    """Replace the texts of captioned images by tokens, and number those that are equal.

    Raises:
      DataError: captions in one split only, or not a text for each image.
    """
    splits = {"train": dataset.train, "test": dataset.test}
    if not any("text" in examples for examples in splits.values()):
        return dataset
    for split, examples in splits.items():
        text = examples.get("text", np.zeros(0))
        if text.dtype.kind != "U" or text.shape != examples["image"].shape[:1]:
            raise DataError(
                f"{dataset.name}: text of {split} is {text.dtype} {text.shape}, and there are "
                f"{len(examples['image'])} images\nGive both splits a text for each image"
            )
    words = {name: [words_of(t) for t in splits[name]["text"].tolist()] for name in splits}
    vocabulary, ids_N = vocabulary_of(words["train"]), ids_of([*words["train"], *words["test"]])

    def tokenized(split: str, ids: np.ndarray) -> Examples:
        kept = {name: array for name, array in splits[split].items() if name != "text"}
        return {**kept, "tokens": tokens_of(words[split], vocabulary), "id": ids}

    n = len(words["train"])
    train, test = tokenized("train", ids_N[:n]), tokenized("test", ids_N[n:])
    return dataset._replace(train=train, test=test, vocabulary=vocabulary)


def _read_npz(path: Path, prefix: str) -> Examples:
    """Read the image and, where there are any, the label and the text of a split."""
    try:
        with path.open("rb") as file:  # closed here: numpy leaves it open when it fails
            arrays = np.load(file, allow_pickle=False)
            if not isinstance(arrays, np.lib.npyio.NpzFile):
                raise ValueError("a single array, not an .npz")
            if f"{prefix}image" not in arrays:
                raise ValueError(f"no {prefix}image in it, only {arrays.files}")
            names = [n for n in ("image", "label", "text", "style") if prefix + n in arrays]
            return {name: arrays[prefix + name] for name in names}
    except Exception as error:  # the file system, zipfile and numpy raise many types
        raise DataError(
            f"cannot read {path}: {first_line(error)}\n"
            "Save uint8 images [N,H,W,C] and integer labels [N], if any, by np.savez, no objects:\n"
            "image, label, test_image, test_label; or train.npz and test.npz with image, label"
        ) from error
