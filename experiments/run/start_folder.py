"""A run on texts that starts from a sentence folder: its config, its tokenizer, its first weights.

The folder is `encoder.folder` of a config. What the run trains is decided by the folder's files, so
they fill the config in, which later commands read; the folder itself is no longer needed then.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from contrastive_jax import sentence_folder
from contrastive_jax.data.text import tokens
from contrastive_jax.encoders import bag, bert
from experiments.run.sections import Key, takes

_START = {"folder": Key("", str), "folder_sha256": Key("", str)}  # the latter of its tensors
KEYS = {  # of each encoder that can start from a folder
    "bag": {**takes(bag.make, without=("n_tokens", "idf_T")), **_START},
    "bert": {**takes(bert.make, without=("n_tokens",)), **_START},
}
# not of the folder, but of the run
OWN = ("n_tokens", "dropout", "attention_dropout", "word_dropout", "dtype")
PROMPTS = {"query": ("query",), "document": ("document", "passage", "corpus")}  # by side


class StartedFrom(NamedTuple):
    """An encoder whose `init` gives the parameters of a folder."""

    encoder: Any
    folder: str
    sha256: str

    def init(self, key: Any, *text: jax.Array, train: bool) -> dict[str, Any]:
        """Read the folder; the key is not used.

        Raises:
          ValueError: it holds other tensors by now.
        """
        del key, text, train
        check_tensors(self.folder, self.sha256)
        return {"params": jax.tree.map(jax.numpy.asarray, sentence_folder.read(self.folder).params)}

    def apply(self, *args: Any, **settings: Any) -> Any:
        """Apply the encoder."""
        return self.encoder.apply(*args, **settings)


def resolve(config: ConfigDict) -> ConfigDict:
    """Fill in what the folder of a config decides; without a folder nothing.

    Raises:
      ValueError: a key that says otherwise than the folder. DataError: of the folder.
    """
    folder = config.encoder.get("folder", "")
    if not folder:
        return config
    config = config.copy_and_resolve_references()
    described = sentence_folder.describe(folder)
    config.encoder.folder_sha256 = check_tensors(folder, config.encoder.folder_sha256)
    name = config.encoder.name
    if described.encoder != name:
        raise ValueError(
            f"encoder.name is {name!r}, and {folder} is a model for {described.encoder!r}"
        )
    for key, value in described.settings.items():
        if key not in OWN:
            _refuse_other(key, (KEYS[name][key].default, config.encoder[key]), value, folder)
            config.encoder[key] = value
    for side in PROMPTS:
        name = prompt_of(described.prompts, side) or described.default_prompt
        if name is not None and not config.tokens[f"{side}_prompt"]:
            config.tokens[f"{side}_prompt"] = described.prompts[name]
    return config


def check_tensors(folder: str, sha256: str) -> str:
    """Digest the tensors of a folder.

    Raises:
      ValueError: they are not those of `sha256`, where it is given.
    """
    found = sentence_folder.digest(folder)
    if sha256 not in ("", found):
        raise ValueError(
            f"{folder} holds other tensors than the run began with; "
            "bring those back, or start another run from these"
        )
    return found


def prompt_of(prompts: Mapping[str, str], side: str) -> str | None:
    """Name the prompt of a folder for "query" or "document"; None where it has none.

    >>> prompt_of({"passage": "passage: "}, "document")
    'passage'
    """
    return next((name for name in PROMPTS[side] if name in prompts), None)


def _refuse_other(key: str, default_and_given: tuple[Any, Any], value: Any, folder: str) -> None:
    default, given = default_and_given
    if given not in (default, value):
        raise ValueError(
            f"encoder.{key} is {given!r}, and {folder} is a model of {value!r}; leave it out"
        )


def vocabulary(config: ConfigDict) -> dict[str, Any]:
    """Read the tokenizer of a config's folder and the rows of its table; {} without a folder."""
    folder = config.encoder.get("folder", "")
    if not folder:
        return {}
    described = sentence_folder.describe(folder)
    tokenizer = tokens.read(described.tokenizer_json)
    return {"tokenizer": tokenizer, "n_tokens": described.settings["n_tokens"]}
