"""Retrieval by a run on captioned images: its scores, or the images nearest to typed captions."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from contrastive_jax import figures
from contrastive_jax.errors import ConfigError
from contrastive_jax.evaluation import neighbors, protocols
from contrastive_jax.storage import workdir
from experiments.run import console, lifecycle, provenance, restore
from experiments.run.restore import LoadedRun, OpenedRun
from experiments.scoring import caption_words, captions, galleries, images, kinds

FOUND, PRINTED = 8, 3  # images of a caption: on the picture, and in the terminal


class Nearest(NamedTuple):
    """The test images that are nearest to captions."""

    row_QK: np.ndarray
    cosine_QK: np.ndarray


def open_captioned(folder: Path) -> OpenedRun:
    """Open a run on captioned images.

    Raises:
      ConfigError: the folder holds none.
    """
    opened = restore.open_run(folder)
    if not kinds.is_captioned(opened.experiment.kind):
        raise ConfigError(
            f"{folder} is a run of {opened.experiment.name!r}: say by --data what is searched. "
            "Only a run of experiments.clip is scored on its own captions."
        )
    return opened


def score(opened: OpenedRun, to: Path | None) -> None:
    """Score retrieval between the test images and their captions; print, and write where asked."""
    lifecycle.set_up_jax()
    run, step, trained = opened.load()
    rows = captions.retrieval_rows(run, trained)
    print(console.table([row for row in rows if protocols.is_quoted(row["protocol"])]))
    if to is not None:
        origin = provenance.of_scores(run, opened.description, step)
        workdir.write_json(to, {**origin, "evaluations": rows})
        print(f"scores {to}")


def ask(opened: OpenedRun, queries: Sequence[str]) -> None:
    """Print the test images that are nearest to captions, and draw them into the run's figures.

    Raises:
      ConfigError: a caption none of whose words training met.
    """
    lifecycle.set_up_jax()
    loaded = opened.load()
    for query in queries:
        if caption_words.unknown(loaded.run.dataset, query):
            raise ConfigError(f"--query: training met no word of {query!r}; use others.")
    found = nearest(loaded, queries)
    dataset = loaded.run.dataset
    for query, rows, cosines in zip(queries, *found, strict=True):
        print(query)
        captioned = caption_words.written(dataset, dataset.test["tokens"][rows[:PRINTED]])
        for row, cosine, caption in zip(rows, cosines, captioned, strict=False):
            print(f"  {cosine:.3f}  test image {row}: {caption}")
    with restore.place_for_results(opened.folder) as place:
        path = place / "figures" / "queries.png"
        draw(path, loaded, queries, found)
    print(f"picture {path}")


def nearest(loaded: LoadedRun, queries: Sequence[str]) -> Nearest:
    """Find the nearest images of the first gallery: of glyphs those of one style."""
    run, _, trained = loaded
    rows = galleries.galleries(run.dataset)[0].rows
    image_ND = images.extract(run, trained, run.dataset.test["image"][rows])["embedding"]
    text_QD = captions.embed_texts(run, trained, queries)
    cosine_QK, index_QK = neighbors.knn_neighbors(image_ND, text_QD, k=min(FOUND, len(rows)))
    return Nearest(rows[index_QK], cosine_QK)


def draw(path: Path, loaded: LoadedRun, queries: Sequence[str], found: Nearest) -> None:
    """Draw captions beside the images nearest to them."""
    image = loaded.run.dataset.test["image"]
    cells = [[image[row] for row in rows] for rows in found.row_QK]
    unjudged = [[None] * len(rows) for rows in cells]
    title = "Captions and the test images nearest to them"
    try:
        figures.image_grid(path, cells, queries, [], unjudged, title)
    except Exception as error:  # fonts, codecs: what was found has been printed
        print(f"warning: {path.name} was not drawn ({error})", file=sys.stderr)
