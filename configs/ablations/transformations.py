"""What h and z = g(h) know of the transformation: SimCLR (arXiv 2002.05709), Table 3.

    python -m experiments.ablations --config configs/ablations/transformations.py:cpu --workdir DIR

Table 3   ImageNet, ResNet-50, accuracy % of telling the transformation from h / from z, and chance:
          colour or gray 99.3 / 97.4 (80); rotation 67.6 / 25.6 (25); original or corrupted by noise
          99.5 / 59.6 (50); original or Sobel 96.6 / 56.3 (50).
Here      each cell pretrains with the transformation that it asks for, beside crop and colour, as
          in the paper, and asks of unseen images, each in all its forms: chance is 50, 25, 50, 50.
          The probe is linear, the paper's a small MLP; z is as wide as h.
cpu       10,000 images of CIFAR-10, two seeds.
"""

from configs.ablations import base
from contrastive_jax.evaluation import claims

H, Z = "h", "z"
PREDICTED = {
    "colour or gray": {"eval.predict": "colour"},
    "rotation": {
        "eval.predict": "rotation",
        "augment.rotate_probability": 1.0,
        "augment.rotate_quarters": True,
    },
    "original or noise": {"eval.predict": "noise", "augment.noise_probability": 0.5},
    "original or Sobel": {"eval.predict": "sobel", "augment.sobel_probability": 0.5},
}


def get_config(preset: str = "full"):
    config = base.with_cifar(preset)
    config.augment.grayscale_probability = 0.2
    config.head.output_dim = base.pick(preset, full=512, cpu=64, smoke=16)
    return config


def grid(preset: str):
    told = {"name": "transformation"}
    return {
        "cells": PREDICTED,
        "seeds": base.pick(preset, full=3, cpu=2, smoke=1),
        "columns": {
            H: {"layer": "features", **told},
            Z: {"layer": "embedding", **told},
            "linear": base.LINEAR,
        },
        "figure": {"axis": "what is told", "columns": (H, Z)},
        "seconds": base.pick(preset, full=700.0, cpu=75.0, smoke=20.0),
    }


def claim(results):
    """h tells each transformation better than z."""
    return claims.all_of(
        *(claims.above(own[H], own[Z], names=(f"{name}: h", "z")) for name, own in results.items())
    )
