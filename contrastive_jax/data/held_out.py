"""Hold out things whose captions can be understood from those of the others."""

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

IN_CAPTIONS = 3  # of the training set, that a word has to occur in

Key = TypeVar("Key", int, str)


def fraction_of(text: str) -> float:
    """Hash a text to a number in [0, 1).

    >>> round(fraction_of("glyphs 97"), 4)
    0.8471
    """
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32


def hold_out(
    captions: Mapping[Key, Sequence[str]], seen: Collection[Key], chosen: Collection[Key]
) -> tuple[set[Key], set[Key]]:
    """Take things out of those to train on; test on those whose words the others teach.

    Args:
      captions: the words of each thing.
      seen: those that could be trained on.
      chosen: those not to be trained on.

    Returns:
      Those to train on and those to test on; what has a word that fewer than three captions of the
      training set have is in neither.

    >>> train, test = hold_out({1: ("a",), 2: ("a",), 3: ("a",), 4: ("a",), 5: ("b",)},
    ...                        range(1, 6), {4, 5})
    >>> sorted(train), sorted(test)
    ([1, 2, 3], [4])
    """
    train = set(seen) - set(chosen)
    known = Counter(word for key in train for word in set(captions[key]))
    taught = {word for word, count in known.items() if count >= IN_CAPTIONS}
    return train, {key for key in chosen if taught.issuperset(captions[key])}
