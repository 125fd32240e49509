"""A run on texts that starts from a sentence folder: its config, its tokenizer, its first weights.

The folder is the key `folder` of the config's section with the text encoder: `encoder` of
experiments.text, `text` of experiments.clip. What the run trains is decided by the folder's files,
so they fill the config in, which later commands read; `encode`, `mine` and `export` do without the
folder, `evaluate` and captions read it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from contrastive_jax import sentence_folder
from contrastive_jax.data.text import tokens
from contrastive_jax.encoders import text
from contrastive_jax.types import RunInfo
from experiments.run.sections import Choice, Key, as_kwargs, takes

_START = {"folder": Key("", str), "folder_sha256": Key("", str)}  # the latter of its tensors
FROM_A_FOLDER = ("bag", "bert")
OPTIONS = {  # of a text encoder, by its name
    name: takes(make, without=("n_tokens", "idf_T")) | (_START if name in FROM_A_FOLDER else {})
    for name, make in text.TEXT_ENCODERS.items()
}
OWN = ("n_tokens", "dropout", "attention_dropout", "word_dropout", "dtype")  # of the run
PROMPTS = {"query": ("query",), "document": ("document", "passage", "corpus")}  # by side


def section(default: str) -> Choice:
    """The section of a text encoder."""
    return Choice(key="name", default=default, common={}, options=OPTIONS)


class StartedFrom(NamedTuple):
    """An encoder whose `init` gives the parameters of a folder."""

    encoder: Any
    folder: str
    sha256: str

    def init(self, key: Any, *texts: jax.Array, train: bool) -> dict[str, Any]:
        """Read the folder; the key is not used.

        Raises:
          ValueError: it holds other tensors by now.
        """
        del key, texts, train
        check_tensors(self.folder, self.sha256)
        return {"params": jax.tree.map(jax.numpy.asarray, sentence_folder.read(self.folder).params)}

    def apply(self, *args: Any, **settings: Any) -> Any:
        """Apply the encoder."""
        return self.encoder.apply(*args, **settings)


def encoder_of(config: ConfigDict, section: str, info: RunInfo) -> Any:
    """Make the text encoder of a section, which starts from a folder where it names one.

    Raises:
      ValueError: a value out of range.
    """
    settings = as_kwargs(config, section)
    folder, sha256 = settings.pop("folder", ""), settings.pop("folder_sha256", "")
    encoder = text.make(n_tokens=info.n_tokens, idf_T=info.idf_T, **settings)
    return StartedFrom(encoder, folder, sha256) if folder else encoder


def resolve(config: ConfigDict, section: str = "encoder") -> ConfigDict:
    """Fill in what the folder of a config decides; without a folder nothing.

    Raises:
      ValueError: a key that says otherwise than the folder. DataError: of the folder.
    """
    folder = config[section].get("folder", "")
    if not folder:
        return config
    config = config.copy_and_resolve_references()
    described, own = sentence_folder.describe(folder), config[section]
    own.folder_sha256 = check_tensors(folder, own.folder_sha256)
    if described.encoder != own.name:
        raise ValueError(
            f"{section}.name is {own.name!r}, and {folder} is a model for {described.encoder!r}"
        )
    for key, value in described.settings.items():
        if key not in OWN:
            _refuse_other(section, own, key, value)
            own[key] = value
    for side in PROMPTS if "tokens" in config else ():
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


def _refuse_other(section: str, own: ConfigDict, key: str, value: Any) -> None:
    if own[key] not in (OPTIONS[own.name][key].default, value):
        raise ValueError(
            f"{section}.{key} is {own[key]!r}, and {own.folder} is a model of {value!r}; "
            "leave it out"
        )


def vocabulary(config: ConfigDict, section: str = "encoder") -> dict[str, Any]:
    """Read the tokenizer of a config's folder and the rows of its table; {} without a folder."""
    folder = config[section].get("folder", "")
    if not folder:
        return {}
    described = sentence_folder.describe(folder)
    tokenizer = tokens.read(described.tokenizer_json)
    return {"tokenizer": tokenizer, "n_tokens": described.settings["n_tokens"]}
