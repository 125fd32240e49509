"""Datasets in memory or streamed from disk, and batches as a function of (seed, step).

Seven sources: `digits` (real handwritten digits that ship with scikit-learn), `glyphs` (characters
of fonts that ship with matplotlib, with their names as captions), `folder` (a tree of image files),
`webdataset` (images in tar files), `captions` (image files with their texts, by a list), `tfds`
(any image set prepared as ArrayRecord, read without TensorFlow) and `arrays` (an .npz file).
Those of files and of `tfds` are streamed if they are too large for memory. Nothing here downloads:
`python -m experiments.prepare` does, once.
"""

import re
from typing import Any

import numpy as np

from contrastive_jax.data import caption_feed, captioned, folder, prompted, tars, tfds
from contrastive_jax.data._errors import PREPARABLE, PathLike
from contrastive_jax.data.captions import LONGEST
from contrastive_jax.data.digits_and_npz import load_digits, load_npz
from contrastive_jax.data.examples import (
    UNLABELED,
    Dataset,
    Examples,
    StoredSplit,
    check_batch_size,
    check_split,
    distinct_labels,
    feed,
    labeled,
    n_examples,
    number_labels,
    take,
    with_whole,
)
from contrastive_jax.data.fingerprint import identity
from contrastive_jax.data.glyphs import load_glyphs
from contrastive_jax.data.prefetch import stream_feed
from contrastive_jax.data.streaming import load_streamed
from contrastive_jax.errors import DataError
from contrastive_jax.types import Crops, Feed

__all__ = [
    "PREPARABLE",
    "SOURCES",
    "UNLABELED",
    "Dataset",
    "Examples",
    "StoredSplit",
    "feed",
    "identity",
    "labeled",
    "load",
    "n_examples",
    "take",
    "train_feed",
    "with_whole",
]

_OWN_KEYS: dict[str, dict[str, Any]] = {  # of the only sources that read them: their defaults
    "glyphs": {"validation_fraction": 0.0},
    "tfds": {"image_key": None, "label_key": None},
    "folder, webdataset or captions": {
        "test_fraction": None,
        "split_seed": 0,
        "channels": 3,
        "exif_orientation": False,
    },
    "folder": {"class_folders": True},
    "captions": {"path": None, "test_path": None, "context": LONGEST, "tokenizer": ""},
    "digits, folder, webdataset, tfds or arrays": {"prompts": ()},
}
_WITH_PROMPTS = ("context", "tokenizer")  # what captions by prompts read as well
SOURCES = ("digits", "glyphs", "folder", "webdataset", "captions", "tfds", "arrays")
STREAMED = ("tfds", "folder", "webdataset", "captions")


def load(
    source: str,
    *,
    batch_size: int,
    name: str | None = None,
    data_dir: PathLike | None = None,
    train_split: str = "train",
    test_split: str = "test",
    image_size: int | None = None,
    limit_train: int | None = None,
    limit_test: int | None = None,
    streaming: bool = False,
    workers: int = 0,
    bank: int | None = None,
    on_corrupt: str = "error",
    image_key: str | None = None,
    label_key: str | None = None,
    test_fraction: float | None = None,
    split_seed: int = 0,
    class_folders: bool = True,
    channels: int = 3,
    exif_orientation: bool = False,
    path: PathLike | None = None,
    test_path: PathLike | None = None,
    context: int = LONGEST,
    tokenizer: str = "",
    prompts: tuple[str, ...] = (),
    validation_fraction: float = 0.0,
) -> Dataset:
    """Load a dataset into memory, or open it for streaming, and check it; never uses the network.

    `digits` is 1,797 images of 8x8x1, with 0..16 scaled to 0..255. The last 50 of each class in
    the order of the file are the 500 test images: mostly by writers whom the other 1,297 lack.
    `glyphs` is described in `glyphs.py`.

    Args:
      source: of `SOURCES`.
      batch_size: global batch of training, 1 to the number of training images.
      name: of a tfds set: "cifar10", "imagenette/320px-v2" or, with a version, "cifar10:3.0.2".
        Arrays and folders are called by their file or folder, whatever this says.
      data_dir: for tfds the folder of prepared sets (default: TFDS_DATA_DIR of the environment,
        then ~/tensorflow_datasets); for a folder that of the images, for webdataset of their tars
        (`tars.py`); for arrays an .npz with image,
        label, test_image and test_label, or a folder with train.npz and test.npz that hold image
        and label. Labels may be left out, and be any integers: the classes are those of the
        training split, in order. Texts (text, test_text) caption the images;
        style and test_style name how they depict a thing.
      train_split, test_split: tfds splits or slices: "train[:45000]", "train+unlabeled"; of a
        folder, the folders in it. Only the training split may hold unlabeled images (label -1);
        `labeled` leaves them out.
      image_size: images are resized to this short side in pixels (bicubic, antialiased) and
        center-cropped to a square. Required where those of a tfds set or a folder vary in size.
      limit_train, limit_test: keep at most this many images, the first ones.
      streaming: leave the images of tfds or a folder on disk. Training decodes each in every epoch
        and cuts its views on the host; evaluation decodes the center of each (7/8 of the short
        side, resized to image_size) when it comes to it.
      workers: processes that decode for training; 0 decodes in threads of this one.
      bank: evaluate with at most this many training images, sampled once, where streamed.
      on_corrupt: what a training image that cannot be read does: "error", or "skip". Then a warning
        counts and names those left out of memory, or names the next one, which a stream shows in
        its place. What evaluation reads has to be whole in a tfds set; files of a folder are left
        out there as well.
      image_key, label_key: features of a tfds set, where they are not called "image" and "label"
        and there is more than one that could be meant.
      test_fraction: of the images of each class in a folder without folders for the splits, sampled
        for the test (default 0.1).
      split_seed: of that sample, and of the order of a folder's images.
      class_folders: take the folders in a folder, or in its splits, for classes, if there are two
        at least; False trains without labels.
      channels: that the images of a folder are brought to: 1 gray, 3 color, 2 and 4 with alpha.
      exif_orientation: turn the images of a folder by the orientation of their EXIF data.
      path: of captions, a .jsonl, .tsv or .csv that lists images with their texts; see
        `caption_files.py`.
      test_path: a list of test images; without one `test_fraction` of the images are sampled.
      context: tokens of a caption at most; what comes after is cut off.
      tokenizer: a tokenizer.json of the `tokenizers` library; "" for the words of the training
        captions.
      prompts: templates such as "a photo of a {}", which caption the images of a labeled set in
        memory by the names of their classes; see `prompted.py`.
      validation_fraction: of the training characters of the glyphs, kept from training and tested
        on in place of the test characters: to choose a recipe by.

    Raises:
      ValueError: for arguments that cannot be meant.
      DataError: for a set that is missing, malformed or unreadable.

    Example:
      >>> digits = load("digits", batch_size=256)
      >>> digits.train["image"].shape, digits.test["image"].shape, len(digits.class_names)
      ((1297, 8, 8, 1), (500, 8, 8, 1), 10)
    """
    sizes = {"limit_train": limit_train, "limit_test": limit_test, "bank": bank}
    _check_sizes(image_size=image_size, **sizes)
    _check_streaming(streaming, source, image_size, workers, bank)
    if on_corrupt not in ("error", "skip"):
        raise ValueError(f"on_corrupt is {on_corrupt!r}; give 'error' or 'skip'")
    _check_keys(
        source, image_key=image_key, label_key=label_key, test_fraction=test_fraction,
        split_seed=split_seed, class_folders=class_folders, channels=channels,
        exif_orientation=exif_orientation, path=path, test_path=test_path, context=context,
        tokenizer=tokenizer, prompts=prompts, validation_fraction=validation_fraction,
    )  # fmt: skip
    if prompts and streaming:
        raise ValueError("prompts caption images in memory; leave streaming or prompts unset")
    splits, limits = (train_split, test_split), (limit_train, limit_test)
    if source == "tfds":
        request = tfds.Request(
            name, data_dir, *splits, image_size, *limits, on_corrupt, image_key, label_key
        )
        loaded = load_streamed(request, workers, bank) if streaming else tfds.load_tfds(request)
    elif source in ("folder", "webdataset"):
        sampled = (test_fraction, split_seed, class_folders)
        request = folder.Request(
            data_dir, *splits, *sampled, image_size, channels, exif_orientation, *limits, on_corrupt
        )
        load_files = folder.load_folder if source == "folder" else tars.load_tars
        loaded = load_files(request, streaming, workers, bank)
    elif source == "captions":
        if data_dir is not None or name is not None or splits != ("train", "test"):
            raise ValueError(
                "source 'captions' reads the lists path and test_path, and has no data_dir, name, "
                "train_split or test_split\nLeave them unset"
            )
        request = captioned.Request(
            path, test_path, test_fraction, split_seed, image_size, channels, exif_orientation,
            *limits, on_corrupt, context, tokenizer,
        )  # fmt: skip
        loaded = captioned.load_captions(request, batch_size, streaming, workers, bank)
    else:
        _check_whole(source, splits, image_size)
        loaded = {
            "digits": lambda: load_digits(name, data_dir),
            "glyphs": lambda: load_glyphs(name, data_dir, validation_fraction),
            "arrays": lambda: load_npz(data_dir),
        }[source]()
    dataset = _checked(loaded, train_split, test_split)
    if not streaming:
        train, test = take(dataset.train, slice(limit_train)), take(dataset.test, slice(limit_test))
        dataset = dataset._replace(train=train, test=test)
    check_batch_size(batch_size, dataset.n_train)
    if prompts:
        dataset = prompted.with_prompts(dataset, prompts, context, tokenizer, batch_size)
    return dataset._replace(batch_size=batch_size)


def _checked(loaded: Dataset, train_split: str, test_split: str) -> Dataset:
    """Check both splits and number their labels by class."""
    title, train, test = loaded.name, loaded.train, loaded.test
    train_title, test_title = f"{title} {train_split}", f"{title} {test_split}"
    check_split(train, train_title)
    check_split(test, test_title)
    if train["image"].shape[1:] != test["image"].shape[1:]:
        raise DataError(
            f"{title}: images of train are {train['image'].shape[1:]} but of test "
            f"{test['image'].shape[1:]}\nGive both the same height, width and channels"
        )
    classes, names = _classes(loaded)
    train = number_labels(train, classes, train_title, lowest=UNLABELED)
    test = number_labels(test, classes, test_title, lowest=0)
    return loaded._replace(train=train, test=test, class_names=names)


def _classes(loaded: Dataset) -> tuple[np.ndarray, tuple[str, ...]]:
    """List labels and names of the classes: of the set, else of training, else of test alone."""
    if loaded.class_names:
        return np.arange(len(loaded.class_names)), loaded.class_names
    stream = loaded.stream
    classes = distinct_labels(loaded.train)
    if stream is not None and stream.classes:  # `train` is a sample of them
        classes = np.array(stream.classes)
    classes = classes if len(classes) else distinct_labels(loaded.test)
    return classes, tuple(map(str, classes.tolist()))


def train_feed(dataset: Dataset, seed: int, crops: Crops | None = None) -> Feed:
    """Make the batches that a dataset is trained on: gathered on the device, or streamed from disk.

    Args:
      dataset: of `load`.
      seed: of the order, and of the crops of a streamed set.
      crops: what the host cuts of a streamed set; `augment.make_views` says it.

    Raises:
      ValueError: for a seed out of range, or a streamed set whose views the host cannot cut.

    Example:
      >>> batches = train_feed(load("digits", batch_size=256), seed=0)
      >>> batches.batch_at(3)["index"].shape
      (256,)
    """
    resident = dict(dataset.train if dataset.stream is None else dataset.captions or {})
    several = "captions" in resident
    if several:  # one of them is a batch's "tokens"
        resident.pop("tokens")
    if dataset.stream is None:
        batches = feed(resident, dataset.batch_size, seed)
    else:
        batches = stream_feed(dataset.stream, dataset.batch_size, seed, crops)
        batches = caption_feed.beside(batches, resident)
    return caption_feed.sampled(batches, dataset.n_train, seed) if several else batches


def _check_sizes(**sizes: int | None) -> None:
    for name, size in sizes.items():
        if size is not None and size < 1:
            raise ValueError(f"{name} is {size}; it must be 1 or more, or None")


def _check_streaming(
    streaming: bool, source: str, image_size: int | None, workers: int, bank: int | None
) -> None:
    if not 0 <= workers < 1000:
        raise ValueError(f"workers is {workers}; give 0 (threads) or the number of processes")
    if not streaming and (workers or bank is not None):
        raise ValueError(f"workers={workers} and bank={bank} are for streaming=True only")
    if streaming and (source not in STREAMED or image_size is None):
        raise ValueError(
            f"streaming=True needs image_size and a source of {', '.join(STREAMED)}, but got "
            f"{source!r}, {image_size}\n"
            "image_size is the side in pixels at which evaluation sees an image"
        )


def _check_keys(source: str, **keys: Any) -> None:
    """Refuse a source that is none, and keys that another source reads."""
    if source not in SOURCES:
        raise ValueError(f"source is {source!r}; choose one of {', '.join(SOURCES)}")
    for names, defaults in _OWN_KEYS.items():
        owners = re.split(", | or ", names)
        for key, default in defaults.items():
            if keys["prompts"] and key in _WITH_PROMPTS:
                continue
            if source not in owners and keys[key] != default:
                raise ValueError(
                    f"{key} is {keys[key]!r}, but source {source!r} has no such key\n"
                    f"Leave it unset, or use source {' or '.join(map(repr, owners))}"
                )


def _check_whole(source: str, splits: tuple[str, str], image_size: int | None) -> None:
    """Refuse what sets of two fixed splits and one size do not understand."""
    if image_size is not None or splits != ("train", "test"):
        raise ValueError(
            f"source {source!r} has the splits 'train' and 'test' and images of one size, but got "
            f"{splits} and image_size {image_size}\nLeave them unset, or use source 'tfds'"
        )
