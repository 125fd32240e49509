"""The kinds of data: what each brings to a run of any method."""

from functools import partial

from contrastive_jax import augment, data
from contrastive_jax.data.text import sets, sources
from experiments.run.build import Kind
from experiments.run.sections import REQUIRED, Key, takes
from experiments.scoring import captions, graded, hard_negatives, images, summary, texts

OF_THE_RUN = ("corpus", "chosen", "mined", "tokenizer", "n_tokens", "guide")  # no keys of `data`

IMAGES = Kind(
    unit="images",
    sections={
        "data": takes(data.load),
        "augment": {"size": Key(REQUIRED, int), **takes(augment.Augmentation)},
        "eval": takes(images.settings),
    },
    load=images.load,
    stand_in=images.stand_in,
    feed=images.feed,
    check=images.check,
    describe=images.describe,
    evaluators=images.evaluators,
    score=summary.score,
)

CAPTIONED_IMAGES = IMAGES._replace(
    load=captions.load,
    stand_in=captions.stand_in,
    check=partial(images.check, without_labels=captions.WITHOUT_LABELS),
    score=captions.score,
)


def is_captioned(kind: Kind) -> bool:
    """Whether a kind of data is captioned images, whatever a method adds to it."""
    return kind.score is CAPTIONED_IMAGES.score


TEXT = Kind(
    unit="pairs",
    sections={
        "data": {
            **takes(sources.read),
            **takes(sets.dataset, without=OF_THE_RUN),
        },
        "mine": takes(hard_negatives.settings),
        "tokens": takes(sets.settings),
        "eval": takes(texts.settings),
    },
    load=texts.load,
    stand_in=texts.stand_in,
    feed=texts.feed,
    check=hard_negatives.check,
    describe=texts.describe,
    evaluators=texts.evaluators,
    score=graded.score,
    refresh=hard_negatives.refresh,
    keep=texts.keep,
)
