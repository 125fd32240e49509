"""A text encoder from scratch on docstrings of installed code: no network, no file.

python -m experiments.text --config configs/docstrings.py
"""

from ml_collections import ConfigDict, config_dict


def get_config(preset: str = "") -> ConfigDict:
    """`preset` is "", "package" or "smoke"."""
    presets = {"": lambda config: None, "package": _package, "smoke": _smoke}
    if preset not in presets:
        raise ValueError(
            f"preset {preset!r} is unknown; configs/docstrings.py has '', package and smoke"
        )
    config = ConfigDict()
    config.data = ConfigDict({"source": "docstrings", "group": "file", "batch_size": 256})
    for key in ("limit_train", "limit_test"):
        config.data[key] = config_dict.placeholder(int)
    config.tokens = ConfigDict(
        {"vocabulary_size": 16_000, "query_length": 32, "document_length": 128}
    )
    config.encoder = ConfigDict({"name": "bag", "dim": 512, "word_dropout": 0.3})
    config.loss = ConfigDict({"kind": "symmetric_info_nce", "temperature": 0.1})
    config.optimizer = ConfigDict({"name": "adamw", "learning_rate": 2e-3, "weight_decay": 0.0})
    config.train = ConfigDict(
        {"steps": 480, "epochs": config_dict.placeholder(float), "seed": 0, "log_every": 40}
    )
    config.checkpoint = ConfigDict({"every_steps": 240, "keep": 2})
    presets[preset](config)
    return config


def _package(config: ConfigDict) -> None:
    config.data.group = "package"


def _smoke(config: ConfigDict) -> None:
    config.data.update({"batch_size": 64, "limit_train": 1024, "limit_test": 200})
    config.tokens.update({"vocabulary_size": 4000, "document_length": 64})
    config.encoder.dim = 64
    config.train.update({"steps": 12, "log_every": 4})
