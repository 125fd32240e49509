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
}


def resolve(config: ConfigDict) -> ConfigDict:
    """Record which tensors the guide of a config has; without a guide nothing.

    Raises:
      ValueError: others than the config names. DataError: of the folder.
    """
    folder = config.loss.get("guide", "")
    if not folder:
        return config
    config = config.copy_and_resolve_references()
    config.loss.guide_sha256 = start_folder.check_tensors(folder, config.loss.guide_sha256)
    return config


def encoder(config: ConfigDict) -> Callable[[str, Sequence[str]], np.ndarray] | None:
    """Make a function from a side and its texts to the guide's vectors; None without a guide."""
    folder = config.loss.get("guide", "")
    if not folder:
        return None
    model = sentence_folder.load(folder)
    return lambda side, texts: model.encode(texts, start_folder.prompt_of(model.prompts, side))
