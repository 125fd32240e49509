"""Methods on one budget, from SimCLR (arXiv 2002.05709) to LeJEPA (arXiv 2511.08544).

    python -m experiments.ablations --config configs/ablations/methods.py:cpu --workdir DIR

Claim     that training is worth something for every method: 10 points of kNN more than the
          untrained encoder, whose row trains for one step at a rate of 0.
Fair      equal images seen, encoder, views and seeds, as in configs/cifar.py; heads, predictors and
          rates are those of each method's own config. Two views of one size everywhere: multi-crop
          sees more pixels an image.
Cost      ms a step is a mean over the run without compilation, evaluation and checkpoints (the
          only step of the untrained row is a first one, which is slow); MB a step is what the
          compiled step needs of a device: parameters, optimizer, targets and queues, the resident
          images (146 MB of CIFAR-10), activations.
full      ResNet-18 on CIFAR-10, 200 epochs. 36 runs, expected: 24 hours on one GPU. Not yet
          measured.
cpu       CIFAR-10, the small encoder of configs/cifar.py:cpu, one epoch. 36 runs of about three
          minutes on two CPU cores. Not yet measured.
"""

from configs import barlow, byol, dino, lejepa, moco, moco_v3, nnclr, simsiam, swav, vicreg
from configs.ablations import base
from contrastive_jax.evaluation import claims

METHODS = {
    **{"MoCo": moco, "MoCo v3": moco_v3, "BYOL": byol, "SimSiam": simsiam},
    **{"Barlow Twins": barlow, "VICReg": vicreg, "NNCLR": nnclr},
    **{"LeJEPA": lejepa, "SwAV": swav, "DINO": dino},
}
OF_A_METHOD = ("head", "predictor", "optimizer")
IN_A_TRY = ("untrained", "SimCLR", "MoCo v3", "BYOL", "LeJEPA")


def get_config(preset: str = "full"):
    config = base.with_cifar(preset)
    config.train.epochs = base.pick(preset, full=200.0, cpu=1.0, smoke=1.0)
    if preset == "cpu":
        config.data.update({"batch_size": 256, "limit_train": None, "limit_test": None})
        config.encoder.width = 0.375
    return config


def grid(preset: str):
    cells = {
        "untrained": {"optimizer.learning_rate": 0.0, "train.epochs": None, "train.steps": 1},
        "SimCLR": {},
        **{name: _cell(module, preset) for name, module in METHODS.items()},
    }
    if preset == "smoke":
        cells = {name: cells[name] for name in IN_A_TRY}
    return {
        "cells": cells,
        "seeds": base.pick(preset, full=3, cpu=3, smoke=1),
        "columns": {
            "kNN": {"layer": "features", "name": "knn", "k": 10},
            "linear": base.LINEAR,
            "ms a step": {"cost": "milliseconds"},
            "MB a step": {"cost": "megabytes"},
            "effective rank": {"logged": "effective_rank"},
            "std of the embedding": {"logged": "embedding_std"},
        },
        "figure": {"columns": ["kNN", "linear"]},
        "seconds": base.pick(preset, full=2400.0, cpu=180.0, smoke=15.0),
    }


def _cell(module, preset: str):
    """What a method's own config says of its sections and of the rate."""
    method = module.__name__.rpartition(".")[2]
    config = module.get_config("full" if preset == "full" else "cpu")
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
