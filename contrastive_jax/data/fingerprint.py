"""Identify the data of a run, so that a resumed run is known to see the same."""

import hashlib
import os
from pathlib import Path
from typing import Any, cast

import numpy as np

from contrastive_jax.data.examples import Dataset, Examples, StoredSplit, Texts, n_examples
from contrastive_jax.data.streaming import Photos


def identity(dataset: Dataset) -> dict[str, Any]:
    """Describe a dataset by name, sizes and a digest of what it holds, alike on every machine.

    Returns:
      {"name": str, "train": int, "test": int, "image_shape": [H, W, C], "class_names": [str],
      "sha256": str}; of texts "n_tokens" and "shapes" in place of that of images, and of a mix
      "sets", the pairs of each. The digest is of
      the class names and, in memory, of the names, types, shapes and bytes of all arrays, with what
      is searched of texts; of a streamed set of its metadata, the names and sizes of its files,
      and the splits and numbers of images that are read, without decoding. Where the set lies is
      not in it.

    Example:
      >>> few = {"image": np.zeros((3, 2, 2, 1), np.uint8)}
      >>> identity(Dataset("few", few, few, ()))["image_shape"]
      [2, 2, 1]
    """
    digest = hashlib.sha256(repr(dataset.class_names).encode())
    if dataset.stream is None:
        for examples in (dataset.train, dataset.test):
            _add_arrays(digest, examples)
    else:
        if dataset.stream.files is None:
            _add_folder(digest, Path(dataset.stream.folder))
        for split in (dataset.stream, cast(Photos, dataset.test["image"]).split):
            _add_split(digest, split)
        _add_arrays(digest, dataset.captions or {})
    words = {"vocabulary": list(dataset.vocabulary)} if dataset.vocabulary else {}
    if dataset.texts is not None:
        _add_texts(digest, dataset.texts)
        shown = {"n_tokens": dataset.n_tokens, "shapes": _shapes(dataset.train)}
        if (mix := dataset.texts.mix) is not None:
            shown["sets"] = dict(zip(mix.names, mix.sizes, strict=True))
    else:
        shown = {"image_shape": list(dataset.train["image"].shape[1:])}
    return {
        **words,
        "name": dataset.name,
        "train": dataset.n_train,
        "test": n_examples(dataset.test),
        **shown,
        "class_names": list(dataset.class_names),
        "sha256": digest.hexdigest(),
    }


def _add_arrays(digest: Any, examples: Examples) -> None:
    for name, values in sorted(examples.items()):
        if name.endswith("_guide"):  # computed, and equal to rounding alone; its folder is known
            continue
        digest.update(repr((name, values.dtype.str, values.shape)).encode())
        digest.update(np.ascontiguousarray(values).data)


def _shapes(examples: Examples) -> dict[str, list[int]]:
    """The shape of an example, by array."""
    return {name: list(values.shape[1:]) for name, values in examples.items()}


def _add_texts(digest: Any, texts: Texts) -> None:
    """What is searched, and how texts become tokens."""
    digest.update(repr((texts.settings, texts.tokenizer and texts.tokenizer.json)).encode())
    for found in (texts.test, texts.validation):
        digest.update(repr(found and (found.documents, found.queries, found.grades)).encode())
    if texts.graded:
        digest.update(repr(texts.graded).encode())
    if texts.mineable is not None:
        _add_arrays(digest, texts.mineable._asdict())
    if texts.mix is not None:
        digest.update(repr(texts.mix.sizes).encode())


def _add_folder(digest: Any, folder: Path) -> None:
    digest.update((folder / "dataset_info.json").read_bytes())
    for file in sorted(folder.glob("*array_record*")):
        digest.update(repr((file.name, file.stat().st_size)).encode())


def _add_split(digest: Any, split: StoredSplit) -> None:
    chosen = (split.split, split.n, split.image_key, split.label_key, split.classes)
    digest.update(repr(chosen).encode())
    if split.files is not None:
        digest.update(repr((split.mode, split.upright)).encode())
        files = zip(split.files.path_N.tolist(), split.files.label_N.tolist(), strict=True)
        for row, (path, label) in enumerate(files):
            digest.update(repr((path, label, _size(split, row))).encode())


def _size(split: StoredSplit, row: int) -> int | None:
    members = split.files and split.files.members
    if members is not None:
        return int(members.size_N[row])
    path = split.path(row)
    return os.stat(path).st_size if os.path.exists(path) else None
