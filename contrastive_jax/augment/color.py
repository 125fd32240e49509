"""Color operators: jitter with its four adjustments, grayscale, hue, solarization.

Images are [H, W, C] float32 in [0, 1] and so are the results.
"""

import jax
import jax.numpy as jnp

_LUMA = (0.2989, 0.587, 0.114)  # ITU-R 601-2, as torchvision rounds it
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = range(4)


def grayscale(image: jax.Array) -> jax.Array:
    """Replace each channel of an RGB image by its luma, 0.2989 R + 0.587 G + 0.114 B.

    >>> grayscale(jnp.array([[[1.0, 0.0, 0.0]]])).shape
    (1, 1, 3)
    """
    return jnp.broadcast_to(jnp.moveaxis(_gray(jnp.moveaxis(image, -1, 0)), 0, -1), image.shape)


def solarize(image: jax.Array, threshold: float) -> jax.Array:
    """Invert bright pixels: x -> 1 - x where x >= threshold.

    >>> solarize(jnp.array([[[0.25, 0.75]]]), 0.5)
    Array([[[0.25, 0.25]]], dtype=float32)
    """
    return jnp.where(image >= threshold, 1.0 - image, image)


def adjust_hue(image: jax.Array, shift: jax.Array | float) -> jax.Array:
    """Rotate the hue of an RGB image by `shift` turns, at the same saturation and value (HSV).

    Args:
      image: [H, W, 3] float32 in [0, 1].
      shift: in turns of the color circle, of any size; 0.5 is the opposite color.

    >>> adjust_hue(jnp.array([[[1.0, 0.0, 0.0]]]), 1 / 3).round(3)
    Array([[[0., 1., 0.]]], dtype=float32)
    """
    return jnp.moveaxis(_shift_hue(jnp.moveaxis(image, -1, 0), shift), 0, -1)


def color_jitter(
    key: jax.Array,
    image: jax.Array,
    *,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
    brightness_form: str = "multiplicative",
) -> jax.Array:
    """Adjust brightness, contrast, saturation and hue by random amounts in a random order.

    With f ~ U(max(0, 1 - strength), 1 + strength), each clipped to [0, 1]:
    brightness f x (or x + U(-strength, strength) in the additive form), contrast
    f x + (1 - f) mean(gray(x)), saturation f x + (1 - f) gray(x); hue turns by U(-hue, hue).

    Args:
      key: a typed key.
      image: [H, W, 3] float32 in [0, 1]; [H, W, 1] where saturation and hue are 0.
      brightness, contrast, saturation: strengths; 0 leaves the image as it is.
      hue: largest turn, in turns of the color circle (0 to 0.5).
      brightness_form: "multiplicative" (SimCLR v2, torchvision) or "additive" (SimCLR v1).

    >>> image = jnp.full((2, 2, 3), 0.5)
    >>> strengths = dict(brightness=0.4, contrast=0.0, saturation=0.0, hue=0.0)
    >>> jitter = color_jitter(jax.random.key(0), image, **strengths)
    >>> bool((jitter >= 0.3).all()) and bool((jitter <= 0.7).all())
    True

    Chen et al. 2020 (SimCLR), appendix A; the multiplicative form is that of SimCLR v2.
    """
    uniform = jax.random.uniform(
        key, (16,), jnp.float32
    )  # more than needed: XLA unrolls shorter ones, slowly
    order, fraction = jnp.argsort(uniform[:4]), uniform[4:8]
    spread = (brightness, contrast, saturation)
    low = jnp.array([*(max(0.0, 1.0 - s) for s in spread), -hue], jnp.float32)
    high = jnp.array([*(1.0 + s for s in spread), hue], jnp.float32)
    if brightness_form == "additive":
        low, high = low.at[_BRIGHTNESS].set(-brightness), high.at[_BRIGHTNESS].set(brightness)
    amounts = low + (high - low) * fraction
    return _adjust_in_order(image, order, amounts, brightness_form, with_hue=hue > 0)


def _adjust_in_order(
    image: jax.Array, order: jax.Array, amounts: jax.Array, brightness_form: str, with_hue: bool
) -> jax.Array:
    """The four adjustments, `amounts` [4] of each, in the order [4] (a permutation of 0..3).

    Three of them are blends with a reference, so one blend serves any of them by choosing its
    reference; hue is the expensive one and computed once, with the blends before and after it.
    """
    planes = jnp.moveaxis(image, -1, 0)  # [C, H, W] is 3 times faster on a CPU
    hue_at = jnp.argmax(order == _HUE)

    def blend_at(planes, position, active):
        which = order[position]
        return _blend(planes, which, amounts[which], active & (which != _HUE), brightness_form)

    if not with_hue:
        for position in range(4):
            planes = blend_at(planes, position, jnp.array(True))
        return jnp.moveaxis(planes, 0, -1)
    for position in range(3):
        planes = blend_at(planes, position, position < hue_at)
    planes = _shift_hue(planes, amounts[_HUE])
    for position in range(1, 4):
        planes = blend_at(planes, position, position > hue_at)
    return jnp.moveaxis(planes, 0, -1)


def _blend(
    planes: jax.Array, which: jax.Array, amount: jax.Array, active: jax.Array, brightness_form: str
) -> jax.Array:
    """Brightness, contrast or saturation of planes [C, H, W]; exactly the input if not active."""
    gray = _gray(planes)
    reference = jnp.where(which == _SATURATION, gray, gray.mean())
    reference = jnp.where(which == _BRIGHTNESS, 0.0, reference)
    shifts = (which == _BRIGHTNESS) & (brightness_form == "additive")
    factor = jnp.where(active & ~shifts, amount, 1.0)
    shift = jnp.where(active & shifts, amount, 0.0)
    return jnp.clip(factor * planes + (1.0 - factor) * reference + shift, 0.0, 1.0)


def _gray(planes: jax.Array) -> jax.Array:
    """Luma [1, H, W] of planes [3, H, W]; a single plane is returned as it is."""
    if planes.shape[0] == 1:
        return planes
    red, green, blue = planes
    return (_LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue)[None]


def _shift_hue(planes: jax.Array, shift: jax.Array | float) -> jax.Array:
    """RGB -> HSV -> hue + shift -> RGB on planes [3, H, W], in closed form."""
    red, green, blue = planes
    value = planes.max(axis=0)
    chroma = value - planes.min(axis=0)
    # Not `value == red`: a compiled program may round the two sides differently.
    largest = [(red >= green) & (red >= blue), green >= blue]
    sixth = jnp.select(largest, [green - blue, blue - red], red - green)
    sixth = sixth / jnp.where(chroma > 0, chroma, 1.0) + jnp.select(largest, [0.0, 2.0], 4.0)
    sixth = sixth + 6.0 * shift

    def channel(offset: float) -> jax.Array:
        turn = (sixth + offset) / 6.0
        k = 6.0 * (turn - jnp.floor(turn))
        return value - chroma * jnp.clip(jnp.minimum(k, 4.0 - k), 0.0, 1.0)

    return jnp.stack([channel(5.0), channel(3.0), channel(1.0)])
