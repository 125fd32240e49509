"""Texts as rows of tokens, by the `tokenizers` library: read from a folder, or trained here."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from contrastive_jax.data._errors import PathLike, first_line, needs
from contrastive_jax.errors import DataError

PAD, UNKNOWN = "[PAD]", "[UNK]"  # tokens 0 and 1 of a vocabulary that is trained here
_BETWEEN_WORDS = r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|_"  # inside of identifiers
_AT_ONCE = 4096  # texts
_LONGEST_WORD = 32  # letters of which parts are made


class Tokens(NamedTuple):
    """Rows of tokens; what comes after a row's length is 0."""

    tokens_NL: np.ndarray  # uint16, or uint32 where a vocabulary needs it
    length_N: np.ndarray  # int32


class Tokenizer:
    """Texts to tokens, by the JSON text of a tokenizer of the `tokenizers` library.

    Padding and truncation that the JSON asks for are not applied: a file may hold those of a demo.

    >>> trained = train(["a red fox", "the red fox"], size=40)
    >>> tokens_NL, length_N = trained.encode(["red fox", "fox"], max_length=4)
    >>> tokens_NL.shape, length_N.tolist(), trained.size <= 40
    ((2, 2), [2, 1], True)
    """

    def __init__(self, json: str):
        with needs("tokenizers"):
            from tokenizers import Tokenizer as Inner

        self.json = json
        self._inner: Any = Inner.from_str(json)
        self._inner.no_padding()
        ids = self._inner.get_vocab(with_added_tokens=True).values()
        self.size = max(ids, default=-1) + 1  # more than there are tokens, where ids have gaps
        self.n_special = self._inner.num_special_tokens_to_add(False)  # around each text

    @property
    def pieces(self) -> tuple[str, ...]:
        """The pieces of texts, by token; "" for numbers that are none."""
        by_token = {token: piece for piece, token in self._inner.get_vocab(True).items()}
        return tuple(by_token.get(token, "") for token in range(max(by_token, default=-1) + 1))

    def decode(self, tokens_NL: np.ndarray) -> list[str]:
        """Write texts out, without padding and special tokens."""
        return [self._inner.decode(np.trim_zeros(row, "b").tolist()) for row in tokens_NL]

    def encode(
        self, texts: Sequence[str], max_length: int, prompt: str = "", shortest: int = 1
    ) -> Tokens:
        """Encode texts behind a prompt; of those too long the special tokens of the end stay.

        Args:
          texts, prompt: each text is encoded behind the prompt.
          max_length: tokens at most.
          shortest: the length of a text without any token, 0 or 1.

        Raises:
          ValueError: max_length < 1.
        """
        if max_length < 1:
            raise ValueError(f"texts of at most {max_length} tokens; give at least 1")
        self._inner.enable_truncation(max_length)
        rows: list[list[int]] = []
        for start in range(0, len(texts), _AT_ONCE):
            block = [prompt + text for text in texts[start : start + _AT_ONCE]]
            rows += [encoded.ids for encoded in self._inner.encode_batch(block)]
        return _padded(rows, np.uint16 if self.size <= 2**16 else np.uint32, shortest)


def _padded(rows: Sequence[Sequence[int]], dtype: type, shortest: int) -> Tokens:
    tokens_NL = np.zeros((len(rows), max(map(len, rows), default=1) or 1), dtype)
    for row, ids in zip(tokens_NL, rows, strict=True):
        row[: len(ids)] = ids
    return Tokens(tokens_NL, np.array([max(len(ids), shortest) for ids in rows], np.int32))


def read(source: PathLike) -> Tokenizer:
    """Read a tokenizer from the JSON text of one, or from a file of it.

    Raises:
      DataError: a file that is not there, or no tokenizer.
    """
    text = source if isinstance(source, str) and source.lstrip().startswith("{") else None
    name = "The text" if text is not None else str(source)
    try:
        return Tokenizer(text if text is not None else Path(source).read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{name} cannot be read: {first_line(error)}\nCheck the path.") from error
    except Exception as error:  # the library raises no narrower class
        raise DataError(
            f"{name} is no tokenizer: {first_line(error)}\nGive a tokenizer.json."
        ) from error


def train(texts: Iterable[str], size: int = 16_000) -> Tokenizer:
    """Make a WordPiece vocabulary: frequent words whole, rare ones in parts.

    Identifiers are split into their words (`getName`, `max_size`), letters become lower case,
    digits stand alone. Token 0 pads and token 1 is what the vocabulary lacks; no tokens are added
    at the ends. The vocabulary is every letter, then seven eighths the most frequent words, and
    for the words beyond them the parts that save most. It is a function of the texts, which
    the trainers of the library are not: they break ties at random.

    Args:
      texts: of the training split alone.
      size: of the vocabulary at most, unless the letters alone are more.

    Raises:
      ValueError: a size below 3, or no texts.

    >>> trained = train(["getName of the max_size"], size=60)
    >>> rows = [trained.encode([text], 9).tokens_NL for text in ("getName", "get name")]
    >>> bool((rows[0] == rows[1]).all())
    True

    Wu et al. 2016 (arXiv 1609.08144), section 4.1, for the greedy split of a word.
    """
    with needs("tokenizers"):
        from tokenizers import Tokenizer as Inner
        from tokenizers import models

    texts = list(texts)
    if size < 3 or not texts:
        raise ValueError(f"a vocabulary of {size} for {len(texts)} texts; give 3 and 1 or more")
    words = _words(texts)
    letters = sorted({letter for word in words for letter in word})
    start = [PAD, UNKNOWN, *letters, *(f"##{letter}" for letter in letters)]
    room = max(size - len(start), 0)
    n_words = len(words) if len(words) <= room else room - room // 8
    parts = _parts(words[n_words:], room - n_words)
    vocabulary = list(dict.fromkeys((*start, *words[:n_words], *parts)))
    inner = Inner(
        models.WordPiece({token: i for i, token in enumerate(vocabulary)}, unk_token=UNKNOWN)  # type: ignore[call-arg]
    )
    return Tokenizer(_dressed(inner).to_str())


def _dressed(inner: Any) -> Any:
    """Set how a text is divided into words."""
    from tokenizers import Regex, normalizers, pre_tokenizers

    between = normalizers.Replace(Regex(_BETWEEN_WORDS), " ")
    inner.normalizer = normalizers.Sequence([normalizers.NFKC(), between, normalizers.Lowercase()])
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=True)]
    )
    return inner


def _words(texts: list[str]) -> list[str]:
    """List the words of texts, the most frequent first, then by letters."""
    from tokenizers import Tokenizer as Inner
    from tokenizers import models, trainers

    counting = _dressed(Inner(models.WordLevel(unk_token=UNKNOWN)))  # type: ignore[call-arg]
    everything = trainers.WordLevelTrainer(vocab_size=2**31 - 1, show_progress=False)  # type: ignore[call-arg]
    counting.train_from_iterator(texts, everything)
    place = counting.get_vocab()
    return sorted(place, key=place.__getitem__)


def _parts(words: Iterable[str], n: int) -> list[str]:
    """Choose what may continue a word: of the letters that it saves in all words, the most."""
    found: Counter[str] = Counter()
    for word in words:
        tail = word[1:_LONGEST_WORD]
        found.update(
            {tail[i:j] for i in range(len(tail)) for j in range(i + 2, min(i + 6, len(tail)) + 1)}
        )
    best = sorted(found, key=lambda part: (-found[part] * (len(part) - 1), part))
    return [f"##{part}" for part in best[:n]]
