"""Geometric operators: random resized crop, flip, rotation, translation."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from contrastive_jax._numerics import EXACT

_TRIES = 10
_SPLITS = (_TRIES, 2 * _TRIES)


class Box(NamedTuple):
    """A box of whole pixels: scalars, Python numbers or traced float32."""

    top: jax.Array | float
    left: jax.Array | float
    height: jax.Array | float
    width: jax.Array | float


def sample_crop_box(
    key: jax.Array, height: int, width: int, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3)
) -> Box:
    """Sample a random box of an image, distributed as torchvision's `RandomResizedCrop.get_params`.

    Up to 10 boxes are sampled with area ~ U(scale) of the image and log(width / height) ~
    U(log ratio); the first that fits is placed uniformly. If none fits, it is the largest central
    box whose ratio is allowed.

    Args:
      key: a typed key.
      height, width: of the image, in pixels.
      scale: smallest and largest area, as fractions of the image's area.
      ratio: smallest and largest width / height.

    >>> box = jax.jit(sample_crop_box, static_argnums=(1, 2))(jax.random.key(0), 32, 32)
    >>> bool(box.top + box.height <= 32) and bool(box.left + box.width <= 32)
    True

    Szegedy et al., "Going deeper with convolutions", section 6.
    """
    uniform = jax.random.uniform(key, (2 * _TRIES + 2,), jnp.float32)
    area_T, log_ratio_T, place = jnp.split(uniform, _SPLITS)
    area_T = height * width * (scale[0] + (scale[1] - scale[0]) * area_T)
    log_low, log_high = math.log(ratio[0]), math.log(ratio[1])
    root_ratio_T = jnp.exp(0.5 * (log_low + (log_high - log_low) * log_ratio_T))
    width_T = jnp.round(jnp.sqrt(area_T) * root_ratio_T)
    height_T = jnp.round(jnp.sqrt(area_T) / root_ratio_T)
    fits_T = (width_T >= 1) & (width_T <= width) & (height_T >= 1) & (height_T <= height)
    first_T = fits_T & (jnp.cumsum(fits_T) == 1)
    fallback = _central_box(height, width, ratio)
    found = fits_T.any()
    box_height = jnp.where(found, jnp.sum(height_T * first_T), fallback.height)
    box_width = jnp.where(found, jnp.sum(width_T * first_T), fallback.width)
    top = jnp.where(found, jnp.floor(place[0] * (height - box_height + 1)), fallback.top)
    left = jnp.where(found, jnp.floor(place[1] * (width - box_width + 1)), fallback.left)
    return Box(top, left, box_height, box_width)


def resample(image: jax.Array, box: Box, size: int) -> jax.Array:
    """Crop a box of an image and resize it to a square, bilinear and antialiased.

    Each output pixel is the mean of the box's pixels under a triangle of half-width
    max(1, box side / size) input pixels, as PIL's `image.crop(box).resize(size, BILINEAR)` and
    torchvision's `resized_crop` compute it: one small matmul along the rows, one along the columns.

    Args:
      image: [H, W, C] float32.
      box: the part to keep; whole pixels, inside the image.
      size: side of the result, in pixels.

    >>> image = jnp.arange(16.0).reshape(4, 4, 1)
    >>> resample(image, Box(top=0, left=0, height=2, width=2), 1)[..., 0]
    Array([[2.5]], dtype=float32)
    """
    height, width, channels = image.shape
    row_weights = _triangle_weights(box.top, box.height, height, size)
    column_weights = _triangle_weights(box.left, box.width, width, size)
    # Channels are kept beside the rows, so that both products are plain matrix products.
    rows = jnp.matmul(row_weights, image.reshape(height, -1), precision=EXACT)
    rows = rows.reshape(size, width, channels).swapaxes(1, 2)
    return jnp.matmul(rows, column_weights.T, precision=EXACT).swapaxes(1, 2)


def flip(image: jax.Array) -> jax.Array:
    """Mirror an image [H, W, C] left to right.

    >>> flip(jnp.array([[[1.0], [2.0]]]))[..., 0]
    Array([[2., 1.]], dtype=float32)
    """
    return image[:, ::-1]


def rotate(image: jax.Array, degrees: jax.Array | float, fill: str = "zero") -> jax.Array:
    """Rotate an image counterclockwise about its center, bilinear, in a frame of the same size.

    Args:
      image: [H, W, C] float32.
      degrees: the angle; may be traced.
      fill: pixels from outside of the image: "zero" (black) or "edge" (the nearest pixel).

    Raises:
      ValueError: `fill` is neither.

    >>> image = jnp.array([[[1.0], [2.0]], [[3.0], [4.0]]])
    >>> bool(jnp.allclose(rotate(image, 90.0), jnp.rot90(image)))
    True
    """
    if fill not in ("zero", "edge"):
        raise ValueError(f"fill={fill!r} is unknown; use 'zero' or 'edge'")
    height, width, _ = image.shape
    angle = jnp.deg2rad(jnp.asarray(degrees, jnp.float32))
    y = jnp.arange(height, dtype=jnp.float32)[:, None] - (height - 1) / 2
    x = jnp.arange(width, dtype=jnp.float32)[None, :] - (width - 1) / 2
    source_y = x * jnp.sin(angle) + y * jnp.cos(angle) + (height - 1) / 2
    source_x = x * jnp.cos(angle) - y * jnp.sin(angle) + (width - 1) / 2
    mode = {"zero": "constant", "edge": "nearest"}[fill]

    def rotate_plane(plane: jax.Array) -> jax.Array:
        return map_coordinates(plane, [source_y, source_x], order=1, mode=mode)

    return jax.vmap(rotate_plane, in_axes=-1, out_axes=-1)(image)


def translate(image: jax.Array, down: jax.Array | int, right: jax.Array | int) -> jax.Array:
    """Translate an image [H, W, C] by whole pixels (int, may be traced), filled with black.

    >>> translate(jnp.array([[[1.0], [2.0], [3.0]]]), 0, 1)[..., 0]
    Array([[0., 1., 2.]], dtype=float32)
    """
    height, width, _ = image.shape
    # A one-hot row that points outside the image is all zero, which is the fill.
    rows = jax.nn.one_hot(jnp.arange(height) - down, height, dtype=jnp.float32)
    columns = jax.nn.one_hot(jnp.arange(width) - right, width, dtype=jnp.float32)
    return jnp.einsum("yh,xw,hwc->yxc", rows, columns, image, precision=EXACT)


def sample_translation(key: jax.Array, side: int, fraction: float) -> tuple[jax.Array, jax.Array]:
    """Sample a shift in whole pixels (down, right), each round(U(-fraction, fraction) * side).

    >>> down, right = sample_translation(jax.random.key(0), side=28, fraction=0.1)
    >>> abs(int(down)) <= 3 and abs(int(right)) <= 3
    True
    """
    reach = fraction * side
    down, right = jnp.round(jax.random.uniform(key, (2,), jnp.float32, -reach, reach))
    return down.astype(jnp.int32), right.astype(jnp.int32)


def _central_box(height: int, width: int, ratio) -> Box:
    """The largest central box whose ratio is allowed."""
    box_height, box_width = height, width
    if width / height < ratio[0]:
        box_height = round(width / ratio[0])
    elif width / height > ratio[1]:
        box_width = round(height * ratio[1])
    return Box((height - box_height) // 2, (width - box_width) // 2, box_height, box_width)


def _triangle_weights(start, length, n_in: int, n_out: int) -> jax.Array:
    """[n_out, n_in], rows of sum 1: resamples pixels start .. start + length to n_out pixels."""
    step = length / n_out
    half_width = jnp.maximum(step, 1.0)
    pixel = jnp.arange(n_in, dtype=jnp.float32)[None, :] + 0.5
    center = start + (jnp.arange(n_out, dtype=jnp.float32)[:, None] + 0.5) * step
    weights = jnp.maximum(1.0 - jnp.abs(pixel - center) / half_width, 0.0)
    weights = jnp.where((pixel > start) & (pixel < start + length), weights, 0.0)
    return weights / weights.sum(axis=1, keepdims=True)
