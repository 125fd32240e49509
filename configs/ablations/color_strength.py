"""Strength of the color distortion: SimCLR (arXiv 2002.05709), Table 1.

    python -m experiments.ablations --config configs/ablations/color_strength.py:cpu --workdir DIR

Table 1   ImageNet, ResNet-50, top-1 %, strengths 1/8, 1/4, 1/2, 1, 1 + blur, AutoAugment:
          SimCLR 59.6, 61.0, 62.6, 63.2, 64.5, 61.1; supervised 77.0, 76.7, 76.5, 75.7, 75.4, 77.1.
CIFAR-10  contrastive2021 (ResNet-18, 800 epochs, kNN, jitter always on, neither flip nor
          grayscale): strength 1, 1/2, 1/4, 1/8: 82.75, 78.76, 76.37, 74.23.
Here      strength s is jitter of (0.8, 0.8, 0.8, 0.2) s at p 0.8 and grayscale at p 0.2 (appendix
          A). Both rows are scored by the linear probe of h. No AutoAugment.
full      ResNet-18 on CIFAR-10, 100 epochs. 30 runs, expected: 5 hours on one GPU. Not yet
          measured.
cpu       10,000 images of CIFAR-10, two strengths, three seeds. 12 runs, expected: 12 minutes on
          two CPU cores. Not yet measured.
"""

from configs.ablations import base
from contrastive_jax.evaluation import claims


def get_config(preset: str = "full"):
    config = base.with_cifar(preset)
    config.augment.grayscale_probability = 0.2
    return config


def grid(preset: str):
    strengths = {"1/8": 1 / 8, "1/4": 1 / 4, "1/2": 1 / 2, "1": 1.0}
    if preset != "full":
        del strengths["1/4"], strengths["1/2"]
    jitter = {name: _jitter(strength) for name, strength in strengths.items()}
    if preset == "full":
        jitter["1 + blur"] = {**_jitter(1.0), "augment.blur_probability": 0.5}
    return {
        "axes": {"strength": jitter, "method": {"SimCLR": {}, "supervised": base.SUPERVISED}},
        "seeds": base.pick(preset, full=3, cpu=3, smoke=1),
        "columns": base.COLUMNS,
        "figure": {"form": "lines", "axis": "strength of the color distortion"},
        "seconds": base.pick(preset, full=600.0, cpu=60.0, smoke=15.0),
    }


def _jitter(strength: float):
    full = {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2}
    return {f"augment.{name}": value * strength for name, value in full.items()}


def claim(results):
    """A strong color distortion helps SimCLR and does not help supervised training."""
    of = {name: columns["linear"] for name, columns in results.items()}
    weak, strong = (f"strength={s}, method={{}}" for s in ("1/8", "1"))
    return claims.all_of(
        claims.above(
            of[strong.format("SimCLR")],
            of[weak.format("SimCLR")],
            names=("SimCLR at 1", "at 1/8"),
        ),
        claims.above(
            of[weak.format("supervised")],
            of[strong.format("supervised")],
            names=("supervised at 1/8", "at 1"),
        ),
    )
