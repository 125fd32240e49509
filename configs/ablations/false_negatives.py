"""False negatives among captions: elimination, attraction (arXiv 2011.11765), UniCL (2204.03610).

    python -m experiments.ablations --config configs/ablations/false_negatives.py:cpu \
        --workdir DIR --config.data.data_dir=SETS

Images of CIFAR-10 are captioned by templates and the names of their classes, so that a batch of 256
has 25 images of each class. CLIP takes all their captions but the own one for negatives.

Claim     of UniCL (abstract): a loss in which images and texts of one label are positives gives
          better zero-shot recognition than that of CLIP, in which they are negatives. Between them
          is elimination, which 2011.11765 compares with such attraction: they do not count at all.
full      ResNet-18, all of CIFAR-10, 100 epochs. 9 runs, expected: 2 hours on one GPU. Not yet
          measured.
cpu       20,000 images, a small encoder, 4 epochs. 9 runs, 14 minutes on two CPU cores that other
          work shared: undecided, all three within a point
          (benchmarks/results/ablations/false_negatives_cpu/table.md).
"""

from ml_collections import ConfigDict

from configs.ablations import base
from contrastive_jax.evaluation import claims

DIAGONAL, ELIMINATED, ATTRACTED = "negatives", "left out", "positives"
PROMPTS = ("a photo of a {}", "a picture of a {}", "an image of one {}", "here is a {}", "{}")
ZERO_SHOT = {"layer": "embedding", "name": "zero-shot"}


def get_config(preset: str = "full"):
    config = base.with_cifar(preset)
    config.data.prompts = PROMPTS
    config.augment.update({"crop_scale": (0.5, 1.0), "jitter_probability": 0.0})
    config.augment.grayscale_probability = 0.0
    config.head = ConfigDict({"kind": "linear", "output_dim": 64})
    config.text = ConfigDict({"width": 64, "hidden_dim": 128})
    config.loss = ConfigDict({"kind": "symmetric_info_nce", "temperature_start": 0.07})
    config.optimizer = ConfigDict(  # that of configs/glyphs.py
        {
            "name": "muon",
            "learning_rate": 0.02,
            "adam_learning_rate": 4e-3,
            "momentum": 0.95,
            "weight_decay": 0.0,
        }
    )
    if preset == "cpu":
        config.data.update({"batch_size": 256, "limit_train": 20000})
        config.train.epochs = 4.0
        config.eval.update({"probe_train": 2000, "probe_steps": 20})
    return config


def grid(preset: str):
    return {
        "experiment": "clip",
        "cells": {
            DIAGONAL: {"loss.ids": False},
            ELIMINATED: {},
            ATTRACTED: {"loss.kind": "multi_positive_info_nce"},
        },
        "seeds": base.pick(preset, full=3, cpu=3, smoke=1),
        "columns": {
            "zero-shot": ZERO_SHOT,
            "kNN": base.COLUMNS["kNN"],
            "temperature": {"logged": "temperature"},
        },
        "figure": {"columns": ["zero-shot", "kNN"]},
        "seconds": base.pick(preset, full=800.0, cpu=80.0, smoke=20.0),
    }


def claim(results):
    """Where images share a class, their captions as positives of one another train a better
    zero-shot classifier than left out of the loss, and left out a better one than as negatives."""
    of = {name: results[name]["zero-shot"] for name in (DIAGONAL, ELIMINATED, ATTRACTED)}
    return claims.all_of(
        claims.above(of[ATTRACTED], of[ELIMINATED], names=("as positives", "left out")),
        claims.above(of[ELIMINATED], of[DIAGONAL], names=("left out", "as negatives")),
    )
