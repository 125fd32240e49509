"""Augmentations on the device, pure functions of (key, image), vmapped once over the batch.

`make_views(size, ...)` is the entry point. The operators it is made of take one image [H, W, C],
float32 in [0, 1], and can be used alone.
"""

from contrastive_jax.augment.color import adjust_hue, color_jitter, grayscale, solarize
from contrastive_jax.augment.filters import add_noise, cutout, gaussian_blur, sobel
from contrastive_jax.augment.geometry import (
    Box,
    flip,
    resample,
    rotate,
    sample_crop_box,
    sample_translation,
    translate,
)
from contrastive_jax.augment.views import Augmentation, Views, make_views

__all__ = [
    "Augmentation",
    "Box",
    "Views",
    "add_noise",
    "adjust_hue",
    "color_jitter",
    "cutout",
    "flip",
    "gaussian_blur",
    "grayscale",
    "make_views",
    "resample",
    "rotate",
    "sample_crop_box",
    "sample_translation",
    "sobel",
    "solarize",
    "translate",
]
