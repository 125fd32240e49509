"""A sentence encoder with its tokenizer: texts in, vectors out."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from contrastive_jax.data.text import tokens
from contrastive_jax.encoders import text
from contrastive_jax.evaluation import texts as evaluation
from contrastive_jax.sentence_folder.folder import SentenceFolder, read
from contrastive_jax.types import EmbedFn


class Model(NamedTuple):
    """An encoder of texts; see `load`."""

    embed: EmbedFn  # (params, {}, {"tokens" [B,L], "length" [B]}) -> {"features" [B,F]}
    params: Any
    tokenizer: tokens.Tokenizer
    max_length: int
    prompts: Mapping[str, str]
    default_prompt: str | None
    shortest: int = 1  # the length of a text without any token

    def encode(
        self, texts: Sequence[str], prompt: str | None = None, batch_size: int = 32
    ) -> np.ndarray:
        """Encode texts, sorted by length in few widths; each width is compiled once.

        Args:
          texts: N of them; those that are too long are cut.
          prompt: name of one of `prompts`, which is set before every text; None for the default.
          batch_size: texts at a time.

        Returns:
          float32 [N,F], in the order of the texts.

        Raises:
          ValueError: no such prompt, no texts, or one that is not a string.
        """
        name = self.default_prompt if prompt is None else prompt
        if name is not None and name not in self.prompts:
            known = ", ".join(self.prompts) or "no prompt at all"
            raise ValueError(f"prompt is {name!r}; the model has {known}")
        if isinstance(texts, str) or not texts or not all(isinstance(t, str) for t in texts):
            raise ValueError("texts must be a list of strings, at least one")
        before = "" if name is None else self.prompts[name]
        encoded = self.tokenizer.encode(texts, self.max_length, before, self.shortest)
        longest = max(encoded.tokens_NL.shape[1], evaluation.WIDTHS[-1])
        sizes: Any = {"batch_size": batch_size, "longest": min(longest, self.max_length)}
        found = evaluation.extract(self.embed, self.params, {}, *encoded, **sizes)
        return found["features"]


def load(folder: str | os.PathLike[str]) -> Model:
    """Read a folder to encode with.

    Raises:
      DataError: as `sentence_folder.read`.
    """
    return as_model(read(folder))


def as_model(folder: SentenceFolder) -> Model:
    """Put the parameters on the default device, and the tokenizer beside them."""
    return Model(
        embedding(text.make(folder.encoder, **folder.settings)),
        jax.device_put(folder.params),
        tokens.read(folder.tokenizer_json),
        folder.max_length,
        folder.prompts,
        folder.default_prompt,
        shortest=0 if folder.encoder == "bag" else 1,
    )


def embedding(encoder: Any) -> EmbedFn:
    """Make the function of `Model.embed` from a text encoder in evaluation mode."""

    def embed(params: Any, model_state: Any, batch: Mapping[str, jax.Array]) -> dict[str, Any]:
        del model_state
        ids = batch["tokens"].astype(jnp.int32), batch["length"]
        return {"features": encoder.apply({"params": params}, *ids, train=False)}

    return embed
