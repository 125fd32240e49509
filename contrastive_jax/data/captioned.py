"""Captioned images on disk: a list of them as a data set, its captions as tokens."""

import logging
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np

from contrastive_jax.data import captions, decode, folder
from contrastive_jax.data._errors import PathLike, check_packages
from contrastive_jax.data.caption_files import Captioned, Listed, read
from contrastive_jax.data.captions import Language
from contrastive_jax.data.examples import (
    UNLABELED,
    Dataset,
    Examples,
    ImageFiles,
    StoredSplit,
    take,
)
from contrastive_jax.data.groups import joined_groups
from contrastive_jax.data.in_memory import read_split
from contrastive_jax.data.streaming import Photos, evaluated
from contrastive_jax.errors import DataError

TEST_FRACTION = 0.1
_log = logging.getLogger(__name__)


class Request(NamedTuple):
    """The keys of `data.load` that say which captioned images are wanted, and how."""

    path: PathLike | None
    test_path: PathLike | None
    test_fraction: float | None
    split_seed: int
    image_size: int | None
    channels: int
    exif_orientation: bool
    limit_train: int | None
    limit_test: int | None
    on_corrupt: str
    context: int
    tokenizer: str


def load_captions(
    request: Request, batch_size: int, streaming: bool, workers: int, bank: int | None
) -> Dataset:
    """Read a list of captioned images into memory, or open it for streaming.

    Args:
      request: which images.
      batch_size: of training, which has to hold two concepts.
      streaming, workers, bank: as `folder.load_folder`.

    Returns:
      A set whose examples hold "image", "id" [N] int32, equal for images that share a caption,
      "tokens" [N,L] int32 of the first caption, and of all "captions" [N,T,L] with "n_captions".

    Raises:
      ValueError: no list given, or a number out of range. DataError: what the list lacks.
    """
    _check(request)
    check_packages(streaming)
    train, test = _splits(request)
    for note in dict.fromkeys((*train.notes, *test.notes)):
        _log.warning("%s", note)
    texts = [text for each in train.images for text in each.texts]
    language = captions.language_of(texts, request.tokenizer, request.context)
    id_N = _concepts([*train.images, *test.images])
    n = len(train.images)
    refuse_few_concepts(id_N[:n], batch_size, str(request.path))
    parts = (
        _part(request, "train", request.path, train, language, id_N[:n]),
        _part(request, "test", request.test_path or request.path, test, language, id_N[n:]),
    )
    made = _streamed(request, parts, workers, bank) if streaming else _whole(request, parts)
    return made._replace(**language._asdict())


class _Part(NamedTuple):
    stored: StoredSplit
    texts: Examples  # of all its images


def _part(
    request: Request,
    split: str,
    path: PathLike | None,
    listed: Listed,
    language: Language,
    id_N: np.ndarray,
) -> _Part:
    texts_N = [each.texts for each in listed.images]
    texts = {**captions_of(texts_N, language, request.context), "id": id_N}
    return _Part(_stored(request, split, listed, path or ""), texts)


def _streamed(
    request: Request, parts: tuple[_Part, _Part], workers: int, bank: int | None
) -> Dataset:
    assert request.image_size is not None  # checked by `load`
    train, test = parts
    images = evaluated(train.stored, test.stored, request.image_size, bank)
    rows = [cast(Photos, each["image"]).row_N for each in images]
    seen = [
        {**each, **take(part.texts, row_N)}
        for each, part, row_N in zip(images, parts, rows, strict=True)
    ]
    stream = train.stored._replace(workers=workers)
    return Dataset(_name(request), seen[0], seen[1], (), stream=stream, captions=train.texts)


def _whole(request: Request, parts: tuple[_Part, _Part]) -> Dataset:
    shape = folder.shape_of([part.stored for part in parts], request.image_size)
    train, test = (read_split(part.stored, shape, request.image_size, part.texts) for part in parts)
    return Dataset(_name(request), train, test, ())


def _name(request: Request) -> str:
    return Path(request.path or "").stem


def _check(request: Request) -> None:
    if request.path is None:
        raise ValueError("source 'captions' needs data.path: a .jsonl, .tsv or .csv of images")
    if request.test_fraction is not None and request.test_path is not None:
        raise ValueError("test_fraction and test_path are both given; leave one out")
    if request.test_fraction is not None and not 0 < request.test_fraction < 1:
        raise ValueError(f"test_fraction is {request.test_fraction}; give one between 0 and 1")
    if request.channels not in decode.MODES:
        raise ValueError(f"channels is {request.channels}; give 1, 2, 3 or 4")


def _splits(request: Request) -> tuple[Listed, Listed]:
    """Divide the images of one list at random, or read two lists."""
    path = Path(request.path or "").expanduser()
    whole = read(path)
    n, seed = len(whole.images), request.split_seed
    order = np.random.default_rng(seed).permutation(n)
    if request.test_path is not None:
        other = read(Path(request.test_path).expanduser())
        order_of_test = np.random.default_rng(seed).permutation(len(other.images))
        parts = (whole, order), (other, order_of_test)
    elif n < 2:
        raise DataError(f"{path} lists one image.\nTraining and test need one each at least.")
    else:
        n_test = min(max(round((request.test_fraction or TEST_FRACTION) * n), 2), n - 1)
        parts = (whole, order[n_test:]), (whole, order[:n_test])
    limits = request.limit_train, request.limit_test
    train, test = (_rows(*of, limit) for of, limit in zip(parts, limits, strict=True))
    return train, test


def _rows(listed: Listed, rows: np.ndarray, limit: int | None) -> Listed:
    chosen = rows[:limit].tolist()
    images, line_N = listed.images, listed.line_N
    return Listed(tuple(images[i] for i in chosen), tuple(line_N[i] for i in chosen), listed.notes)


def captions_of(texts_N: Sequence[Sequence[str]], language: Language, context: int) -> Examples:
    """Turn the captions of images into tokens: the first one of each, and all of them.

    A warning counts the captions that are cut off.

    Returns:
      {"tokens" [N,L] int32, "captions" [N,T,L] int32, "n_captions" [N] int32}; what comes after the
      captions of an image is padding.
    """
    texts = list(dict.fromkeys(text for own in texts_N for text in own))
    cut = captions.count_longer(texts, language, context)
    if cut:
        _log.warning("%d of %d captions are cut off behind %d tokens", cut, len(texts), context)
    tokens_ML = captions.encode(texts, language, context)
    place = {text: row for row, text in enumerate(texts)}
    n_captions = np.array([len(own) for own in texts_N], np.int32)
    captions_NTL = np.zeros((len(texts_N), n_captions.max(), tokens_ML.shape[1]), np.int32)
    for row, own in enumerate(texts_N):
        captions_NTL[row, : len(own)] = tokens_ML[[place[text] for text in own]]
    return {"tokens": captions_NTL[:, 0], "captions": captions_NTL, "n_captions": n_captions}


def _concepts(images: Sequence[Captioned]) -> np.ndarray:
    """Number images so that those with a caption in common have the same number, [N] int32."""
    place: dict[str, int] = {}
    links = [
        (place.setdefault(" ".join(text.lower().split()), len(place)), row)
        for row, each in enumerate(images)
        for text in each.texts
    ]
    caption_E, image_E = np.array(links).T
    return joined_groups(caption_E, image_E, len(place), len(images))


def refuse_few_concepts(id_N: np.ndarray, batch_size: int, path: str) -> None:
    """Refuse images of one concept, and batches many of which would have only one.

    Raises:
      DataError: naming the numbers.
    """
    count_C, n = np.unique(id_N, return_counts=True)[1].tolist(), len(id_N)
    if len(count_C) == 1:
        raise DataError(
            f"{path}: all {n} training images have a caption in common, so none has a negative.\n"
            "Give captions that tell images apart, and leave out those that all of them have."
        )
    if batch_size == 1:  # what reads a set for several runs; no loss of pairs trains on one
        return
    of_one = sum(math.comb(count, batch_size) for count in count_C if count >= batch_size)
    possible = math.comb(n, batch_size)  # beyond any float: compared as integers
    if 100 * of_one > possible:
        share = of_one / possible
        raise DataError(
            f"{path}: {max(count_C)} of {n} training images have captions in common, so "
            f"{share:.0%} of the batches of {batch_size} hold one concept and teach nothing.\n"
            "Give a larger data.batch_size, or leave out the captions that most images have."
        )


def _stored(request: Request, split: str, listed: Listed, path: PathLike) -> StoredSplit:
    where = Path(path).expanduser().absolute()
    images: Iterable[str] = (each.image for each in listed.images)
    files = ImageFiles(
        np.array([os.fsencode(image) for image in images]),
        np.full(len(listed.images), UNLABELED),
        np.array(listed.line_N),
        where.name,
    )
    return StoredSplit(
        str(where.parent), split, len(listed.images), decode.MODES[request.channels], "image", None,
        on_corrupt=request.on_corrupt, files=files, upright=request.exif_orientation,
    )  # fmt: skip
