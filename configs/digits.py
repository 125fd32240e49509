"""SimCLR on scikit-learn's handwritten digits: see it work, without a network.

    python -m experiments.simclr --config configs/digits.py

Data      1,797 real 8x8 digits (1,297 train, 500 test, other writers) that ship with scikit-learn.
Hardware  two CPU cores, less than a minute and a half; `:smoke` takes seconds and learns little.
Expect    see "Results" in the README: its table is made from benchmarks/results/digits.json.
"""

from ml_collections import ConfigDict, config_dict


def get_config(preset: str = "") -> ConfigDict:
    """`preset` is "" or "smoke"."""
    config = ConfigDict()
    config.data = ConfigDict({"source": "digits", "batch_size": 256})
    # Mirrored digits are no digits, and gray images have no color: only brightness and contrast.
    config.augment = ConfigDict(
        {
            "size": 16,  # the 8x8 images are enlarged, so that a crop keeps some detail
            "crop_scale": (0.6, 1.0),
            "crop_ratio": (3 / 4, 4 / 3),
            "flip_probability": 0.0,
            "rotate_probability": 0.5,
            "rotate_degrees": 10.0,
            "translate_probability": 0.8,
            "translate_fraction": 0.06,
            "jitter_probability": 0.8,
            "brightness": 0.4,
            "contrast": 0.4,
            "saturation": 0.0,
            "hue": 0.0,
            "grayscale_probability": 0.0,
        }
    )
    config.encoder = ConfigDict({"depth": 10, "stem": "stride2", "width": 0.25, "stages": 3})
    config.head = ConfigDict({"kind": "mlp", "hidden_dim": 128, "output_dim": 64})
    config.loss = ConfigDict({"kind": "nt_xent", "temperature": 0.2})
    config.optimizer = ConfigDict(
        {"name": "adamw", "learning_rate": 6e-3, "weight_decay": 1e-4, "warmup_epochs": 2.0}
    )
    config.train = ConfigDict(
        {"epochs": 30.0, "steps": config_dict.placeholder(int), "seed": 0, "log_every": 10}
    )
    config.checkpoint = ConfigDict({"every_steps": 100, "keep": 2, "best_metric": "knn_validation"})
    config.eval = ConfigDict(
        {"every_steps": 50, "batch_size": 500, "labels_per_class": 10, "figures": True}
    )
    if preset == "smoke":
        config.train.epochs = 2.0
        config.optimizer.warmup_epochs = 0.0
        config.encoder.width = 0.125
        config.eval.probe_steps = 20
        config.eval.draws = 2
    elif preset:
        raise ValueError(f"preset {preset!r} is unknown; configs/digits.py has '' and 'smoke'")
    return config
