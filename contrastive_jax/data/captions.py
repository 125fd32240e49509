"""Captions as rows of tokens: words and single digits by their places in a vocabulary, or the
pieces of a tokenizer."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from contrastive_jax.data.text import tokens
from contrastive_jax.data.text.tokens import Tokenizer

PAD, UNKNOWN = 0, 1  # tokens
LONGEST = 64  # words of a caption at most; what comes after is cut off


class Language(NamedTuple):
    """How captions become tokens."""

    vocabulary: tuple[str, ...]  # by token
    tokenizer: Tokenizer | None = None  # None: words


def language_of(texts: Iterable[str], file: str, context: int) -> Language:
    """Read the tokenizer of a file, or without one list the words of texts.

    >>> language_of(["a cat", "a dog"], "", 9).vocabulary
    ('', '?', 'a', 'cat', 'dog')

    Raises:
      ValueError: captions of so few tokens have room for special ones only. DataError: of the file.
    """
    if context < 1:
        raise ValueError(f"context is {context}; give at least 1 token")
    if not file:
        return Language(vocabulary_of(map(words_of, texts)))
    tokenizer = tokens.read(os.path.expanduser(file))
    if context <= tokenizer.n_special:
        raise ValueError(
            f"context is {context}, and each caption has {tokenizer.n_special} special tokens; "
            f"give at least {tokenizer.n_special + 1}"
        )
    return Language(tokenizer.pieces, tokenizer)


def words_of(text: str) -> tuple[str, ...]:
    """Split a text into lower-case words and single digits.

    >>> words_of("Braille pattern dots-12")
    ('braille', 'pattern', 'dots', '1', '2')
    """
    return tuple(re.findall(r"[^\W\d_]+|\d", text.lower()))


def vocabulary_of(captions: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """List the words of captions, the most frequent first; a token is a place in this list.

    >>> vocabulary_of([("greek", "letter"), ("letter",)])
    ('', '?', 'letter', 'greek')
    """
    counts = Counter(word for caption in captions for word in caption)
    return ("", "?", *sorted(counts, key=lambda word: (-counts[word], word)))


def tokens_of(
    captions: Sequence[Sequence[str]], vocabulary: Sequence[str], longest: int = LONGEST
) -> np.ndarray:
    """Look words up in a vocabulary: [N, L] int32, padded; what is not in it is `UNKNOWN`.

    >>> tokens_of([("letter", "x"), ("letter",)], ("", "?", "letter")).tolist()
    [[2, 1], [2, 0]]
    """
    place = {word: token for token, word in enumerate(vocabulary)}
    length = min(max((len(caption) for caption in captions), default=1), longest)
    rows = [[place.get(word, UNKNOWN) for word in caption[:length]] for caption in captions]
    return np.array([row + [PAD] * (length - len(row)) for row in rows], np.int32)


def caption_of(tokens_L: np.ndarray, vocabulary: tuple[str, ...]) -> str:
    """Write out the words of a caption.

    >>> caption_of(np.array([2, 1, 0]), ("", "?", "letter"))
    'letter ?'
    """
    return " ".join(vocabulary[token] for token in tokens_L.tolist() if token != PAD)


def ids_of(captions: Sequence[Sequence[str]]) -> np.ndarray:
    """Number captions so that equal ones have the same number, [N] int32.

    >>> ids_of([("a", "cat"), ("a", "dog"), ("a", "cat")])
    array([0, 1, 0], dtype=int32)
    """
    number: dict[tuple[str, ...], int] = {}
    return np.array([number.setdefault(tuple(c), len(number)) for c in captions], np.int32)


def encode(texts: Sequence[str], language: Language, longest: int = LONGEST) -> np.ndarray:
    """Turn texts into tokens, [N, L] int32, padded; what comes after `longest` is cut off.

    >>> encode(["Letter X", "letter"], Language(("", "?", "letter"))).tolist()
    [[2, 1], [2, 0]]
    """
    if language.tokenizer is None:
        return tokens_of([words_of(text) for text in texts], language.vocabulary, longest)
    return language.tokenizer.encode(texts, longest).tokens_NL.astype(np.int32)


def count_longer(texts: Sequence[str], language: Language, longest: int) -> int:
    """Count the texts of more than so many tokens.

    >>> count_longer(["a b c", "a"], Language(("", "?")), 2)
    1
    """
    if language.tokenizer is None:
        return sum(len(words_of(text)) > longest for text in texts)
    return int((language.tokenizer.encode(texts, longest + 1).length_N > longest).sum())
