"""Filters and noise: Gaussian blur, Sobel, Gaussian noise, cutout.

Images are [H, W, C] float32 in [0, 1] and so are the results.
"""

import jax
import jax.numpy as jnp


def gaussian_blur(image: jax.Array, sigma: jax.Array | float) -> jax.Array:
    """Blur with a separable Gaussian whose kernel spans 10 % of the side, mirrored at the edges.

    The kernel has 2 r + 1 taps with r = (height // 10) // 2 as SimCLR sets it, but r is at least 1:
    below 20 pixels SimCLR's rule gives a kernel of one tap, which does nothing.

    Args:
      image: [H, W, C] float32.
      sigma: standard deviation in pixels, > 0; may be traced.

    >>> bool(jnp.allclose(gaussian_blur(jnp.full((8, 8, 1), 0.5), 1.0), 0.5))
    True

    Chen et al. 2020 (SimCLR), appendix A.
    """
    radius = max(1, image.shape[0] // 10 // 2)
    offset = jnp.arange(-radius, radius + 1, dtype=jnp.float32)
    taps = jax.nn.softmax(-0.5 * jnp.square(offset / sigma))
    return _convolve(_convolve(image, taps, 0), taps, 1)


def sobel(image: jax.Array) -> jax.Array:
    """Compute the gradient magnitude of each channel by Sobel filters, mirrored at the edges.

    min(1, |(gx, gy)| / 4), gx and gy being the responses of the 3 x 3 Sobel kernels (whose entries
    sum to 4 on a side): a full step from black to white is 1, a ramp of slope s a pixel is 2 s.

    >>> float(sobel(jnp.full((4, 4, 1), 0.5)).max())
    0.0

    Chen et al. 2020 (SimCLR), figure 4j.
    """
    smooth = jnp.array([0.25, 0.5, 0.25], jnp.float32)
    difference = jnp.array([-1.0, 0.0, 1.0], jnp.float32)
    gradient_x = _convolve(_convolve(image, smooth, 0), difference, 1)
    gradient_y = _convolve(_convolve(image, smooth, 1), difference, 0)
    return jnp.minimum(jnp.sqrt(jnp.square(gradient_x) + jnp.square(gradient_y)), 1.0)


def add_noise(key: jax.Array, image: jax.Array, std: float) -> jax.Array:
    """Add Gaussian noise of standard deviation `std` (in units of the white level), clipped.

    >>> add_noise(jax.random.key(0), jnp.zeros((2, 2, 1)), 0.1).shape
    (2, 2, 1)
    """
    return jnp.clip(image + std * jax.random.normal(key, image.shape, image.dtype), 0.0, 1.0)


def cutout(key: jax.Array, image: jax.Array, fraction: float) -> jax.Array:
    """Black out a square of side round(fraction * H), placed uniformly inside the image.

    >>> int((cutout(jax.random.key(0), jnp.ones((8, 8, 1)), 0.5) == 0).sum())
    16

    DeVries and Taylor 2017, section 3.1, with the square kept wholly inside.
    """
    height, width, _ = image.shape
    side = min(round(fraction * height), height, width)
    place = jax.random.uniform(key, (2,), jnp.float32)
    top, left = jnp.floor(place * jnp.array([height - side + 1, width - side + 1], jnp.float32))
    y, x = jnp.arange(height)[:, None, None] - top, jnp.arange(width)[None, :, None] - left
    inside = (y >= 0) & (y < side) & (x >= 0) & (x < side)
    return jnp.where(inside, 0.0, image)


def _convolve(image: jax.Array, taps: jax.Array, axis: int) -> jax.Array:
    """Correlate one axis of an image with an odd number of taps, mirrored at the edges."""
    radius, length = taps.shape[0] // 2, image.shape[axis]
    pad = [(radius, radius) if a == axis else (0, 0) for a in range(image.ndim)]
    padded = jnp.pad(image, pad, mode="reflect")
    shifted = [jax.lax.slice_in_dim(padded, i, i + length, axis=axis) for i in range(len(taps))]
    return sum((tap * part for tap, part in zip(taps, shifted, strict=True)), jnp.zeros_like(image))
