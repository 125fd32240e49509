"""SimCLR on a folder of your own images, with or without labels; see docs/your-images.md.

    python -m experiments.simclr --config configs/photos.py --config.data.data_dir=DIR
    python -m experiments.simclr --config configs/photos.py:gpu --config.data.data_dir=DIR

cpu    images of 64 px in memory, a ResNet of three stages, 500 steps of 64 images. Made to be tried
       on two CPU cores: no accuracy is claimed of it.
gpu    ResNet-18 on crops of 160 px that are streamed from disk, 100 epochs of 256 images; the
       augmentation of configs/imagenette.py. It has not run on a GPU yet.
smoke  seconds: it runs every step of the path and learns next to nothing.
"""

from ml_collections import ConfigDict, config_dict

from configs import imagenette


def get_config(preset: str = "cpu") -> ConfigDict:
    """`preset` is "cpu", "gpu" or "smoke"."""
    presets = {"cpu": _cpu, "gpu": _gpu, "smoke": _smoke}
    if preset not in presets:
        raise ValueError(
            f"preset {preset!r} is unknown; configs/photos.py has {', '.join(presets)}"
        )
    config = imagenette.get_config("full")
    config.data = ConfigDict(
        {
            "source": "folder",
            "data_dir": config_dict.placeholder(str),
            "image_size": 64,
            "batch_size": 64,
            "on_corrupt": "skip",
            "exif_orientation": True,  # photos of phones lie on their side without
        }
    )
    presets[preset](config)
    return config


def _gpu(config: ConfigDict) -> None:
    config.data.update({"image_size": 160, "batch_size": 256, "streaming": True, "workers": 8})
    config.data.bank = 20000
    config.augment.size = 160
    config.optimizer.warmup_epochs = 5.0
    config.train.epochs = 100.0


def _cpu(config: ConfigDict) -> None:
    config.augment.update({"size": 48, "crop_scale": (0.2, 1.0), "blur_probability": 0.0})
    config.encoder = ConfigDict(
        {"depth": 10, "stem": "stride2", "width": 0.375, "stages": 3, "dtype": "float32"}
    )
    config.head.update({"hidden_dim": 256, "output_dim": 64})
    config.loss.temperature = 0.2
    config.optimizer = ConfigDict(
        {"name": "adamw", "learning_rate": 2e-3, "weight_decay": 1e-4, "warmup_epochs": 1.0}
    )
    config.train.update({"steps": 500, "log_every": 25})
    config.checkpoint.every_steps = 250
    config.eval.update({"every_steps": 250, "batch_size": 256})


def _smoke(config: ConfigDict) -> None:
    _cpu(config)
    config.data.update({"image_size": 16, "batch_size": 16})
    config.augment.size = 16
    config.encoder.update({"width": 0.125, "stages": 2})
    config.optimizer.warmup_epochs = 0.0
    config.train.update({"steps": 4, "log_every": 2})
    config.checkpoint.every_steps = 2
    config.eval.update({"every_steps": 2, "probe_steps": 20, "draws": 2})
