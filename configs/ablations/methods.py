"""Methods on one budget, from SimCLR (arXiv 2002.05709) to LeJEPA (arXiv 2511.08544).

    python -m experiments.ablations --config configs/ablations/methods.py:cpu --workdir DIR

Claim     that training is worth something for every method: 10 points of kNN more than the
          untrained encoder, whose row trains for one step at a rate of 0.
Fair      equal images seen, encoder, views and seeds, as in configs/cifar.py; heads, predictors and
          rates are those of each method's own config. Two views of one size everywhere: multi-crop
          sees more pixels an image. Seconds of each run are in results.jsonl.
full      ResNet-18 on CIFAR-10, 200 epochs. 33 runs, expected: 22 hours on one GPU. Not yet
          measured.
cpu       CIFAR-10, the small encoder of configs/cifar.py:cpu, one epoch. 33 runs of about three
          minutes on two CPU cores. Not yet measured.
"""

from configs import barlow, byol, dino, lejepa, nnclr, simsiam, swav, vicreg
from configs.ablations import base
from contrastive_jax.evaluation import claims

METHODS = {
    **{"byol": byol, "simsiam": simsiam, "barlow": barlow, "vicreg": vicreg},
    **{"nnclr": nnclr, "lejepa": lejepa, "swav": swav, "dino": dino},
}
OF_A_METHOD = ("head", "predictor", "optimizer")


def get_config(preset: str = "full"):
    config = base.with_cifar(preset)
    config.train.epochs = base.pick(preset, full=200.0, cpu=1.0, smoke=1.0)
    if preset == "cpu":
        config.data.update({"batch_size": 256, "limit_train": None, "limit_test": None})
        config.encoder.width = 0.375
    return config


def grid(preset: str):
    momentum = base.pick(preset, full=0.99, cpu=0.95, smoke=0.95)
    size = base.pick(preset, full=4096, cpu=4096, smoke=128)
    moco = {"moco.temperature": 0.1, "moco.momentum": momentum, "moco.queue_size": size}
    cells = {
        "untrained": {"optimizer.learning_rate": 0.0, "train.epochs": None, "train.steps": 1},
        "SimCLR": {},
        "MoCo": {"experiment": "moco", **moco},
        **{name: _cell(name, preset) for name in METHODS},
    }
    if preset == "smoke":
        cells = {name: cells[name] for name in ("untrained", "SimCLR", "byol", "lejepa")}
    return {
        "cells": cells,
        "seeds": base.pick(preset, full=3, cpu=3, smoke=1),
        "columns": {
            "kNN": {"layer": "features", "name": "knn", "k": 10},
            "linear": base.LINEAR,
            "effective rank": {"logged": "effective_rank"},
            "std of the embedding": {"logged": "embedding_std"},
        },
        "figure": {"columns": ["kNN", "linear"]},
        "seconds": base.pick(preset, full=2400.0, cpu=180.0, smoke=15.0),
    }


def _cell(method: str, preset: str):
    """What a method's own config says of its sections and of the rate."""
    config = METHODS[method].get_config("full" if preset == "full" else "cpu")
    values = {"experiment": method}
    for section in (*OF_A_METHOD, method):
        for key, value in config.get(section, {}).items():
            values[f"{section}.{key}"] = value
    if preset == "smoke":
        values |= {"head.hidden_dim": 32, "head.output_dim": 16}
    return values


def claim(results):
    """Every method is at least 10 points of kNN above the untrained encoder."""
    untrained = results["untrained"]["kNN"]
    return claims.all_of(
        *(
            claims.above(columns["kNN"], untrained, by=0.1, names=(name, "untrained"))
            for name, columns in results.items()
            if name != "untrained"
        )
    )
