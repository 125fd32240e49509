"""Temperature and normalization of NT-Xent: SimCLR (arXiv 2002.05709), Table 5.

    python -m experiments.ablations --config configs/ablations/temperature.py:cpu --workdir DIR

Table 5   ImageNet, ResNet-50, linear top-1 %, beside it contrastive accuracy % and entropy:
          normalized, tau 0.05: 59.7 (90.5, 1.0); 0.1: 64.4 (87.8, 4.5); 0.5: 60.7 (68.2, 8.2);
          1: 58.0 (59.1, 8.3); not normalized, tau 10: 57.2 (91.7, 0.5); 100: 57.0 (92.1, 0.5).
Here      contrastive accuracy and entropy are those of the last training batch, from cosines in
          every row: without normalization they are not the paper's, and no part of the claim.
full      ResNet-18 on CIFAR-10, 100 epochs. 18 runs, expected: 3 hours on one GPU. Not yet
          measured.
cpu       digits, three seeds. 18 runs, 7 minutes on two CPU cores:
          benchmarks/results/ablations/temperature_cpu.
"""

from configs.ablations import base
from contrastive_jax.evaluation import claims

MIDDLE = ("normalized, 0.1", "normalized, 0.5")
OTHERS = ("normalized, 0.05", "normalized, 1", "raw, 10", "raw, 100")


def get_config(preset: str = "full"):
    return base.with_digits(preset)


def grid(preset: str):
    cells = {
        f"normalized, {temperature:g}": {"loss.temperature": temperature}
        for temperature in (0.05, 0.1, 0.5, 1.0)
    }
    for temperature in (10.0, 100.0):
        raw = {"loss.temperature": temperature, "loss.normalize": False}
        cells[f"raw, {temperature:g}"] = raw
    return {
        "cells": cells,
        "seeds": base.pick(preset, full=3, cpu=3, smoke=2),
        "columns": base.COLUMNS,
        "tuned": {"the better of 0.1 and 0.5": MIDDLE},
        "figure": {"axis": "embeddings, temperature"},
        "seconds": base.pick(preset, full=600.0, cpu=25.0, smoke=8.0),
    }


def claim(results):
    """With normalized embeddings a temperature of 0.1 or 0.5 is better than 0.05 and 1, and better
    than any temperature without normalization."""
    middle = results["the better of 0.1 and 0.5"]["linear"]
    return claims.all_of(
        *(
            claims.above(
                middle, results[other]["linear"], names=("the better of 0.1 and 0.5", other)
            )
            for other in OTHERS
        )
    )
