"""What encoders share: checks of their keys, and how images in [0, 1] are normalized."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Normalization(NamedTuple):
    """Images become (x - mean) / std; empty for images as they are."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def normalization(mean: tuple[float, ...], std: tuple[float, ...]) -> Normalization:
    """Check the keys `mean` and `std`.

    Raises:
      ValueError: one is given without the other, or they differ in length, or a std is not above 0.

    >>> normalization((0.5,), (0.5,))
    Normalization(mean=(0.5,), std=(0.5,))
    """
    require(len(mean) == len(std), "std", std, f"as many numbers as mean has, {len(mean)}")
    require(all(s > 0 for s in std), "std", std, "numbers above 0")
    return Normalization(tuple(mean), tuple(std))


def normalized(x_BHWC: jax.Array, by: Normalization) -> jax.Array:
    """Normalize each channel.

    >>> float(normalized(jnp.ones((1, 1, 1, 3)), Normalization((0.5,), (0.25,)))[0, 0, 0, 0])
    2.0
    """
    if not by.mean:
        return x_BHWC
    channels = x_BHWC.shape[-1]
    fits = len(by.mean) in (1, channels)
    require(fits, "mean", by.mean, f"one number, or one for each of {channels} channels")
    mean, std = (jnp.asarray(values, x_BHWC.dtype)[None, None, None] for values in by)
    return (x_BHWC - mean) / std


def computed_dtype(dtype: str) -> jnp.dtype:
    """Check the key `dtype`."""
    require(dtype in ("float32", "bfloat16"), "dtype", dtype, "'float32' or 'bfloat16'")
    return jnp.dtype(dtype)


def require(holds: bool, key: str, value: object, expected: str) -> None:
    """Refuse a value of a key of the config's `encoder`.

    Raises:
      ValueError: it does not hold.
    """
    if not holds:
        raise ValueError(f"encoder {key} is {value!r}; give {expected}")
