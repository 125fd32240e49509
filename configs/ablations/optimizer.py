"""Optimizers, each at its best rate: SimCLR (arXiv 2002.05709), section 2.2.

    python -m experiments.ablations --config configs/ablations/optimizer.py:cpu --workdir DIR

Source    the paper uses LARS, for large batches; on CIFAR-10 with ResNet-18 and 1,000 epochs,
          repositories report 91.9 linear with SGD (dkobak), about 91 with LARS (README of SimCLR),
          91.8 with Adam (W-MSE, as quoted by dkobak): close once tuned. The claim is that.
Here      the best rate is chosen by kNN on held-out training images.
full      ResNet-18 on CIFAR-10, 100 epochs. 27 runs, expected: 4 hours on one GPU. Not yet
          measured.
cpu       digits, two rates each, three seeds. 18 runs, expected: 8 minutes on two CPU cores. Not
          yet measured.
"""

from configs.ablations import base
from contrastive_jax.evaluation import claims

RATES = {
    "sgd": {"full": (0.06, 0.2, 0.6), "cpu": (0.1, 0.5), "smoke": (0.1,)},
    "lars": {"full": (0.5, 1.0, 2.0), "cpu": (1.0, 4.0), "smoke": (1.0,)},
    "adamw": {"full": (5e-4, 1e-3, 3e-3), "cpu": (2e-3, 6e-3), "smoke": (6e-3,)},
}


def get_config(preset: str = "full"):
    config = base.with_digits(preset)
    with config.unlocked():
        config.optimizer.update({"scaling": "none", "decay_norm_and_bias": False})
        config.optimizer.weight_decay = 1e-4
    return config


def grid(preset: str):
    cells, tuned = {}, {}
    for name, rates in RATES.items():
        tuned[name] = tuple(f"{name}, rate {rate:g}" for rate in rates[preset])
        for cell, rate in zip(tuned[name], rates[preset], strict=True):
            cells[cell] = {"optimizer.name": name, "optimizer.learning_rate": rate}
    return {
        "cells": cells,
        "seeds": base.pick(preset, full=3, cpu=3, smoke=1),
        "columns": base.COLUMNS,
        "tuned": tuned,
        "figure": {"tuned": True},
        "seconds": base.pick(preset, full=600.0, cpu=25.0, smoke=8.0),
    }


def claim(results):
    """SGD, LARS and AdamW come within 2 points of each other once the rate is tuned."""
    of = {name: results[name]["linear"] for name in RATES}
    pairs = (("lars", "sgd"), ("lars", "adamw"), ("sgd", "adamw"))
    return claims.all_of(*(claims.close(of[a], of[b], 0.02, names=(a, b)) for a, b in pairs))
