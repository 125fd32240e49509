"""Twelve steps of `tests/faults/toy.py`: a row a step, a checkpoint every third."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Make the config of a run of a second."""
    gray = {"grayscale_probability": 0.0, "saturation": 0.0, "hue": 0.0}
    return ConfigDict(
        {
            "data": {"source": "digits", "batch_size": 32, "limit_train": 256, "limit_test": 32},
            "augment": {"size": 8, **gray},
            "encoder": {"features": 64},
            "optimizer": {"name": "adamw", "learning_rate": 1e-3},
            "train": {"steps": 12, "log_every": 1},
            "checkpoint": {"every_steps": 3, "keep": 2},
            "eval": {"labels_per_class": 0, "probe_steps": 2, "l2_grid": (1.0,), "figures": False},
        }
    )
