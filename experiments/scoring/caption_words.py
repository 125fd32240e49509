"""Texts as the tokens of a set's captions, and back."""

from collections.abc import Sequence

import numpy as np

from contrastive_jax.data import Dataset, captions


def tokens(dataset: Dataset, texts: Sequence[str]) -> np.ndarray:
    """Turn texts into the tokens that the captions of a set are made of, [N, L] int32."""
    return captions.tokens_of([captions.words_of(text) for text in texts], dataset.vocabulary)


def written(dataset: Dataset, tokens_NL: np.ndarray) -> list[str]:
    """Write captions out."""
    return [captions.caption_of(each, dataset.vocabulary) for each in tokens_NL]


def unknown(dataset: Dataset, text: str) -> bool:
    """Say whether the training captions have none of the words of a text."""
    return not set(captions.words_of(text)) & set(dataset.vocabulary)
