"""Texts as the tokens of a set's captions, and back."""

from collections.abc import Sequence

import numpy as np

from contrastive_jax.data import Dataset, captions


def tokens(dataset: Dataset, texts: Sequence[str], longest: int = captions.LONGEST) -> np.ndarray:
    """Turn texts into the tokens that the captions of a set are made of, [N, L] int32."""
    language = captions.Language(dataset.vocabulary, dataset.tokenizer)
    return captions.encode(texts, language, longest)


def written(dataset: Dataset, tokens_NL: np.ndarray) -> list[str]:
    """Write captions out."""
    if dataset.tokenizer is not None:
        return dataset.tokenizer.decode(tokens_NL)
    return [captions.caption_of(each, dataset.vocabulary) for each in tokens_NL]


def unknown(dataset: Dataset, text: str) -> bool:
    """Say whether the training captions have none of the words of a text; pieces are all known."""
    if dataset.tokenizer is not None:
        return not text.strip()
    return not set(captions.words_of(text)) & set(dataset.vocabulary)
