"""Captions of labeled images: templates that are filled with the names of the classes."""

from collections.abc import Sequence

import numpy as np

from contrastive_jax.data import captioned, captions
from contrastive_jax.data.examples import UNLABELED, Dataset, Examples, take
from contrastive_jax.errors import DataError


def with_prompts(
    dataset: Dataset, prompts: Sequence[str], context: int, tokenizer: str, batch_size: int
) -> Dataset:
    """Caption images by templates with the name of their class in place of {}.

    Args:
      dataset: in memory, with labels and without captions.
      prompts: templates such as "a photo of a {}".
      context, tokenizer: as of a list of captioned images.
      batch_size: of training, which has to hold two classes.

    Returns:
      The set with "tokens", "captions" and "n_captions" as `captioned` makes them, a caption a
      template; "id" is the class, which images with the same captions share.

    Raises:
      ValueError: a template without {}. DataError: an image without a label, or with a text, or
        classes whose captions are alike.
    """
    for prompt in prompts:
        if not isinstance(prompt, str) or "{}" not in prompt:
            raise ValueError(
                f"data.prompts: {prompt!r} has no {{}} for the name of a class; add one"
            )
    _check(dataset)
    texts = [[prompt.replace("{}", name) for prompt in prompts] for name in dataset.class_names]
    language = captions.language_of(sum(texts, []), tokenizer, context)
    of_class = captioned.captions_of(texts, language, context)
    _check_classes(of_class["captions"], dataset.class_names)

    def captioned_by_class(examples: Examples) -> Examples:
        return {**examples, **take(of_class, examples["label"]), "id": examples["label"]}

    train, test = captioned_by_class(dataset.train), captioned_by_class(dataset.test)
    captioned.refuse_few_concepts(train["id"], batch_size, dataset.name)
    return dataset._replace(train=train, test=test, **language._asdict())


def _check_classes(captions_CTL: np.ndarray, names: Sequence[str]) -> None:
    """Refuse classes with an empty caption, or with one of another class."""
    known: dict[bytes, str] = {}
    for name, captions_TL in zip(names, captions_CTL, strict=True):
        for caption_L in captions_TL:
            other = known.setdefault(caption_L.tobytes(), name)
            if other != name or not caption_L.any():
                what = "has an empty caption" if other == name else f"and {other!r} share a caption"
                raise DataError(
                    f"class {name!r} {what} by data.prompts, of {captions_TL.shape[1]} tokens.\n"
                    "Name the classes in different words, or give longer prompts."
                )


def _check(dataset: Dataset) -> None:
    """Refuse images with captions of their own, or without a label."""
    for split, examples in {"training": dataset.train, "test": dataset.test}.items():
        if "tokens" in examples:
            raise DataError(f"{dataset.name} has texts of its own.\nLeave data.prompts unset.")
        n = int(np.sum(examples.get("label", np.array([UNLABELED])) == UNLABELED))
        if n:
            missing = f"{n:,} {split} images have no" if "label" in examples else "no image has a"
            raise DataError(
                f"{dataset.name}: {missing} label, and data.prompts captions an image by that.\n"
                "Give a set, or a split of it, whose images all have one."
            )
