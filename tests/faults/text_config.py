"""Twelve steps on a few made-up pairs, whose negatives are mined again after steps 4 and 8."""

from pathlib import Path

from ml_collections import ConfigDict

PAIRS = Path(__file__).with_name("pairs.jsonl")


def get_config() -> ConfigDict:
    """Make the config of a run of a second."""
    return ConfigDict(
        {
            "data": {"source": "pairs", "path": str(PAIRS), "batch_size": 8, "test_fraction": 0.2}
            | {"n_negatives": 2},
            "tokens": {"vocabulary_size": 200, "query_length": 8, "document_length": 8},
            "encoder": {"name": "bag", "dim": 64, "word_dropout": 0.2},
            "loss": {"kind": "info_nce", "temperature": "learned"},
            "mine": {"every_steps": 4, "ranks": (0, 9), "sample": True},
            "optimizer": {"name": "adamw", "learning_rate": 1e-3},
            "train": {"steps": 12, "log_every": 1},
            "checkpoint": {"every_steps": 3, "keep": 2},
            "eval": {"at": 5, "figures": False, "baselines": False},
        }
    )
