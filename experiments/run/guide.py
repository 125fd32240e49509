"""The guide of a guided loss: a sentence encoder that embeds all training texts once.

Its folder is `loss.guide` of a config. What it says of two texts decides whether they may be
negatives of one another.
"""

from collections.abc import Callable, Sequence

import numpy as np
from ml_collections import ConfigDict

from contrastive_jax import sentence_folder
from experiments.run import start_folder
from experiments.run.sections import Key

KEYS = {
    "guide": Key("", str),
    "guide_sha256": Key("", str),  # of its tensors
    "guide_dim": Key(0, int),  # of its vectors
}


def resolve(config: ConfigDict) -> ConfigDict:
    """Record which tensors the guide of a config has, and how long its vectors are.

    Raises:
      ValueError: others than the config names. DataError: of the folder.
    """
    folder = config.loss.get("guide", "")
    if not folder:
        if config.loss.get("guide_dim", 0):
            raise ValueError("loss.guide_dim is read from the folder of loss.guide; set that")
        return config
    config = config.copy_and_resolve_references()
    config.loss.guide_sha256 = start_folder.check_tensors(folder, config.loss.guide_sha256)
    settings = sentence_folder.describe(folder).settings
    config.loss.guide_dim = settings.get("dense_dim") or settings["dim"]
    return config


def not_asked(config: ConfigDict) -> ConfigDict:
    """Take the guide's folder out of a config: the vectors of `encoder` are then zeros."""
    if not config.loss.get("guide_dim", 0):
        return config
    config = config.copy_and_resolve_references()
    config.loss.guide = ""
    return config


def encoder(config: ConfigDict) -> Callable[[str, Sequence[str]], np.ndarray] | None:
    """Make a function from a side and its texts to the guide's vectors; None without a guide."""
    folder, dim = config.loss.get("guide", ""), config.loss.get("guide_dim", 0)
    if not folder:
        return (lambda side, texts: np.zeros((len(texts), dim), np.float32)) if dim else None
    model = sentence_folder.load(folder)
    return lambda side, texts: model.encode(texts, start_folder.prompt_of(model.prompts, side))
