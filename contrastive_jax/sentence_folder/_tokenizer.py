"""What a folder says of its tokenizer beside tokenizer.json."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contrastive_jax.sentence_folder import _files

COMPANIONS = (  # read by Hugging Face, kept as they are
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt"),
    *("vocab.json", "merges.txt", "sentencepiece.bpe.model"),
)
_OLD_SETTINGS = "sentence_{}_config.json"  # named after the architecture, before 2.0
_ROLES = {
    "pad_token": ("[PAD]", "<pad>"),
    "unk_token": ("[UNK]", "<unk>"),
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
    "mask_token": ("[MASK]", "<mask>"),
}


_KINDS: Mapping[str, type] = {"max_seq_length": float, "do_lower_case": bool}


def settings(folder: Path) -> dict[str, Any]:
    """Read sentence_bert_config.json, under whatever name it has; what it lacks is None.

    Raises:
      DataError: a key of another type.
    """
    for name in ("bert", "roberta", "distilbert", "camembert", "xlm-roberta"):
        path = folder / _OLD_SETTINGS.format(name)
        if path.is_file():
            found = _files.json_object(path)
            return {key: _files.value(path, found, key, kind) for key, kind in _KINDS.items()}
    return dict.fromkeys(_KINDS)


def max_length(folder: Path, said: Mapping[str, Any], most: int) -> int:
    """Find the length at which texts are cut: as said, else that of the tokenizer, at most `most`.

    Raises:
      DataError: it is not a positive number.
    """
    path = folder / "tokenizer_config.json"
    length, of_tokenizer = said.get("max_seq_length"), _files.json_object(path, {})
    if length is None:
        length = _files.value(path, of_tokenizer, "model_max_length", float, most)
    if not length >= 1:
        _files.refuse(folder, f"its longest text has {length!r} tokens", "Give a number above 0.")
    return int(min(length, most))


def lowercased(tokenizer_json: str) -> str:
    """Have a tokenizer lowercase first, as `do_lower_case` asks sentence-transformers to.

    >>> lowercased('{"normalizer": null}')
    '{"normalizer": {"type": "Sequence", "normalizers": [{"type": "Lowercase"}]}}'
    """
    tokenizer = json.loads(tokenizer_json)
    own = [tokenizer["normalizer"]] if tokenizer.get("normalizer") else []
    chain = [{"type": "Lowercase"}, *own]
    return json.dumps({**tokenizer, "normalizer": {"type": "Sequence", "normalizers": chain}})


def new_config(tokenizer_json: str, max_length: int) -> dict[str, Any]:
    """Describe a tokenizer of one's own for Hugging Face: its class and special tokens.

    >>> new_config('{"model": {"vocab": {"[PAD]": 0, "[UNK]": 1}}}', 64)["pad_token"]
    '[PAD]'
    """
    tokenizer = json.loads(tokenizer_json)
    vocabulary = tokenizer["model"]["vocab"]
    known = {entry[0] if isinstance(entry, list) else entry for entry in vocabulary}
    known |= {token["content"] for token in tokenizer.get("added_tokens", [])}
    roles = {role: token for role, tokens in _ROLES.items() for token in tokens if token in known}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "clean_up_tokenization_spaces": False,
        **roles,
    }
