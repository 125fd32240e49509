"""Glyphs of the DejaVu fonts with the Unicode names of their characters: captioned images.

The fonts ship with matplotlib, so nothing is downloaded. A name such as "greek small letter alpha
with tonos" is a compositional caption. One in five characters is held out, chosen by a hash of its
code point, and kept where every word of its name occurs in three names of the training set: how
a word is drawn has to be learned from other characters. Two styles are never trained on.
"""

import functools
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from contrastive_jax.data._errors import needs
from contrastive_jax.data.captions import tokens_of, vocabulary_of, words_of
from contrastive_jax.data.examples import Dataset, Examples
from contrastive_jax.data.held_out import fraction_of, hold_out

STYLES = {
    "Sans": "DejaVuSans",
    "Sans Bold": "DejaVuSans-Bold",
    "Sans Oblique": "DejaVuSans-Oblique",
    "Sans Bold Oblique": "DejaVuSans-BoldOblique",
    "Mono": "DejaVuSansMono",
    "Mono Bold": "DejaVuSansMono-Bold",
    "Mono Oblique": "DejaVuSansMono-Oblique",
    "Mono Bold Oblique": "DejaVuSansMono-BoldOblique",
    "Serif": "DejaVuSerif",
    "Serif Bold": "DejaVuSerif-Bold",
    "Serif Italic": "DejaVuSerif-Italic",
    "Serif Bold Italic": "DejaVuSerif-BoldItalic",
}
UNSEEN = ("Serif Italic", "Serif Bold Italic")  # styles that training never shows
SIDE, POINTS, BASELINE = 24, 17, 18  # pixels
OTHER = "other"


class Glyph(NamedTuple):
    """A drawn character."""

    code: int  # its code point
    style: int  # index into STYLES
    image: np.ndarray  # [SIDE, SIDE] uint8, white ink on black


def load_glyphs(name: str | None, data_dir: Any, validation_fraction: float = 0.0) -> Dataset:
    """Draw the glyphs and split them by character.

    Args:
      name, data_dir: None.
      validation_fraction: of the training characters, held out from training by another hash and
        tested on in place of the test characters, which then nothing sees; 0 for the real test.

    Returns:
      A set whose examples hold "image" [N,24,24,1], "tokens" [N,L] int32 (the words of the name
      by their places in `vocabulary`), "id" [N] int32 (the code point), "style" [N] int32 (an index
      into `STYLES`) and "label" [N] int32: the script, which is the first word of the name.

    Raises:
      ValueError: a name or a folder, of which this set has none, or a fraction out of range.
    """
    if not 0 <= validation_fraction <= 0.5:
        raise ValueError(
            f"validation_fraction is {validation_fraction}; give 0 (test), or up to 0.5"
        )
    if name not in (None, "glyphs") or data_dir is not None:
        raise ValueError(
            f"source 'glyphs' ships with matplotlib; name is {name!r}, data_dir {data_dir!r}\n"
            "Leave both unset"
        )
    glyphs = [glyph for style in STYLES for glyph in draw_style(style)]
    captions = {code: words_of(unicodedata.name(chr(code))) for code in {g.code for g in glyphs}}
    unseen = {list(STYLES).index(style) for style in UNSEEN}
    seen = [glyph for glyph in glyphs if glyph.style not in unseen]
    train, held_out = split(captions, {glyph.code for glyph in seen})
    if validation_fraction:
        chosen = {code for code in train if fraction_of(f"validation {code}") < validation_fraction}
        train, held_out = hold_out(captions, train, chosen)
        if not held_out:
            raise ValueError(
                f"validation_fraction {validation_fraction} holds out no character; give more"
            )
    vocabulary = vocabulary_of(captions[code] for code in sorted(train))
    classes = classes_of(captions[code] for code in sorted(train))
    shown = [glyph for glyph in seen if glyph.code in train]
    tested = [g for g in glyphs if g.code in held_out]
    parts = (_examples(part, captions, vocabulary, classes) for part in (shown, tested))
    dataset = Dataset("glyphs", *parts, class_names=classes, vocabulary=vocabulary)
    return dataset._replace(styles=tuple(STYLES))


@functools.cache
def draw_style(style: str) -> tuple[Glyph, ...]:
    """Draw every named character of a style, centered, on one baseline and at one size; once.

    Case shows in the size over the baseline; what does not fit is shrunk. The basic layout draws
    the glyph of a code point, whatever a machine's text shaping can do.

    >>> draw_style("Mono Bold")[0].image.shape
    (24, 24)
    """
    with needs("matplotlib"):
        import matplotlib
        from matplotlib.ft2font import FT2Font
    from PIL import ImageFont

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{STYLES[style]}.ttf"
    codes = [code for code in sorted(FT2Font(str(path)).get_charmap()) if _is_named(chr(code))]
    sizes = {
        points: ImageFont.truetype(str(path), points, layout_engine=ImageFont.Layout.BASIC)
        for points in range(POINTS, 3, -1)
    }
    drawn = ((code, _draw(chr(code), sizes)) for code in codes)
    number = list(STYLES).index(style)
    return tuple(Glyph(code, number, image) for code, image in drawn if image.any())


def _is_named(character: str) -> bool:
    """Whether it is a visible character with a name: no spaces, controls or private use."""
    return unicodedata.category(character)[0] not in "ZC" and bool(unicodedata.name(character, ""))


def _draw(character: str, sizes: dict[int, Any]) -> np.ndarray:
    from PIL import Image, ImageDraw

    boxes = {points: font.getbbox(character, anchor="ls") for points, font in sizes.items()}
    fits = [points for points, box in boxes.items() if _fits(*box)]
    points = fits[0] if fits else min(sizes)
    left, _, right, _ = boxes[points]
    canvas = Image.new("L", (SIDE, SIDE))
    start, font = (SIDE - (right - left)) // 2 - left, sizes[points]
    ImageDraw.Draw(canvas).text((start, BASELINE), character, fill=255, font=font, anchor="ls")
    return np.asarray(canvas)


def _fits(left: float, top: float, right: float, bottom: float) -> bool:
    return right - left <= SIDE and top >= -BASELINE and bottom <= SIDE - BASELINE


def split(captions: dict[int, tuple[str, ...]], seen: Collection[int]) -> tuple[set[int], set[int]]:
    """Split characters into those to train on and those to test on; a few are left out.

    Args:
      captions: the words of the name of each character.
      seen: characters that the styles of training have.

    >>> train, test = split({code: ("letter",) for code in range(100)}, range(100))
    >>> len(train), len(test)
    (89, 11)
    """
    chosen = {code for code in captions if fraction_of(f"glyphs {code}") < 0.2}
    return hold_out(captions, seen, chosen)


def classes_of(captions: Iterable[Sequence[str]], least: int = 40) -> tuple[str, ...]:
    """List the first words of at least so many names, and "other".

    >>> classes_of([("greek", "letter")] * 40 + [("cedilla",)])
    ('greek', 'other')
    """
    counts = Counter(caption[0] for caption in captions)
    return (*sorted(word for word, count in counts.items() if count >= least), OTHER)


def _examples(
    glyphs: Sequence[Glyph],
    captions: dict[int, tuple[str, ...]],
    vocabulary: Sequence[str],
    classes: Sequence[str],
) -> Examples:
    of_glyphs = [captions[glyph.code] for glyph in glyphs]
    first = [words[0] if words[0] in classes else OTHER for words in of_glyphs]
    return {
        "image": np.stack([glyph.image for glyph in glyphs])[..., None],
        "tokens": tokens_of(of_glyphs, vocabulary),
        "id": np.array([glyph.code for glyph in glyphs], np.int32),
        "style": np.array([glyph.style for glyph in glyphs], np.int32),
        "label": np.array([classes.index(word) for word in first], np.int32),
    }
