"""Labels as positives: SupCon (arXiv 2004.11362), outside and inside the log, and cross-entropy.

    python -m experiments.ablations --config configs/ablations/sup_con.py:cpu --workdir DIR

Source    ImageNet, ResNet-50, top-1 %: sum outside the log 78.7, inside 67.4. CIFAR-10, ResNet-50,
          from the README of SupContrast: cross-entropy 95.0, SupCon 96.0, SimCLR 93.6.
Here      all four are scored by the linear probe of h, and train with the same recipe.
full      ResNet-18 on CIFAR-10, 100 epochs. 12 runs, expected: 2 hours on one GPU. Not yet
          measured.
cpu       digits, three seeds. 12 runs, 7 minutes on two CPU cores:
          benchmarks/results/ablations/sup_con_cpu.
"""

from configs.ablations import base
from contrastive_jax.evaluation import claims


def get_config(preset: str = "full"):
    return base.with_digits(preset)


def grid(preset: str):
    shared = {"loss.kind": "sup_con", "loss.temperature": 0.1}
    return {
        "cells": {
            "SupCon, outside": {**shared, "loss.positives": "outside"},
            "SupCon, inside": {**shared, "loss.positives": "inside"},
            "cross-entropy": base.SUPERVISED,
            "NT-Xent": {"loss.kind": "nt_xent"},
        },
        "seeds": base.pick(preset, full=3, cpu=3, smoke=1),
        "columns": base.COLUMNS,
        "figure": {},
        "seconds": base.pick(preset, full=600.0, cpu=25.0, smoke=8.0),
    }


def claim(results):
    """SupCon with the sum over positives outside the logarithm trains better features than with the
    sum inside, and than cross-entropy."""
    of = {name: columns["linear"] for name, columns in results.items()}
    outside = of["SupCon, outside"]
    return claims.all_of(
        *(
            claims.above(outside, of[other], names=("SupCon, outside", other))
            for other in ("SupCon, inside", "cross-entropy")
        )
    )
