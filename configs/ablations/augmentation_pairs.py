"""Augmentations alone and in pairs: SimCLR (arXiv 2002.05709), Figure 5.

    python -m experiments.ablations --config configs/ablations/augmentation_pairs.py:cpu

Figure 5  ImageNet, ResNet-50, linear top-1 %, one branch augmented, as recalled (the bars of the
          figure could not be read): crop 33.1; crop + color 56.3; crop + Sobel 46.0; crop + noise
          39.9; crop + blur 35.0; crop + cutout 33.9; crop + rotate 30.2; color 18.8; Sobel 4.0.
Here      the base crop, the same for both branches, is kept as in the paper, though all images of
          CIFAR-10 have one size. Operators apply in one fixed order, so a pair in either order is
          one cell, shown twice: 28 cells for 7 x 7.
full      ResNet-18 on CIFAR-10, 100 epochs. 84 runs, expected: 14 hours on one GPU. Not yet
          measured.
cpu       10,000 images of CIFAR-10, three operators, two seeds. 12 runs, expected: 12 minutes on
          two CPU cores. Not yet measured.
"""

from configs.ablations import base
from contrastive_jax.evaluation import claims

OPERATORS = {
    "crop": {"augment.crop_probability": 1.0},
    "color": {
        "augment.jitter_probability": 0.8,
        "augment.brightness": 0.8,
        "augment.contrast": 0.8,
        "augment.saturation": 0.8,
        "augment.hue": 0.2,
        "augment.grayscale_probability": 0.2,
    },
    "cutout": {"augment.cutout_probability": 1.0},
    "Sobel": {"augment.sobel_probability": 1.0},
    "noise": {"augment.noise_probability": 1.0},
    "blur": {"augment.blur_probability": 1.0},
    "rotate": {"augment.rotate_probability": 1.0, "augment.rotate_quarters": True},
}


def get_config(preset: str = "full"):
    config = base.with_cifar(preset)
    with config.unlocked():
        config.augment.update({"base_crop_probability": 1.0, "one_branch": True})
        config.augment.update({"crop_probability": 0.0, "flip_probability": 0.0})
        config.augment.update({"jitter_probability": 0.0, "grayscale_probability": 0.0})
    return config


def operators(preset: str):
    few = ("crop", "color", "cutout")
    return base.pick(preset, full=tuple(OPERATORS), cpu=few, smoke=few[:2])


def grid(preset: str):
    names = operators(preset)
    cells = {
        (first, second): {**OPERATORS[first], **OPERATORS[second]}
        for i, first in enumerate(names)
        for second in names[i:]
    }
    return {
        "cells": cells,
        "seeds": base.pick(preset, full=3, cpu=2, smoke=1),
        "columns": base.COLUMNS,
        "figure": {"form": "matrix"},
        "seconds": base.pick(preset, full=600.0, cpu=60.0, smoke=15.0),
    }


def claim(results):
    """Crop with color distortion is better than any other pair and than any single operator."""
    best = "crop + color"
    return claims.all_of(
        *(
            claims.above(results[best]["linear"], columns["linear"], names=(best, name))
            for name, columns in results.items()
            if name != best
        )
    )
