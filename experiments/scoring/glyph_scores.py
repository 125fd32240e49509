"""What glyphs allow beside captions: one character in another style, and small or capital."""

from collections.abc import Callable, Sequence

import numpy as np

from contrastive_jax import data
from contrastive_jax.data import glyphs
from contrastive_jax.evaluation import cross_modal
from contrastive_jax.evaluation.results import Row
from contrastive_jax.types import TrainState
from experiments.run.build import Run
from experiments.scoring import caption_words, galleries, images
from experiments.scoring.galleries import Ranked

QUERIED, SEARCHED = glyphs.UNSEEN[0], "Sans"  # styles
CASES, CASED = ("small", "capital"), ("latin", "greek", "cyrillic", "armenian")
SCRIPTS = (*CASED, "arabic", "braille", "canadian", "coptic", "georgian", "hebrew", "lao", "lisu",
           "nko", "ogham", "runic", "tifinagh")  # fmt: skip


def across_styles(run: Run, trained: TrainState) -> list[Row]:
    """Look up characters of a style that training never shows among those of one that it does.

    Once among held-out characters, once among all of the set, by the image tower alone; pixels are
    the baseline.
    """
    styles = [{g.code: g.image for g in glyphs.draw_style(s)} for s in (QUERIED, SEARCHED)]
    test, train = (set(part["id"].tolist()) for part in (run.dataset.test, run.dataset.train))
    chosen = {"held-out characters": test, "all characters": test | train}
    found: list[Ranked] = []
    for name, codes in chosen.items():
        shared = sorted(codes & styles[0].keys() & styles[1].keys())
        if len(shared) > 1:
            query, searched = (np.stack([of[c] for c in shared])[..., None] for of in styles)
            found += _across(run, trained, query, searched, name)
    return galleries.rows(found, "pixels")


def _across(
    run: Run, trained: TrainState, query: np.ndarray, searched: np.ndarray, name: str
) -> list[Ranked]:
    twin_N = cross_modal.twins(searched)
    correct = twin_N[:, None] == twin_N, np.eye(len(query), dtype=bool)
    task = f"{QUERIED} to {SEARCHED}, {name}"
    return [
        galleries.rank(*map(_embedding, sets), *correct, task=task, representation=representation)
        for representation, sets in images.representations(run, trained, query, searched)
    ]


def _embedding(layers: images.Features) -> np.ndarray:
    """The embedding, or of pixels what there is."""
    return layers.get("embedding", next(iter(layers.values())))


def small_or_capital(
    embed: Callable[[Sequence[str]], np.ndarray],
    run: Run,
    image_ND: np.ndarray,
    representation: str,
) -> Row | None:
    """Say by prompts whether the held-out letters of a style are small or capital.

    Args:
      embed: texts to [n, D].
      run: whose test images are asked about.
      image_ND: embeddings of the test images.
      representation: whose they are.

    Returns:
      None where the test images have not both, or no training caption has.
    """
    (rows, label), prompts = cased(run.dataset), case_prompts(run.dataset)
    if len(np.unique(label)) < len(CASES) or not prompts:
        return None
    text_MD = embed([prompt.format(case) for case in CASES for prompt in prompts])
    label_M = np.repeat(np.arange(len(CASES)), len(prompts))
    predicted = cross_modal.classify_by_captions(image_ND[rows], text_MD, label_M)
    about = {"task": "small or capital", "by": f"{len(prompts)} prompts"}
    return cross_modal.zero_shot_row(predicted, label, representation=representation, **about)


def case_prompts(dataset: data.Dataset) -> list[str]:
    """Make a prompt of each caption that training has of the small and of the capital letter."""
    small, capital = CASES
    tokens_ML = np.unique(dataset.train["tokens"], axis=0)
    known = set(caption_words.written(dataset, tokens_ML))
    of_letters = (caption for caption in sorted(known) if caption.startswith(CASED))
    prompts = (caption.replace(f" {small} ", " {} ", 1) for caption in of_letters)
    return [prompt for prompt in prompts if "{}" in prompt and prompt.format(capital) in known]


def in_scripts(dataset: data.Dataset, examples: data.Examples) -> np.ndarray:
    """Mark the characters of a script that has a class of its own, [N] bool."""
    chosen = [label for label, name in enumerate(dataset.class_names) if name in SCRIPTS]
    return np.isin(examples["label"], chosen)


def cased(dataset: data.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Find the letters of the first gallery that are small or capital: rows, and classes."""
    gallery, rows, found = galleries.galleries(dataset)[0], [], []
    captions = caption_words.written(dataset, dataset.test["tokens"][gallery.rows])
    for row, caption in zip(gallery.rows.tolist(), captions, strict=True):
        words = caption.split()
        case = [name for name in CASES if name in words]
        if len(case) == 1 and "letter" in words and words[0] in CASED:
            rows.append(row)
            found.append(CASES.index(case[0]))
    return np.array(rows, int), np.array(found, int)
