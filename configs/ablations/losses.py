"""The loss table: SimCLR (arXiv 2002.05709), Table 4, each loss at its best of a grid.

    python -m experiments.ablations --config configs/ablations/losses.py:cpu --workdir DIR

Table 4   ImageNet, ResNet-50, linear top-1 %: margin 50.9, NT-Logistic 51.6, margin semi-hard 57.5,
          NT-Logistic semi-hard 57.9, NT-Xent 63.9.
Grid      the paper's (B.10): rate {0.01, 0.1, 0.3, 0.5, 1}, margin {0, 0.4, 0.8, 1.6}, temperature
          of NT-Logistic {0.1, 0.2, 0.5, 1}, negatives of one view only. Here fewer rates, all views
          as negatives, and no margin of 0, which the loss refuses. The best cell is chosen by kNN
          on held-out training images, not on the test set.
full      ResNet-18 on CIFAR-10, 100 epochs. 162 runs, expected: 27 hours on one GPU. Not yet
          measured.
cpu       digits with AdamW, 16 epochs, three seeds, one rate and two strengths a loss. 30 runs, 13
          minutes on two CPU cores: benchmarks/results/ablations/losses_cpu.
"""

from configs.ablations import base
from contrastive_jax.evaluation import claims

TEMPERED, MARGIN = "loss.temperature", "loss.margin"
LOSSES = {  # name -> kind, what is tuned, semi-hard
    "NT-Xent": ("nt_xent", TEMPERED, None),
    "NT-Logistic": ("nt_logistic", TEMPERED, False),
    "NT-Logistic, semi-hard": ("nt_logistic", TEMPERED, True),
    "margin": ("nt_margin", MARGIN, False),
    "margin, semi-hard": ("nt_margin", MARGIN, True),
}


def get_config(preset: str = "full"):
    config = base.with_digits(preset)
    if preset == "cpu":
        config.train.epochs = 16.0
    return config


def grid(preset: str):
    rates = base.pick(preset, full=(0.03, 0.1, 0.3), cpu=(6e-3,), smoke=(6e-3,))
    temperatures = base.pick(preset, full=(0.1, 0.2, 0.5, 1.0), cpu=(0.2, 0.5), smoke=(0.5,))
    margins = base.pick(preset, full=(0.4, 0.8, 1.6), cpu=(0.4, 0.8), smoke=(0.4,))
    cells, tuned = {}, {}
    for name, (kind, key, semi_hard) in LOSSES.items():
        members = []
        for rate in rates:
            for strength in temperatures if key == TEMPERED else margins:
                what = "tau" if key == TEMPERED else "margin"
                overrides = {"loss.kind": kind, key: strength, "optimizer.learning_rate": rate}
                overrides |= {} if semi_hard is None else {"loss.semi_hard": semi_hard}
                members.append(f"{name}, {what} {strength:g}, rate {rate:g}")
                cells[members[-1]] = overrides
        tuned[name] = tuple(members)
    return {
        "cells": cells,
        "seeds": base.pick(preset, full=3, cpu=3, smoke=1),
        "columns": base.COLUMNS,
        "tuned": tuned,
        "figure": {"tuned": True},
        "seconds": base.pick(preset, full=600.0, cpu=25.0, smoke=8.0),
    }


def claim(results):
    """NT-Xent trains better features than NT-Logistic and the margin loss, each tuned; semi-hard
    negatives help these two."""
    of = {name: results[name]["linear"] for name in LOSSES}
    others = [name for name in LOSSES if name != "NT-Xent"]
    return claims.all_of(
        *(claims.above(of["NT-Xent"], of[name], names=("NT-Xent", name)) for name in others),
        *(
            claims.above(of[f"{name}, semi-hard"], of[name], names=(f"{name}, semi-hard", name))
            for name in ("NT-Logistic", "margin")
        ),
    )
