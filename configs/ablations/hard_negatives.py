"""Hard negatives by weight: Robinson et al. (arXiv 2010.04592), the beta of their loss.

    python -m experiments.ablations --config configs/ablations/hard_negatives.py:cpu --workdir DIR

Source    the claim is the paper's; none of its values is quoted here.
Here      tau_plus 0.1 is the chance of a false negative with ten classes; beta 0 is the debiased
          loss (arXiv 2007.00224).
full      ResNet-18 on CIFAR-10, 100 epochs. 15 runs, expected: 2 hours on one GPU. Not yet
          measured.
cpu       digits, three seeds. 12 runs, expected: 5 minutes on two CPU cores. Not yet measured.
"""

from configs.ablations import base
from contrastive_jax.evaluation import claims


def get_config(preset: str = "full"):
    config = base.with_digits(preset)
    config.loss.temperature = 0.5
    return config


def grid(preset: str):
    cells = {"NT-Xent": {"loss.kind": "nt_xent"}}
    for beta in base.pick(preset, full=(0.0, 0.5, 1.0, 2.0), cpu=(0.0, 0.5, 1.0), smoke=(0.0, 1.0)):
        weighted = {"loss.kind": "hard_negatives", "loss.tau_plus": 0.1, "loss.beta": beta}
        cells[f"beta {beta:g}"] = weighted
    return {
        "cells": cells,
        "seeds": base.pick(preset, full=3, cpu=3, smoke=1),
        "columns": base.COLUMNS,
        "figure": {},
        "seconds": base.pick(preset, full=600.0, cpu=25.0, smoke=8.0),
    }


def claim(results):
    """Weighting hard negatives (beta 1) is better than not weighting them, and than NT-Xent."""
    of = {name: columns["linear"] for name, columns in results.items()}
    return claims.all_of(
        *(
            claims.above(of["beta 1"], of[other], names=("beta 1", other))
            for other in ("beta 0", "NT-Xent")
        )
    )
