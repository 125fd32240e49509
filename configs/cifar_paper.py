"""SimCLR on CIFAR-10 as in the paper: ResNet-50, LARS, batch 1024, temperature 0.5.

    python -m experiments.simclr --config configs/cifar_paper.py --config.data.data_dir=DIR

Source    Chen et al. 2020 (arXiv 2002.05709), appendix B.9: ResNet-50 with a 3x3 stem of stride 1
          and no max-pool, crop + flip + color jitter of strength 0.5 and no blur, LARS, learning
          rate in {0.5, 1.0, 1.5}, temperature in {0.1, 0.5, 1.0}, batch in {256, ..., 4096}. The
          best is 94.0 % linear at batch 1024; which rate won is not said, 1.0 is used here. Weight
          decay 1e-6 and ten epochs of warm-up are those of its section 2.1.
Hardware  one or several GPUs or a TPU slice; 1,000 epochs are 48,000 steps. Not yet measured here.
"""

from ml_collections import ConfigDict

from configs import cifar


def get_config(preset: str = "full") -> ConfigDict:
    """`preset` is "full" or "smoke"."""
    if preset not in ("full", "smoke"):
        raise ValueError(f"preset {preset!r} is unknown; configs/cifar_paper.py has full and smoke")
    config = cifar.get_config("full")
    config.data.batch_size = 1024
    config.augment.update(
        {
            "crop_scale": (0.08, 1.0),
            # Strength 0.5 of (0.8, 0.8, 0.8, 0.2): appendix A, "color distortion".
            "brightness": 0.4,
            "contrast": 0.4,
            "saturation": 0.4,
            "hue": 0.1,
            "brightness_form": "additive",  # that of the paper's first code release
            "grayscale_probability": 0.2,
        }
    )
    config.encoder.depth = 50
    config.head.update({"hidden_dim": 2048, "output_dim": 128, "layers": 2, "batch_norm": True})
    config.loss.temperature = 0.5
    config.optimizer.update(
        {
            "name": "lars",
            "learning_rate": 1.0,
            "scaling": "none",
            "weight_decay": 1e-6,
            "decay_norm_and_bias": False,
            "warmup_epochs": 10.0,
        }
    )
    config.train.epochs = 1000.0
    config.checkpoint.every_steps = 480  # 10 epochs of 48 steps
    config.eval.every_steps = 480
    if preset == "smoke":
        cifar.shrink(config)
        config.optimizer.warmup_epochs = 0.5
    return config
