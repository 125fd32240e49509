"""Hyperparameters of the recipe, one at a time: SimCLR (arXiv 2002.05709), dkobak/simclr-cifar10.

    python -m experiments.ablations --config configs/ablations/recipe.py:cpu --workdir DIR

Base      the recipe of configs/cifar.py. A row changes what its name says and nothing else; four
          views an image train for half the epochs, so that every row encodes equally many views.
Claim     encoding the views separately, as dkobak/simclr-cifar10 does, is a choice of speed and not
          of accuracy. The other rows say in which order to try them for the time to an accuracy.
full      ResNet-18 on CIFAR-10, 100 epochs. 66 runs, expected: 11 hours on one GPU. Not yet
          measured.
cpu       10,000 images of CIFAR-10, a small encoder, 234 steps, three seeds, 11 of the rows. What
          pays off late is underrated here. 33 runs, about 33 minutes on two CPU cores;
          recorded with more rows: benchmarks/results/ablations/recipe_cpu.
"""

from configs.ablations import base
from contrastive_jax.evaluation import claims

RATES = {
    "LARS": {"full": (1.0, 2.0), "cpu": (2.0,), "smoke": ()},
    "AdamW": {"full": (1e-3, 3e-3), "cpu": (3e-3,), "smoke": ()},
    "Muon": {"full": (0.01, 0.03), "cpu": (0.02,), "smoke": (0.02,)},
}
ONLY_FULL = (
    *("rate / 2", "warm-up", "Nesterov", "batch x 2", "temperature x 2", "smaller crops"),
    *("head of three layers", "head's other batch norm"),
)
CROPS = {"larger crops": (0.4, 1.0), "smaller crops": (0.08, 1.0)}


def get_config(preset: str = "full"):
    config = base.with_cifar(preset)
    config.optimizer.decay_norm_and_bias = False  # Muon has no such decay
    return config


def grid(preset: str):
    cells, tuned = _cells(get_config(preset)), {}
    left_out = base.pick(preset, full=(), cpu=ONLY_FULL, smoke=tuple(cells)[3:])
    cells = {name: cell for name, cell in cells.items() if name not in left_out}
    for name, rates in RATES.items():
        tried = {f"{name}, rate {rate:g}": _optimizer(name, rate) for rate in rates[preset]}
        cells |= tried
        if tried:
            tuned[name] = tuple(tried)
    return {
        "cells": cells,
        "seeds": base.pick(preset, full=3, cpu=3, smoke=1),
        "columns": base.COLUMNS,
        "tuned": tuned,
        "figure": {"axis": "hyperparameter"},
        "seconds": base.pick(preset, full=600.0, cpu=60.0, smoke=15.0),
    }


def _cells(config):
    rate, batch = config.optimizer.learning_rate, config.data.batch_size
    temperature = config.loss.temperature
    return {
        "base": {},
        "views separately": {"loss.views_separately": True},
        "four views": {"augment.n_views": 4, "train.epochs": config.train.epochs / 2},
        "rate x 2": {"optimizer.learning_rate": 2 * rate},
        "rate / 2": {"optimizer.learning_rate": rate / 2},
        "warm-up": {"optimizer.warmup_epochs": config.train.epochs / 10},
        "Nesterov": {"optimizer.nesterov": True},
        "batch x 2": {"data.batch_size": 2 * batch},
        "batch / 2": {"data.batch_size": batch // 2},
        "temperature x 2": {"loss.temperature": 2 * temperature},
        "temperature / 2": {"loss.temperature": temperature / 2},
        **{name: {"augment.crop_scale": scale} for name, scale in CROPS.items()},
        "linear annealing": {"optimizer.annealing": "linear"},
        "head of three layers": {"head.layers": 3},
        "head's other batch norm": {"head.batch_norm": not config.head.batch_norm},
    }


def _optimizer(name: str, rate: float):
    overrides = {"name": name.lower(), "learning_rate": rate, "scaling": "none"}
    return {f"optimizer.{key}": value for key, value in overrides.items()}


def claim(results):
    """Encoding both views in one batch or in two gives equally good features, within 2 points."""
    jointly, separately = (results[name]["linear"] for name in ("base", "views separately"))
    return claims.close(jointly, separately, 0.02, names=("one batch of both views", "two batches"))
