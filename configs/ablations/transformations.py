"""What h and z = g(h) know of the transformation: SimCLR (arXiv 2002.05709), Table 3.

    python -m experiments.ablations --config configs/ablations/transformations.py:cpu --workdir DIR

Table 3   ImageNet, ResNet-50, accuracy % of predicting the transformation from h / z, and chance:
          color or gray 99.3 / 97.4 (80); rotation 67.6 / 25.6 (25); original or corrupted by noise
          99.5 / 59.6 (50); original or Sobel 96.6 / 56.3 (50).
Here      each cell pretrains with the transformation that it predicts, beside crop and color, as
          in the paper, and predicts it for unseen images in all forms: chance is 50, 25, 50, 50.
          The probe is linear, the paper's a small MLP; z is as wide as h.
full      ResNet-18 on CIFAR-10, 100 epochs. 12 runs, expected: 2 hours on one GPU. Not yet
          measured.
cpu       10,000 images of CIFAR-10, two seeds. 8 runs, expected: 10 minutes on two CPU cores. Not
          yet measured.
"""

from configs.ablations import base
from contrastive_jax.evaluation import claims

H, Z = "h", "z"
PREDICTED = {
    "color or gray": {"eval.predict": "color"},
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
    probe = {"name": "transformation"}
    return {
        "cells": PREDICTED,
        "seeds": base.pick(preset, full=3, cpu=2, smoke=1),
        "columns": {
            H: {"layer": "features", **probe},
            Z: {"layer": "embedding", **probe},
            "linear": base.LINEAR,
        },
        "figure": {"axis": "transformation that is predicted", "columns": (H, Z)},
        "seconds": base.pick(preset, full=700.0, cpu=75.0, smoke=20.0),
    }


def claim(results):
    """Each transformation is predicted better from h than from z."""
    return claims.all_of(
        *(
            claims.above(of[H], of[Z], names=(f"{name}: the probe of h", "of z"))
            for name, of in results.items()
        )
    )
