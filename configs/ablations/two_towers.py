"""Losses of image and text: CLIP (arXiv 2103.00020), SigLIP (arXiv 2303.15343), on the glyphs.

    python -m experiments.ablations --config configs/ablations/two_towers.py:cpu --workdir DIR

Claim     of SigLIP, section 4.2 and figure 2: in batches below some thousands the sigmoid loss is
          better than the softmax. Here 512 pairs.
Beside it fixed temperatures, where CLIP learns its own (section 2.3), and the loss in which all
          captions of a character are positives: the ten styles of a character share their caption.
full      three times the steps of configs/glyphs.py. 15 runs, expected: 2 hours on two CPU cores.
          Not yet measured.
cpu       the steps of configs/glyphs.py. 15 runs of three minutes on two CPU cores. Not yet
          measured.
"""

from configs import glyphs
from configs.ablations import base
from contrastive_jax.evaluation import claims

SOFTMAX, SIGMOID = "softmax", "sigmoid"
RETRIEVAL = {"layer": "embedding", "name": "cross-modal"}


def get_config(preset: str = "full"):
    config = glyphs.get_config("smoke" if base.check(preset) == "smoke" else "")
    if preset == "full":
        config.train.steps = 3 * config.train.steps
    return base.quiet(config)


def grid(preset: str):
    sigmoid = glyphs.get_config("siglip")
    cells = {
        SOFTMAX: {},
        "softmax, temperature 0.05": {"loss.temperature": 0.05},
        "softmax, temperature 0.2": {"loss.temperature": 0.2},
        "softmax, several positives": {"loss.kind": "multi_positive_info_nce"},
        SIGMOID: {
            **{f"loss.{key}": value for key, value in sigmoid.loss.items()},
            "optimizer.loss_rate": sigmoid.optimizer.loss_rate,
        },
    }
    return {
        "experiment": "clip",
        "cells": cells,
        "seeds": base.pick(preset, full=3, cpu=3, smoke=1),
        "columns": {
            "image to text": {**RETRIEVAL, "task": "image to text, Sans", "measure": "recall@1"},
            "text to image": {**RETRIEVAL, "task": "text to image, Sans", "measure": "recall@1"},
            "kNN": {"layer": "features", "name": "knn", "k": 10},
            "temperature": {"logged": "temperature"},
        },
        "figure": {"columns": ["image to text", "text to image"]},
        "seconds": base.pick(preset, full=480.0, cpu=200.0, smoke=20.0),
    }


def claim(results):
    """In batches of 512 pairs the sigmoid loss finds texts of images better than the softmax."""
    first, second = (results[name]["image to text"] for name in (SIGMOID, SOFTMAX))
    return claims.above(first, second, names=("the sigmoid loss", "the softmax"))
