"""CLIP on emoji and their names, in two drawn styles.

    python -m experiments.prepare emoji --data_dir DIR
    python -m experiments.clip --config configs/emoji.py --config.data.data_dir=DIR/emoji.npz

Data      6,131 training pictures of 32x32 of 3,128 emoji, drawn by OpenMoji (CC BY-SA 4.0) and by
          Twitter (CC BY 4.0), with their names: "woman judge: light skin tone". One in five emoji
          is held out by a hash of its code points and tested on, where every word of its name is in
          three names of the training set. Most of these are people: it tests how parts are put
          together.
Recipe    that of configs/glyphs.py, with half the batch and half the steps; the two pictures of an
          emoji have one caption, and are no negatives of one another.
Hardware  two CPU cores, a few minutes.
smoke     seconds: it runs every step of the path and learns next to nothing.
"""

from ml_collections import ConfigDict, config_dict


def get_config(preset: str = "") -> ConfigDict:
    """`preset` is "" or "smoke"."""
    presets = {"": lambda config: None, "smoke": _smoke}
    if preset not in presets:
        raise ValueError(f"preset {preset!r} is unknown; configs/emoji.py has '' and smoke")
    config = ConfigDict()
    config.data = ConfigDict({"source": "arrays", "batch_size": 256})
    config.data.data_dir = config_dict.placeholder(str)
    for key in ("limit_train", "limit_test"):
        config.data[key] = config_dict.placeholder(int)
    config.augment = ConfigDict(
        {
            "size": 32,
            "crop_probability": 0.0,
            "flip_probability": 0.0,  # "left arrow"
            "rotate_probability": 1.0,
            "rotate_degrees": 6.0,
            "translate_probability": 1.0,
            "translate_fraction": 0.07,
            "jitter_probability": 0.0,  # "red heart"
            "grayscale_probability": 0.0,
        }
    )
    config.encoder = ConfigDict({"depth": 10, "stem": "stride2", "width": 0.25, "stages": 3})
    config.head = ConfigDict({"kind": "linear", "output_dim": 128})
    config.text = ConfigDict({"width": 128, "hidden_dim": 256})
    config.loss = ConfigDict({"kind": "symmetric_info_nce", "temperature_start": 0.07})
    config.optimizer = ConfigDict(
        {
            "name": "muon",
            "learning_rate": 0.02,
            "adam_learning_rate": 4e-3,
            "momentum": 0.95,
            "weight_decay": 0.0,
        }
    )
    config.train = ConfigDict(
        {
            "steps": 300,
            "epochs": config_dict.placeholder(float),
            "seed": 0,
            "log_every": 20,
        }
    )
    config.checkpoint = ConfigDict({"every_steps": 100, "keep": 2})
    config.eval = ConfigDict({"batch_size": 1000, "figures": True})
    presets[preset](config)
    return config


def _smoke(config: ConfigDict) -> None:
    config.data.update({"batch_size": 64, "limit_train": 512, "limit_test": 256})
    config.encoder.update({"width": 0.125, "stages": 1})
    config.train.update({"steps": 12, "log_every": 4})
    config.eval.probe_steps = 4
