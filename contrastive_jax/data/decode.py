"""Decode images on the host, to 8 bits, and cut random or central squares of them, with Pillow."""

import contextlib
import io
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from contrastive_jax.types import Crops

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # Pillow's names of pixels, by channels
_EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")  # no others: fewer parsers see foreign bytes
_ORIENTATION = 0x0112  # tag of EXIF


class _Turn(NamedTuple):
    """How a stored image has to be turned to stand upright, and where its axes then are."""

    name: str  # of Pillow's transposition
    swaps: bool  # x and y
    flips_x: bool  # of the stored image
    flips_y: bool


_TURNS = {  # by the orientation
    2: _Turn("FLIP_LEFT_RIGHT", False, True, False),
    3: _Turn("ROTATE_180", False, True, True),
    4: _Turn("FLIP_TOP_BOTTOM", False, False, True),
    5: _Turn("TRANSPOSE", True, False, False),
    6: _Turn("ROTATE_270", True, False, True),
    7: _Turn("TRANSVERSE", True, True, True),
    8: _Turn("ROTATE_90", True, True, False),
}
_TRIES = 10
UNIFORMS = 2 * _TRIES + 2  # numbers that a box takes

Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels


def crop_box(
    uniform: Sequence[float],
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> Box:
    """Compute the box of a random resized crop from uniform numbers, as on the device.

    Args:
      uniform: `UNIFORMS` numbers in [0, 1): the areas of ten tries, their ratios, the place.
      height, width: of the image, in pixels.
      scale: smallest and largest area, as fractions of the image's area.
      ratio: smallest and largest width / height.

    >>> crop_box([0.5] * UNIFORMS, 32, 64, scale=(0.5, 0.5), ratio=(2.0, 2.0))
    (10, 5, 55, 28)

    As `augment.geometry.sample_crop_box`, after Szegedy et al., "Going deeper with convolutions",
    section 6.
    """
    log_low, log_high = math.log(ratio[0]), math.log(ratio[1])
    for share, place in zip(uniform[:_TRIES], uniform[_TRIES:], strict=False):
        side = math.sqrt(height * width * (scale[0] + (scale[1] - scale[0]) * share))
        root_ratio = math.exp(0.5 * (log_low + (log_high - log_low) * place))
        box_width, box_height = round(side * root_ratio), round(side / root_ratio)
        if 1 <= box_width <= width and 1 <= box_height <= height:
            top = math.floor(uniform[-2] * (height - box_height + 1))
            left = math.floor(uniform[-1] * (width - box_width + 1))
            return left, top, left + box_width, top + box_height
    return _central_box(height, width, ratio)


def _central_box(height: int, width: int, ratio: tuple[float, float]) -> Box:
    """Return the largest central box whose ratio is allowed."""
    box_height, box_width = height, width
    if width / height < ratio[0]:
        box_height = round(width / ratio[0])
    elif width / height > ratio[1]:
        box_width = round(height * ratio[1])
    left, top = (width - box_width) // 2, (height - box_height) // 2
    return left, top, left + box_width, top + box_height


def cut_views(
    encoded: bytes,
    mode: str,
    crops: Crops,
    seed: int,
    epoch: int,
    index: int,
    upright: bool = False,
) -> np.ndarray:
    """Cut the random crops of one example: [V, size, size, C] uint8, bilinear and antialiased.

    A crop is a function of (seed, epoch, index, view) alone. Its box is sampled in the pixels of
    the stored image. Where all boxes leave at least twice the pixels that are wanted, a JPEG is
    decoded at 1/2, 1/4 or 1/8 of its size.

    Args:
      encoded: a JPEG, PNG, WebP, BMP or GIF.
      mode: of the pixels, a value of `MODES`.
      crops: how many, how large, from which boxes.
      seed, epoch, index: of the run, of the pass over the data, of the example.
      upright: turn the image by the orientation of its EXIF data, before it is cropped.

    Raises:
      Exception: what Pillow raises for bytes that are no image.
    """
    with _opened(encoded) as image:
        turn = _turn(image) if upright else None
        width, height = _turned_size(image, turn)
        boxes = [
            crop_box(_uniform(seed, epoch, index, view), height, width, crops.scale, crops.ratio)
            for view in range(crops.n_views)
        ]
        boxes = [_stored(box, turn, image.size) for box in boxes]
        shrink = _decode_smaller(image, boxes, crops.size)
        pixels = _as_mode(image, mode)
        views = [_turned(_crop(pixels, box, crops.size, shrink), turn) for box in boxes]
    return np.stack([_as_array(view) for view in views])


def cut_square(
    encoded: bytes, mode: str, size: int | None, share: float = 1.0, upright: bool = False
) -> np.ndarray:
    """Cut the central square of an image at a size, or none: [H, W, C] uint8, bicubic.

    A JPEG whose square has at least twice the pixels that are wanted is decoded at 1/2, 1/4 or 1/8
    of its size, as in `cut_views`.

    Args:
      encoded: a JPEG, PNG, WebP, BMP or GIF.
      mode: of the pixels, a value of `MODES`.
      size: side of the result, in pixels, or None for the whole image as it is stored.
      share: side of the square, as a fraction of the image's short side.
      upright: turn the image by the orientation of its EXIF data.
    """
    from PIL import Image

    with _opened(encoded) as image:
        turn = _turn(image) if upright else None
        width, height = _turned_size(image, turn)
        if size is None or (share == 1 and (width, height) == (size, size)):
            return _as_array(_turned(_as_mode(image, mode), turn))
        side = share * min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        square = _stored((left, top, left + side, top + side), turn, image.size)
        shrink = _decode_smaller(image, [square], size)
        shrunk = tuple(edge / shrink for edge in square)
        pixels = _as_mode(image, mode).resize((size, size), Image.Resampling.BICUBIC, box=shrunk)
        return _as_array(_turned(pixels, turn))


def read_size(encoded: bytes, upright: bool = False) -> tuple[int, int]:
    """Read height and width of an image from its header.

    Raises:
      Exception: what Pillow raises for bytes that are no image.
    """
    with _opened(encoded) as image:
        width, height = _turned_size(image, _turn(image) if upright else None)
    return height, width


def check_whole(encoded: bytes, mode: str) -> None:
    """Decode an image, a JPEG at an eighth of its size, to see whether it can be.

    Raises:
      Exception: what Pillow raises for bytes that are no image, or a part of one.
    """
    with _opened(encoded) as image:
        image.draft(None, (1, 1))
        _as_mode(image, mode).load()  # a mode that fits is not decoded before


def _turn(image: Any) -> _Turn | None:
    return _TURNS.get(image.getexif().get(_ORIENTATION))


def _turned_size(image: Any, turn: _Turn | None) -> tuple[int, int]:
    return (image.height, image.width) if turn and turn.swaps else image.size


def _turned(pixels: Any, turn: _Turn | None) -> Any:
    from PIL import Image

    return pixels if turn is None else pixels.transpose(Image.Transpose[turn.name])


def _stored(box: Box, turn: _Turn | None, size: tuple[int, int]) -> Box:
    """Find a box of the upright image in the image as it is stored.

    So what is cut is turned, and not the whole image, whose last pixels a smaller decoding pads.
    """
    if turn is None:
        return box
    left, top, right, bottom = box
    if turn.swaps:
        left, top, right, bottom = top, left, bottom, right
    if turn.flips_x:
        left, right = size[0] - right, size[0] - left
    if turn.flips_y:
        top, bottom = size[1] - bottom, size[1] - top
    return left, top, right, bottom


@contextlib.contextmanager
def _opened(encoded: bytes) -> Iterator[Any]:
    from PIL import Image

    with Image.open(io.BytesIO(encoded), formats=_FORMATS) as image:
        yield image


def _as_mode(image: Any, mode: str) -> Any:
    """Convert pixels to 8 bits a channel and to a mode: the one rule for all that is stored.

    Of 16 bits the high byte is kept (Pillow does so in color, but clips gray), one bit becomes 0 or
    255, a palette and CMYK their colors, color the gray of its luminance; alpha is left out, or 255
    where the set has it and the image does not.

    Raises:
      ValueError: for pixels without a scale to 0..255 (32-bit integers, floats).
    """
    from PIL import Image

    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode not in _EIGHT_BITS:
        raise ValueError(f"pixels of mode {image.mode} have no scale to 0..255")
    return image if image.mode == mode else image.convert(mode)


def _uniform(seed: int, epoch: int, index: int, view: int) -> list[float]:
    source = np.random.SeedSequence(seed, spawn_key=(epoch, index, view))
    return np.random.default_rng(source).random(UNIFORMS).tolist()


def _decode_smaller(image: Any, boxes: Sequence[Box], size: int) -> int:
    """Let the JPEG decoder shrink by a power of two; return by which."""
    side = min(min(right - left, bottom - top) for left, top, right, bottom in boxes)
    shrink = next((power for power in (8, 4, 2) if side >= 2 * size * power), 1)
    whole = image.size
    if shrink > 1 and image.format == "JPEG":
        image.draft(None, (whole[0] // shrink, whole[1] // shrink))
    return shrink if image.size != whole else 1


def _crop(pixels: Any, box: Box, size: int, shrink: int) -> Any:
    """Resize the box's pixels alone, as on the device; a shrunk box may begin within a pixel."""
    from PIL import Image

    left, top, right, bottom = (edge / shrink for edge in box)
    x, y = math.floor(left), math.floor(top)
    part = pixels.crop((x, y, math.ceil(right), math.ceil(bottom)))
    inside = (left - x, top - y, right - x, bottom - y)
    return part.resize((size, size), Image.Resampling.BILINEAR, box=inside)


def _as_array(pixels: Any) -> np.ndarray:
    array = np.asarray(pixels)
    return array[..., None] if array.ndim == 2 else array
