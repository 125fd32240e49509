"""CLIP's vocabulary as a tokenizer.json: pairs of pieces of words, in the order of their merging.

The file of OpenAI, bpe_simple_vocab_16e6.txt.gz, has a line about itself and then a pair a line.
The tokens are the 256 bytes, the same bytes at the end of a word, what each pair makes, and the two
around a text (Radford et al. 2021, arXiv 2103.00020, section 2.4).
"""

import gzip
from pathlib import Path
from typing import Any

from contrastive_jax.data._errors import first_line, needs
from contrastive_jax.errors import DataError

START, END = "<|startoftext|>", "<|endoftext|>"
PAIRS = 49_408 - 2 * 256 - 2  # the file has more, which are not used
_SUFFIX = "</w>"  # of the last piece of a word
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
_CURLY = {"'": r"[\u2018-\u201b\u02bc]", '"': r"[\u201c-\u201f]"}
_MOST_BYTES = 1 << 26


def from_file(path: Path) -> str:
    """Make the JSON of a tokenizer from the file of CLIP's vocabulary.

    Raises:
      DataError: it cannot be read, or is no such file.
    """
    with needs("tokenizers"):
        import tokenizers  # noqa: F401
    try:
        with gzip.open(path) as file:
            lines = file.read(_MOST_BYTES).decode("utf-8").strip("\n").split("\n")
        pairs = [tuple(line.split()) for line in lines[1 : PAIRS + 1]]
        if len(pairs) < PAIRS or any(len(pair) != 2 for pair in pairs):
            raise ValueError(f"not {PAIRS:,} pairs of pieces behind a line about the file")
        return _tokenizer(pairs).to_str()
    except Exception as error:  # of the file, zlib, or the library, which raises no narrower class
        raise DataError(
            f"{path} is no vocabulary of CLIP: {first_line(error)}\n"
            "Give bpe_simple_vocab_16e6.txt.gz of github.com/openai/CLIP, or of open_clip's wheel."
        ) from error


def _tokenizer(pairs: list[tuple[str, ...]]) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers
    from tokenizers import pre_tokenizers as words
    from tokenizers.processors import TemplateProcessing

    letters = sorted(words.ByteLevel.alphabet())  # a letter a byte: the printable ones come first
    pieces = [*letters, *(letter + _SUFFIX for letter in letters), *map("".join, pairs)]
    vocabulary = {piece: token for token, piece in enumerate([*pieces, START, END])}
    made = Tokenizer(models.BPE(vocabulary, pairs, end_of_word_suffix=_SUFFIX))  # type: ignore[arg-type]
    straight = [normalizers.Replace(Regex(curly), mark) for mark, curly in _CURLY.items()]
    made.normalizer = normalizers.Sequence([*straight, normalizers.NFC(), normalizers.Lowercase()])
    split = words.Split(Regex(_WORDS), behavior="removed", invert=True)
    made.pre_tokenizer = words.Sequence([split, words.ByteLevel(False, use_regex=False)])
    made.add_special_tokens([START, END])
    made.post_processor = TemplateProcessing(
        single=f"{START} $A {END}",
        special_tokens=[(token, vocabulary[token]) for token in (START, END)],
    )
    spaces = decoders.Replace(_SUFFIX, " ")
    made.decoder = decoders.Sequence([decoders.ByteLevel(), spaces, decoders.Strip(" ", 0, 1)])
    return made
