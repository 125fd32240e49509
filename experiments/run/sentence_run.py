"""A run on texts as a sentence folder: what export writes."""

from typing import Any

import jax
import numpy as np

from contrastive_jax import sentence_folder
from contrastive_jax.data.text import tokens
from contrastive_jax.errors import ConfigError, DataError
from contrastive_jax.sentence_folder import SentenceFolder
from experiments.run import start_folder
from experiments.run.restore import LoadedRun, OpenedRun
from experiments.run.sections import as_kwargs
from experiments.scoring.texts import TOKENIZER


def as_folder(opened: OpenedRun, loaded: LoadedRun) -> SentenceFolder:
    """Make a sentence folder of a run; its vectors are the embeddings of the run, of length one.

    Where the folder that training started from is still there, what this library does not use
    comes along: the pooler, further keys of config.json, further files of the tokenizer.
    """
    settings = as_kwargs(opened.config, "encoder")
    start, _, name = (settings.pop(key) for key in ("folder", "folder_sha256", "name"))
    unit = {"scale": "unit"} if name == "bag" else {"normalize": True}
    settings |= {"n_tokens": loaded.run.dataset.n_tokens, **unit}
    chosen = opened.config.tokens
    text = tokens.read(opened.folder / TOKENIZER).json
    return SentenceFolder(
        settings,
        jax.tree.map(np.asarray, loaded.trained.params["encoder"]),
        text,
        max(chosen.query_length, chosen.document_length),
        {"query": chosen.query_prompt, "document": chosen.document_prompt},
        **_kept(start, text),
        encoder=name,
    )


def check(opened: OpenedRun) -> None:
    """Refuse an encoder, a head or towers that no sentence folder holds.

    Raises:
      ConfigError: naming the key.
    """
    config = opened.config
    if config.encoder.name not in start_folder.FROM_A_FOLDER:
        raise ConfigError(
            f"{opened.folder} has encoder.name {config.encoder.name!r}; a folder of "
            f"sentence-transformers holds one of {start_folder.FROM_A_FOLDER}.\n"
            "Its vectors are written by experiments.encode."
        )
    of_bag = {"encoder.repeats": (config.encoder.get("repeats"), 1.0)}
    needed = {
        **(of_bag if config.encoder.name == "bag" else {}),
        "head.kind": (config.head.kind, "none"),
        "dual.towers": (config.dual.towers, "shared"),
    }
    for key, (value, wanted) in needed.items():
        if value != wanted:
            raise ConfigError(
                f"{opened.folder} has {key} {value!r}; a folder of sentence-transformers holds "
                f"{wanted!r} alone.\nIts vectors are written by experiments.encode."
            )


def _kept(start: str, tokenizer_json: str) -> dict[str, Any]:
    """What is kept of the folder that training started from; nothing where it is gone."""
    try:
        before = sentence_folder.read(start) if start else None
    except DataError:
        before = None
    if before is None or before.tokenizer_json != tokenizer_json:
        return {}
    return {name: getattr(before, name) for name in ("config", "pooler", "companions")}
