"""Zero-shot classification by prompts: a class is the mean of the prompts that name it."""

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from contrastive_jax.errors import ConfigError
from contrastive_jax.evaluation import cross_modal
from contrastive_jax.evaluation.results import Scored
from contrastive_jax.types import TrainState
from experiments.run.build import Run
from experiments.run.restore import OpenedRun
from experiments.scoring import caption_words, captions, images, kinds


def read(file: str, opened: OpenedRun) -> tuple[str, ...]:
    """Read templates, one a line, each with a {} for the name of a class.

    Empty lines and lines that begin with # are skipped.

    Raises:
      ConfigError: a run without a text encoder, no such file, no template, one without a slot.
    """
    if not kinds.is_captioned(opened.experiment.kind):
        raise ConfigError(
            f"--prompts: a run of {opened.experiment.name!r} has no text encoder; give a run of "
            "experiments.clip."
        )
    try:
        lines = enumerate(Path(file).expanduser().read_text(encoding="utf-8").splitlines(), 1)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--prompts: cannot read {file}: {error}") from error
    found = [(n, line.strip()) for n, line in lines if line.strip() and line.strip()[0] != "#"]
    for n, line in found:
        if "{}" not in line:
            raise ConfigError(
                f"{file}, line {n}: {line!r} has no {{}} for the name of a class; add one."
            )
    if not found:
        raise ConfigError(f"{file} has no prompts; write one a line, such as: a photo of a {{}}")
    return tuple(line for _, line in found)


def check(run: Run) -> None:
    """Ask whether prompts can classify the test images of a run; note names of unknown words.

    Raises:
      ConfigError: no labels, or no class whose name training met.
    """
    names = run.dataset.class_names
    if "label" not in run.dataset.test or not names:
        raise ConfigError(f"--prompts: {run.dataset.name} has no labels to be compared with.")
    unknown = [name for name in names if caption_words.unknown(run.dataset, name)]
    if len(unknown) == len(names):
        raise ConfigError(
            f"--prompts: training met no word of the classes of {run.dataset.name}: "
            f"{', '.join(names[:5])}."
        )
    if unknown:
        shown = ", ".join(unknown[:5])
        print(
            f"note: training met no word of {len(unknown)} of {len(names)} classes: {shown}",
            file=sys.stderr,
        )


def scores(run: Run, trained: TrainState, prompts: Sequence[str]) -> Iterator[Scored]:
    """Classify the test images by prompts, beside the untrained towers."""
    names, test = run.dataset.class_names, run.dataset.test
    about = {"by": f"{len(prompts)} prompt{'s' * (len(prompts) > 1)}", "prompts": list(prompts)}
    for representation, state in captions.states(run, trained).items():
        print(f"scoring: {representation}, zero-shot", flush=True)
        embed = partial(captions.embed_texts, run, state)
        vectors_CD = cross_modal.prompt_vectors(embed, names, prompts)
        image_ND = images.extract(run, state, test["image"])["embedding"]
        predicted_N = np.argmax(image_ND @ vectors_CD.T, axis=1)
        row = cross_modal.zero_shot_row(
            predicted_N,
            test["label"],
            representation=representation,
            candidates=len(names),
            **about,
        )
        yield Scored(row, predicted_N)
