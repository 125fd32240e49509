"""The optimizer of each method, Muon or its own: SimCLR (arXiv 2002.05709) to LeJEPA (2511.08544).

    python -m experiments.ablations --config configs/ablations/methods_muon.py:cpu --workdir DIR

Claim     that Muon, the best row for SimCLR in configs/ablations/recipe.py, is better for every
          method: a search before configs/ablations/methods.py, at cpu in a third of its steps.
          Where Muon wins it goes into the method's own config, which methods.py reads.
Chosen    by `validation`, kNN within the training set, of one seed; the test scores beside it are
          for reading. The rate of Muon is that of recipe.py:cpu, at full also a quarter of it; the
          warm-up is that of the method's own config.
full      ResNet-18 on CIFAR-10, 200 epochs. 33 runs, expected: 22 hours on one GPU. Not yet
          measured.
cpu       CIFAR-10, the small encoder of configs/cifar.py:cpu, a third of an epoch. 22 runs,
          expected: half an hour on two CPU cores. Not yet measured.
"""

from configs.ablations import base, methods
from contrastive_jax.evaluation import claims

OWN, MUON = "own", "Muon {:g}"
RATE = 0.02


def get_config(preset: str = "full"):
    config = methods.get_config(preset)
    config.optimizer.decay_norm_and_bias = False  # Muon has no such decay
    if preset == "cpu":
        config.train.epochs = 0.34
        config.eval.update({"probe_train": 1000, "l2_grid": (1e-3,)})  # no column reads the probe
    return config


def grid(preset: str):
    rates = base.pick(preset, full=(RATE / 4, RATE), cpu=(RATE,), smoke=(RATE,))
    tried = {OWN: {}, **{MUON.format(rate): _muon(rate) for rate in rates}}
    of = {name: cell for name, cell in methods.grid(preset)["cells"].items() if name != "untrained"}
    cells = {
        (method, name): {**cell, **optimizer}
        for method, cell in of.items()
        for name, optimizer in tried.items()
    }
    return {
        "cells": cells,
        "seeds": 1,
        "columns": {"validation": base.COLUMNS["validation"], "kNN": base.COLUMNS["kNN"]},
        "tuned": {method: tuple(f"{method} + {name}" for name in tried) for method in of},
        "seconds": base.pick(preset, full=2400.0, cpu=70.0, smoke=15.0),
    }


def _muon(rate: float):
    muon = {"name": "muon", "learning_rate": rate, "scaling": "none", "decay_norm_and_bias": False}
    return {f"optimizer.{key}": value for key, value in muon.items()}


def claim(results):
    """Muon trains better features of every method than the optimizer of the method's own config."""
    own = {name: name.removesuffix(f" + {OWN}") for name in results if name.endswith(f" + {OWN}")}
    return claims.all_of(
        *(
            claims.above(
                results[f"{method} + {MUON.format(RATE)}"]["validation"],
                results[name]["validation"],
                names=(f"{method} by Muon", "by its own"),
            )
            for name, method in own.items()
        )
    )
