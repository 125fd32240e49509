"""Examples in memory, their checks and classes, and batches of them by index."""

import functools
import math
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import jax
import numpy as np

from contrastive_jax.data import lengths as by_length
from contrastive_jax.data import mixing
from contrastive_jax.data.text.collection import Collection
from contrastive_jax.data.text.pairs import Pair
from contrastive_jax.data.text.tokens import Tokenizer
from contrastive_jax.errors import DataError
from contrastive_jax.types import Batch, Feed

UNLABELED = -1
_LANES, _LONG_ROW = 128, 2**14  # elements

# Arrays of one length by name: "image" [N,H,W,C] uint8; "label" [N] int32 where there is one; of
# captioned images "tokens" [N,L] int32 and "id" [N] int32, which two views of one thing share, and
# where an image may have several captions "captions" [N,T,L] and "n_captions" [N]; of
# pairs of texts what `text/sets.py` says.
Examples = Mapping[str, np.ndarray]


class Members(NamedTuple):
    """Where images lie within tar files."""

    shards: tuple[str, ...]  # the tars, below the folder
    shard_N: np.ndarray  # int32, which of them
    start_N: np.ndarray  # int64, the first byte
    size_N: np.ndarray  # int64, bytes

    def take(self, rows: np.ndarray) -> "Members":
        """Select images by index."""
        return Members(self.shards, self.shard_N[rows], self.start_N[rows], self.size_N[rows])


class ImageFiles(NamedTuple):
    """The files of a split, in the order of its rows."""

    path_N: np.ndarray  # bytes, below the folder: compact for the workers
    label_N: np.ndarray  # class numbers, -1 where a file has none
    line_N: np.ndarray | None = None  # of the list that names them, where there is one
    listed_in: str = ""
    members: Members | None = None  # where `path_N` names what is within tar files


class StoredSplit(NamedTuple):
    """A split on disk, by what a process needs to read it."""

    folder: str  # of the prepared set, or of the image files
    split: str
    n: int  # images, the first ones of the split
    mode: str  # Pillow's name of the pixels
    image_key: str  # features of the set
    label_key: str | None  # None where it has no labels
    classes: tuple[int, ...] | None = None  # labels in order; None where they are class numbers
    on_corrupt: str | None = None  # "error" or "skip"; None where every image has to be read
    workers: int = 0  # processes that decode; 0 for threads of this one
    files: ImageFiles | None = None  # of a folder of images; None for a prepared set
    upright: bool = False  # turn images by the orientation of their EXIF data

    def place(self, row: int) -> str:
        """Name a row for a person: a file, or an example of a prepared set."""
        if self.files is None:
            return f"example {row} of split {self.split!r} in {self.folder}"
        if self.files.members is not None:
            return f"{os.fsdecode(self.files.path_N[row])} of {self.path(row)}"
        if self.files.line_N is None:
            return self.path(row)
        return f"{self.path(row)} (line {self.files.line_N[row]} of {self.files.listed_in})"

    def path(self, row: int) -> str:
        """The file of a row, where there is one: the image, or the tar that it is in."""
        assert self.files is not None
        members = self.files.members
        if members is not None:
            return os.path.join(self.folder, members.shards[members.shard_N[row]])
        return os.path.join(self.folder, os.fsdecode(self.files.path_N[row]))


class Mineable(NamedTuple):
    """What negatives are mined from while training: Q queries, the M documents of all pairs."""

    query: np.ndarray  # [Q,L] tokens, unsigned
    query_length: np.ndarray  # int32 [Q]
    corpus: np.ndarray  # [M,L]
    corpus_length: np.ndarray  # int32 [M]
    corpus_id: np.ndarray  # int32 [M], as the "id" of the pairs
    query_N: np.ndarray  # int32, the query of each pair
    positives_QP: np.ndarray  # int32, rows of the corpus, padded with -1
    excluded_QE: np.ndarray  # int32, that with the text of the query; -1 for none
    first_NK: np.ndarray  # int32, the negatives before the first mining; -1 for none
    corpus_guide: np.ndarray | None = None  # [M,G], what a guide says of the documents

    def resident(self) -> dict[str, np.ndarray]:
        """What negatives are gathered from in the step."""
        names = ("corpus", "corpus_length", "corpus_id", "corpus_guide")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


class Texts(NamedTuple):
    """What a set of texts has beside its examples."""

    tokenizer: Tokenizer | None  # None where only the identity of the set is known
    n_tokens: int
    settings: Any  # how texts become tokens: `text.sets.Settings`
    test: Collection | None  # what is searched, and what is relevant to whom
    validation: Collection | None
    notes: tuple[str, ...]  # what is odd about the texts, with counts
    idf_T: np.ndarray | None  # float32, how telling each token is
    mineable: Mineable | None = None  # where negatives are mined while training
    graded: tuple[Pair, ...] = ()  # test pairs with a score, where all pairs have one
    mix: mixing.Mix | None = None  # where the training pairs are of several sets
    lengths: by_length.Lengths | None = None  # where batches are in parts by length

    def for_objectives(self) -> dict[str, Any]:
        """What `RunInfo` has of texts."""
        first_NK = None if self.mineable is None else self.mineable.first_NK
        longest = () if self.lengths is None else self.lengths.longest
        return {"idf_T": self.idf_T, "negatives_NK": first_NK, "longest": longest}


class Dataset(NamedTuple):
    """A training and a test split, with the batch size that training uses.

    Where the training split is streamed, `train` is the part of it that evaluation uses.
    """

    name: str
    train: Examples
    test: Examples
    class_names: tuple[str, ...]
    batch_size: int = 1
    stream: StoredSplit | None = None
    vocabulary: tuple[str, ...] = ()  # the words of captions, by token
    styles: tuple[str, ...] = ()  # in which images depict one thing; "style" [N] says which
    texts: Texts | None = None
    tokenizer: Tokenizer | None = None  # of captions, where they are not words
    captions: Examples | None = None  # of a streamed set, of all its training images

    @property
    def n_train(self) -> int:
        """Examples that training sees in an epoch, but for those of a last incomplete batch."""
        return n_examples(self.train) if self.stream is None else self.stream.n

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in the training set, or in the sets that it is mixed of."""
        mix = None if self.texts is None else self.texts.mix
        if mix is None:
            return self.n_train // self.batch_size
        return mix.steps_per_epoch(self.batch_size)

    @property
    def n_tokens(self) -> int:
        """Tokens of captions or texts; 0 where there are none."""
        return len(self.vocabulary) if self.texts is None else self.texts.n_tokens


def n_examples(examples: Examples) -> int:
    """Count the examples of a split.

    >>> n_examples({"image": np.zeros((3, 2, 2, 1), np.uint8)})
    3
    """
    return len(next(iter(examples.values())))


def take(examples: Examples, rows: Any) -> dict[str, np.ndarray]:
    """Select examples by index, mask or slice.

    >>> take({"label": np.array([7, 8, 9])}, [2, 0])
    {'label': array([9, 7])}
    """
    return {name: values[rows] for name, values in examples.items()}


def labeled(examples: Examples) -> dict[str, np.ndarray]:
    """Select the examples that have a label: what a nearest-neighbor search or a probe can use.

    Returns:
      Some of the examples, none where the set has no labels; "label" is always there.

    >>> some = {"image": np.zeros((3, 2, 2, 1), np.uint8), "label": np.array([4, -1, 5], np.int32)}
    >>> labeled(some)["label"]
    array([4, 5], dtype=int32)
    >>> labeled({"image": some["image"]})["label"]
    array([], dtype=int32)
    """
    label = examples.get("label")
    if label is None:
        return {**take(examples, slice(0)), "label": np.zeros(0, np.int32)}
    keep = label != UNLABELED
    return dict(examples) if keep.all() else take(examples, keep)


def feed(
    examples: Examples,
    batch_size: int,
    seed: int,
    mix: mixing.Mix | None = None,
    lengths: by_length.Lengths | None = None,
) -> Feed:
    """Make batches of in-memory examples, gathered by index inside the compiled step.

    Epoch e visits the examples in the order `default_rng((seed, e)).permutation(N)` and drops the
    last N mod B, so `batch_at(step)` depends on nothing but (seed, step).

    Args:
      examples: N images and labels. Laid out by `in_rows` they are the feed's `resident`, still on
        the host: place them on the device once.
      batch_size: B, from 1 to N.
      seed: int >= 0.
      mix: of which sets the examples are, one behind the other; each is then visited so by itself.
      lengths: their classes by length, which are visited by themselves, too; without a mix.

    Returns:
      A feed whose batches hold B rows of every array of the examples, and their "index" [B] int32.

    Raises:
      ValueError: for a batch size or a seed out of range.

    Example:
      >>> some = {"image": np.zeros((6, 2, 2, 1), np.uint8), "label": np.arange(6, dtype=np.int32)}
      >>> batches = feed(some, batch_size=2, seed=0)
      >>> batch = batches.assemble(batches.resident, batches.batch_at(0))
      >>> bool((batch["label"] == batch["index"]).all())
      True
    """
    n = n_examples(examples)
    check_feed(batch_size, n, seed)
    rows_at = functools.partial(batch_rows, n=n, batch_size=batch_size, seed=seed)
    if mix is not None:
        rows_at = mixing.rows_at(mix, batch_size, seed)
    elif lengths is not None:
        rows_at = by_length.rows_at(lengths, batch_size, seed)
    resident, gather = in_rows(examples)
    return Feed(resident, lambda step: {"index": rows_at(int(step))}, gather)


def batch_rows(step: int, n: int, batch_size: int, seed: int) -> np.ndarray:
    """Choose which of n examples are the batch of a step: [B] int32.

    >>> sorted(np.concatenate([batch_rows(step, 6, 2, seed=0) for step in range(3)]).tolist())
    [0, 1, 2, 3, 4, 5]
    """
    epoch, batch = divmod(step, n // batch_size)
    return _order(seed, epoch, n)[batch * batch_size :][:batch_size].copy()


@functools.lru_cache(maxsize=2)  # two, for a loop that asks one batch ahead
def _order(seed: int, epoch: int, n: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(n).astype(np.int32)


def in_rows(examples: Examples) -> tuple[Batch, Callable[[Batch, Batch], dict[str, jax.Array]]]:
    """Lay examples out so that a TPU gathers some of them without moving all of them.

    Left to itself the compiler has the number of an image vary fastest in memory, and a step that
    gathers rows begins with a copy of the whole set. It takes rows of whole lanes as they are:
    each example is one, padded by zeros unless it is small, and a long one several.

    Args:
      examples: of any shapes.

    Returns:
      What to keep on the device, and the function of it and of {"index" [B]} that gives "index" and
      the B examples in their own shapes.

    >>> resident, gather = in_rows({"image": np.ones((5, 8, 8, 1), np.uint8)})
    >>> resident["image"].shape, gather(resident, {"index": np.array([4, 2])})["image"].shape
    ((5, 128), (2, 8, 8, 1))
    """
    shapes = {name: values.shape[1:] for name, values in examples.items()}

    def gather(resident: Batch, sent: Batch) -> dict[str, jax.Array]:
        index = sent["index"]
        batch = {}
        for name, shape in shapes.items():
            rows = resident[name][index].reshape(len(index), -1)
            batch[name] = rows[:, : math.prod(shape)].reshape(-1, *shape)
        return {**batch, "index": index}

    return cast(Batch, {name: _in_lanes(values) for name, values in examples.items()}), gather


def _in_lanes(values: np.ndarray) -> np.ndarray:
    """One row an example, as wide as a multiple of 128; several rows of 128 where it is long.

    A narrow row stays as it is: zeros would be most of it.
    """
    if values[0].size < _LANES // 2:
        return values
    rows = values.reshape(len(values), -1)
    if rest := -rows.shape[1] % _LANES:
        rows = np.pad(rows, ((0, 0), (0, rest)))
    return rows if rows.shape[1] <= _LONG_ROW else rows.reshape(len(rows), -1, _LANES)


def with_whole(made: Feed, whole: Mapping[str, np.ndarray]) -> Feed:
    """Give every batch of a feed further resident arrays, as they are: not a row an example.

    >>> few = feed({"label": np.arange(4)}, batch_size=2, seed=0)
    >>> made = with_whole(few, {"corpus": np.zeros((3, 5))})
    >>> made.assemble(made.resident, made.batch_at(0))["corpus"].shape
    (3, 5)
    """

    def assemble(resident: Batch, sent: Batch) -> Batch:
        rows = {name: values for name, values in resident.items() if name not in whole}
        return {**made.assemble(rows, sent), **{name: resident[name] for name in whole}}

    return made._replace(resident={**made.resident, **whole}, assemble=assemble)


def check_feed(batch_size: int, n: int, seed: int) -> None:
    """Raise ValueError unless 1 <= batch_size <= n and seed >= 0.

    >>> check_feed(256, 1297, seed=0)
    """
    check_batch_size(batch_size, n)
    if seed < 0:
        raise ValueError(f"seed is {seed}; it must be 0 or more")


def check_batch_size(batch_size: int, n: int) -> None:
    """Raise ValueError unless 1 <= batch_size <= n.

    >>> check_batch_size(256, 1297)
    """
    if not 1 <= batch_size <= n:
        raise ValueError(
            f"data.batch_size is {batch_size} but the training split has {n} examples\n"
            f"Choose 1 to {n}"
        )


def check_split(examples: Examples, what: str) -> None:
    """Raise DataError unless image is uint8 [N,H,W,C] and label absent or integers [N], N > 0.

    >>> check_split({"image": np.zeros((1, 2, 2, 3), np.uint8)}, "a")
    """
    image, label = examples["image"], examples.get("label")
    if image.ndim != 4 or image.dtype != np.uint8 or 0 in image.shape[1:]:
        raise DataError(
            f"{what}: image is {image.dtype} {list(image.shape)}, but must be uint8 [N,H,W,C]\n"
            "Scale to 0..255, add a channel axis by image[..., None], then .astype('uint8')"
        )
    if label is not None and (label.ndim != 1 or not np.issubdtype(label.dtype, np.integer)):
        raise DataError(
            f"{what}: label is {label.dtype} {list(label.shape)}, but must be integers [N]\n"
            "Save one class number an image, or no label at all"
        )
    if len(image) == 0 or (label is not None and len(image) != len(label)):
        raise DataError(
            f"{what}: {len(image)} images and {0 if label is None else len(label)} labels\n"
            "A split needs at least one image, and one label an image or no label at all"
        )


def distinct_labels(examples: Examples) -> np.ndarray:
    """List the classes that occur, in order.

    >>> distinct_labels({"label": np.array([7, -1, 3, 7])})
    array([3, 7])
    """
    label = np.unique(examples.get("label", np.zeros(0, np.int64)))
    return label[label >= 0]


def number_labels(examples: Examples, classes_C: np.ndarray, what: str, lowest: int) -> Examples:
    """Replace each label by its place among the sorted classes, int32; -1 (unlabeled) stays.

    Args:
      examples: with integer labels [N], or without.
      classes_C: the C labels of the training split, in order.
      what: the split, for messages.
      lowest: -1 where unlabeled images are allowed, else 0.

    Raises:
      DataError: names a label that is none of these.

    >>> number_labels({"label": np.array([7, -1, 3])}, np.array([3, 7]), "a", lowest=-1)["label"]
    array([ 1, -1,  0], dtype=int32)
    """
    if "label" not in examples:
        return examples
    label = examples["label"]
    known = np.isin(label, classes_C) | ((label == UNLABELED) & (lowest == UNLABELED))
    if not known.all():
        first, listed = int(np.flatnonzero(~known)[0]), [str(value) for value in classes_C]
        shown = ", ".join(listed if len(listed) <= 10 else [*listed[:3], "...", listed[-1]])
        raise DataError(
            f"{what}: label {label[first]} at index {first} is none of the classes {shown}\n"
            "Classes are those of the training split; -1 (unlabeled) may be in that split only"
        )
    number = np.searchsorted(classes_C, label)
    return {**examples, "label": np.where(label == UNLABELED, UNLABELED, number).astype(np.int32)}
