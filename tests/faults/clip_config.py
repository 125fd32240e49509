"""Twelve steps of two small towers on digits, captioned by two templates and their names."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Make the config of a run of seconds."""
    return ConfigDict(
        {
            "data": {"source": "digits", "batch_size": 32, "limit_train": 256, "limit_test": 32}
            | {"prompts": ("a photo of the digit {}", "{}")},
            "augment": {"size": 8, "jitter_probability": 0.0, "grayscale_probability": 0.0},
            "encoder": {"name": "vit", "patch_size": 4, "dim": 64, "layers": 1, "heads": 1},
            "head": {"kind": "linear", "output_dim": 8},
            "text": {"width": 8, "hidden_dim": 8},
            "optimizer": {"name": "adamw", "learning_rate": 1e-3},
            "train": {"steps": 12, "log_every": 1},
            "checkpoint": {"every_steps": 3, "keep": 2},
            "eval": {"labels_per_class": 0, "probe_steps": 2, "l2_grid": (1.0,), "figures": False},
        }
    )
