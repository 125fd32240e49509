"""Text encoders by name: tokens [B,L] and lengths [B] to features [B,F], float32.

One is a flax module that is called `encoder.apply(variables, tokens_BL, length_B, train=...)`; in
training it may read the key "dropout".
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import numpy as np

from contrastive_jax.encoders import bag, bert, clip_text, words

TEXT_ENCODERS: Mapping[str, Callable[..., nn.Module]] = {
    "bag": bag.make,
    "bert": bert.make,
    "transformer": clip_text.make,
    "words": words.make,
}


def make(name: str, n_tokens: int, idf_T: np.ndarray | None = None, **settings: Any) -> nn.Module:
    """Make a text encoder by the keys of the config's `encoder`.

    Args:
      name: of `TEXT_ENCODERS`.
      n_tokens: T, size of the vocabulary.
      idf_T: how telling each token is, for encoders that start from it.
      settings: of that encoder.

    Raises:
      ValueError: an unknown name, or a value out of range.

    >>> make("bag", 10, dim=4).dim
    4
    """
    if name not in TEXT_ENCODERS:
        raise ValueError(f"encoder.name is {name!r}; give one of {tuple(TEXT_ENCODERS)}")
    known = {"idf_T": idf_T} if name == "bag" else {}
    return TEXT_ENCODERS[name](n_tokens, **known, **settings)
