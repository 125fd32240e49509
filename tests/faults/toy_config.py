"""Twelve steps of `tests/faults/toy.py`: a row a step, a checkpoint every third."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """A run of a second."""
    return ConfigDict(
        {
            "data": {
                "source": "digits",
                "name": placeholder(str),
                "data_dir": placeholder(str),
                "train_split": "train",
                "image_size": placeholder(int),
                "on_corrupt": "error",
                "batch_size": 32,
                "limit_train": 256,
                "limit_test": 32,
            },
            "views": {"noise": 0.25},
            "encoder": {"features": 64},
            "loss": {"temperature": 0.5},
            "optimizer": {"name": "adamw", "learning_rate": 1e-3, "skip_nonfinite": 0},
            "train": {"steps": 12, "seed": 0, "log_every": 1},
            "checkpoint": {"every_steps": 3, "keep": 2},
            "eval": {"labels_per_class": 0, "probe_steps": 2, "l2_grid": (1.0,), "figures": False},
        }
    )
