"""The pictures of glyphs: one character in all styles, and letters against marks."""

import unicodedata
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from contrastive_jax import data, figures
from contrastive_jax.data import glyphs
from contrastive_jax.evaluation import neighbors
from experiments.run.build import Run
from experiments.scoring import caption_words, galleries
from experiments.scoring.galleries import Gallery
from experiments.scoring.summary import Drawing

Embed = Callable[[str, np.ndarray], np.ndarray]  # "image" or "text", and an array of them
CHARACTERS = 8  # shown in all styles
LETTERS = "abcdefghijklmnopqrstuvwxyz"
MARKS = (
    *("acute", "grave", "circumflex", "diaeresis", "tilde", "macron", "breve", "caron"),
    *("dot above", "dot below", "ring above", "hook above", "cedilla", "ogonek", "line below"),
)


def drawings(run: Run, embed: Embed) -> dict[str, Drawing]:
    """Name the pictures that only glyphs allow."""
    made: dict[str, Drawing] = {"marks": partial(_marks, run, embed)}
    gallery = galleries.galleries(run.dataset)[0]
    row_of, places = _in_all_styles(run.dataset.test, gallery)
    if places:
        chosen = np.random.default_rng(run.plan.seed).permutation(places)[:CHARACTERS]
        made["styles"] = partial(_styles, run, embed, gallery, row_of, chosen)
    return made


def _in_all_styles(
    test: data.Examples, gallery: Gallery
) -> tuple[dict[tuple[int, int], int], list[int]]:
    """Find the row of each code point and style, and the places in a gallery that have them all."""
    pairs = zip(test["id"].tolist(), test["style"].tolist(), strict=True)
    row_of, styles = {pair: row for row, pair in enumerate(pairs)}, range(len(glyphs.STYLES))
    codes = enumerate(test["id"][gallery.rows].tolist())
    return row_of, [place for place, c in codes if all((c, s) in row_of for s in styles)]


def _styles(
    run: Run,
    embed: Embed,
    gallery: Gallery,
    row_of: dict[tuple[int, int], int],
    chosen: np.ndarray,
    path: Path,
) -> None:
    """Draw held-out characters in all styles; right is an image whose own name is nearest."""
    test, styles = run.dataset.test, range(len(glyphs.STYLES))
    code_R = test["id"][gallery.rows[chosen]].tolist()
    rows_RS = np.array([[row_of[code, style] for style in styles] for code in code_R])
    y_MD = embed("text", gallery.tokens_ML)
    z_ND = embed("image", test["image"][rows_RS.ravel()])
    _, index_N1 = neighbors.knn_neighbors(y_MD, z_ND, k=1)
    correct_RSM = np.repeat(gallery.correct_NM[chosen], len(glyphs.STYLES), axis=0)
    right_RS = np.take_along_axis(correct_RSM, index_N1, axis=1).reshape(rows_RS.shape)
    names = [unicodedata.name(chr(code)).lower() for code in code_R]
    columns = [f"{name} (unseen)" if name in glyphs.UNSEEN else name for name in glyphs.STYLES]
    title = (
        "Held-out characters, sampled at random, in all styles\n"
        f"✓ its name is the nearest of {len(y_MD):,} held-out names"
    )
    cells = [[test["image"][row] for row in rows] for rows in rows_RS]
    figures.image_grid(path, cells, names, columns, right_RS.tolist(), title)


def _marks(run: Run, embed: Embed, path: Path) -> None:
    """Draw letters against marks; judged are those that training never showed together."""
    train, test = run.dataset.train, run.dataset.test
    drawn = {glyph.code: glyph.image[..., None] for glyph in glyphs.draw_style("Sans")}
    named = {unicodedata.name(chr(code)).lower(): code for code in drawn}
    wanted = "latin small letter {} with {}"
    codes = [[named.get(wanted.format(letter, mark)) for letter in LETTERS] for mark in MARKS]
    there = [code for row in codes for code in row if code is not None]
    names = [unicodedata.name(chr(code)) for code in there]
    y_MD = embed("text", caption_words.tokens(run.dataset, names, run.config.data.context))
    z_MD = embed("image", np.stack([drawn[code] for code in there]))
    _, index_M1 = neighbors.knn_neighbors(y_MD, z_MD, k=1)
    hit = dict(zip(there, index_M1[:, 0] == np.arange(len(there)), strict=True))
    held_out = set(test["id"].tolist()) - set(train["id"].tolist())
    right = [[bool(hit[c]) if c in held_out else None for c in row] for row in codes]
    n, found = (sum(each is value for row in right for each in row) for value in (False, True))
    title = (
        f"Letters and marks: {n + found} pairs that training never showed, framed\n"
        f"✓ its name is the nearest of {len(there)} names: {found} of {n + found}"
    )
    cells = [[None if code is None else drawn[code] for code in row] for row in codes]
    figures.image_grid(path, cells, MARKS, list(LETTERS), right, title)
