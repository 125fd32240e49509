"""Negatives and temperature of text encoders: ANCE (arXiv 2007.00808), on docstrings.

    python -m experiments.ablations --config configs/ablations/text_negatives.py:cpu --workdir DIR

Claim     of ANCE: negatives that the encoder itself finds in the whole corpus, anew while it
          trains, make it a better retriever than the other documents of its batch alone.
Beside it the temperature, which decides how much the nearest wrong documents of a batch count; an
          encoder from scratch wants a higher one than the 0.01 of E5 (arXiv 2212.03533) and the
          0.02 of BGE (FlagEmbedding's fine-tuning).
full      configs/docstrings.py. 18 runs, expected: an hour on two CPU cores. Not yet measured.
cpu       the same with half its steps. 18 runs, expected: half an hour. Not yet measured.
"""

from configs import docstrings
from configs.ablations import base
from contrastive_jax.evaluation import claims

IN_BATCH, MINED = "in batch", "mined while training"
TEMPERATURES = (0.01, 0.02, 0.05)
RANKING = {"layer": "embedding", "name": "ranking"}


def get_config(preset: str = "full"):
    config = docstrings.get_config("smoke" if base.check(preset) == "smoke" else "")
    config.loss.kind = "info_nce"  # which reads negatives
    if preset == "cpu":
        config.train.steps //= 2
    return base.quiet(config)


def grid(preset: str):
    every = base.pick(preset, full=120, cpu=60, smoke=4)
    mined = {"mine.every_steps": every, "mine.ranks": (5, 50), "data.n_negatives": 2}
    cells = {
        IN_BATCH: {},
        MINED: mined,
        **{f"in batch, temperature {t:g}": {"loss.temperature": t} for t in TEMPERATURES},
        "in batch, learned temperature": {"loss.temperature": "learned"},
    }
    return {
        "experiment": "text",
        "cells": cells,
        "seeds": base.pick(preset, full=3, cpu=3, smoke=1),
        "columns": {
            "nDCG@10": {**RANKING, "measure": "nDCG@10"},
            "recall@10": {**RANKING, "measure": "recall@10"},
        },
        "seconds": base.pick(preset, full=180.0, cpu=100.0, smoke=20.0),
    }


def claim(results):
    """Negatives that are mined while training make a better retriever than those of the batch."""
    first, second = (results[name]["nDCG@10"] for name in (MINED, IN_BATCH))
    return claims.above(first, second, names=("mined while training", "in the batch"))
