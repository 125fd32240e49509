"""SimCLR on CIFAR-10 with ResNet-18, and a small encoder that learns on two CPU cores.

    python -m experiments.prepare cifar10 --data_dir DIR
    python -m experiments.simclr --config configs/cifar.py --config.data.data_dir=DIR
    python -m experiments.simclr --config configs/cifar.py:cpu --config.data.data_dir=DIR

full   ResNet-18 with a CIFAR stem, batch 512, 100 epochs, bfloat16, one recent GPU. The recipe of
       dkobak/simclr-cifar10 at 100 epochs: SGD with momentum 0.9, LR 0.06 x batch / 256, cosine
       to zero without warm-up, decay 5e-4 on everything, temperature 0.5, crop scale 0.2 to 1,
       jitter 0.4/0.4/0.4/0.1 at p 0.8, grayscale p 0.1, no blur, head 512-1024-128 without batch
       norm. It reports 83.2 % kNN (k=10) and 85.6 % linear, mean of 3 seeds, in 20 minutes on an
       A100, in float32 and with the views encoded separately. Not yet measured here.
fast   the same for 500 epochs at LR 0.03 x batch / 256, as published there: 90.3 % kNN (k=10), mean
       of 3 seeds, in 99 minutes on an A100 in float32. What should be faster here is bfloat16 and
       data that lives on the device; the recipe is unchanged. It has not run on a GPU yet: no time
       or accuracy of ours is known, and no shorter recipe has been tried. What to try first is in
       docs/performance.md, of configs/ablations/recipe.py on two cores: Muon.
cpu    a ResNet of three stages on two CPU cores, about 12 minutes. Its accuracies are in the
       README, from benchmarks/results/cifar_cpu.json.
smoke  seconds: it runs every step of the path and learns next to nothing.
"""

from ml_collections import ConfigDict, config_dict


def get_config(preset: str = "full") -> ConfigDict:
    """`preset` is "full", "fast", "cpu" or "smoke"."""
    presets = {"full": lambda config: None, "fast": _fast, "cpu": _cpu, "smoke": shrink}
    if preset not in presets:
        raise ValueError(f"preset {preset!r} is unknown; configs/cifar.py has {', '.join(presets)}")
    config = ConfigDict()
    config.data = ConfigDict(
        {
            "source": "tfds",
            "name": "cifar10",
            "data_dir": config_dict.placeholder(str),  # or TFDS_DATA_DIR of the environment
            "batch_size": 512,
            "limit_train": config_dict.placeholder(int),
            "limit_test": config_dict.placeholder(int),
            "on_corrupt": "error",
        }
    )
    config.augment = ConfigDict(
        {
            "size": 32,
            "crop_scale": (0.2, 1.0),
            "crop_ratio": (3 / 4, 4 / 3),
            "flip_probability": 0.5,
            "jitter_probability": 0.8,
            "brightness": 0.4,
            "contrast": 0.4,
            "saturation": 0.4,
            "hue": 0.1,
            "brightness_form": "multiplicative",
            "grayscale_probability": 0.1,
            "blur_probability": 0.0,
            "solarize_probability": 0.0,
        }
    )
    config.encoder = ConfigDict(
        {"depth": 18, "stem": "cifar", "width": 1.0, "stages": 4, "dtype": "bfloat16"}
    )
    config.head = ConfigDict(
        {"kind": "mlp", "hidden_dim": 1024, "output_dim": 128, "layers": 2, "batch_norm": False}
    )
    config.loss = ConfigDict({"kind": "nt_xent", "temperature": 0.5})
    config.optimizer = ConfigDict(
        {
            "name": "sgd",
            "learning_rate": 0.06,
            "scaling": "linear",
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "decay_norm_and_bias": True,
            "warmup_epochs": 0.0,
            "skip_nonfinite": 0,
        }
    )
    config.train = ConfigDict(
        {"epochs": 100.0, "steps": config_dict.placeholder(int), "seed": 0, "log_every": 50}
    )
    config.checkpoint = ConfigDict(
        {"every_steps": 970, "keep": 2, "best_metric": "knn_validation"}  # 97 steps an epoch
    )
    config.eval = ConfigDict(
        {"every_steps": 970, "batch_size": 1000, "labels_per_class": 10, "figures": True}
    )
    presets[preset](config)
    return config


def _fast(config: ConfigDict) -> None:
    """The published recipe whose kNN passes 90 %."""
    config.optimizer.learning_rate = 0.03
    config.train.epochs = 500.0
    config.checkpoint.every_steps = 4850
    config.eval.every_steps = 4850


def _cpu(config: ConfigDict) -> None:
    """Two CPU cores, about 12 minutes."""
    config.data.batch_size = 256
    config.encoder = ConfigDict(
        {"depth": 10, "stem": "stride2", "width": 0.375, "stages": 3, "dtype": "float32"}
    )
    config.head.update({"hidden_dim": 256, "output_dim": 128, "batch_norm": True})
    config.loss.temperature = 0.2
    config.optimizer.update({"learning_rate": 0.1, "scaling": "none", "decay_norm_and_bias": False})
    config.train.update({"epochs": 4.2, "log_every": 25})
    config.checkpoint.every_steps = 250
    config.eval.update({"every_steps": 250, "probe_train": 10000})


def shrink(config: ConfigDict) -> None:
    """The same path on few and small images and a few steps."""
    config.augment.size = 32
    config.data.update({"batch_size": 64, "limit_train": 256, "limit_test": 128})
    config.encoder = ConfigDict(
        {"depth": 10, "stem": "stride2", "width": 0.125, "stages": 2, "dtype": "float32"}
    )
    config.head.update({"hidden_dim": 32, "output_dim": 16})
    config.train.update({"epochs": 2.0, "log_every": 2})
    config.checkpoint.every_steps = 4
    config.eval.update({"every_steps": 4, "batch_size": 128, "probe_steps": 20, "draws": 2})
