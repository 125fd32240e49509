"""What the configs of image methods start from: data, views, encoder, length and scores.

full     configs/cifar.py: ResNet-18 on CIFAR-10, batch 512, 100 epochs, bfloat16, one GPU
cpu      configs/cifar.py:cpu: a small encoder on CIFAR-10, two CPU cores
digits   configs/digits.py: scikit-learn's digits, no network
smoke    configs/digits.py:smoke: seconds, learns next to nothing
"""

from ml_collections import ConfigDict

from configs import cifar, digits

PRESETS = ("full", "cpu", "digits", "smoke")


def start(preset: str) -> ConfigDict:
    """The config of a preset, without the section of a method."""
    if preset not in PRESETS:
        raise ValueError(f"preset {preset!r} is unknown; there are {', '.join(PRESETS)}")
    small = {"digits": "", "smoke": "smoke"}
    config = digits.get_config(small[preset]) if preset in small else cifar.get_config(preset)
    del config["loss"]
    return config


def pick(preset: str, *, full, cpu, digits):
    """Return the value of the preset; smoke takes that of digits."""
    return {"full": full, "cpu": cpu, "digits": digits, "smoke": digits}[preset]


def small_views(config: ConfigDict, n: int) -> None:
    """Multi-crop: n small views of half the side beside two large ones.

    Scales of SwAV (arXiv 2006.09882, appendix A.1): large 0.14 to 1, small 0.05 to 0.14. Digits are
    not shown in parts as small as those.
    """
    on_digits = config.data.source == "digits"
    scale = (0.3, 0.6) if on_digits else (0.05, 0.14)
    large = tuple(config.augment.crop_scale) if on_digits else (0.14, 1.0)
    config.augment.update(
        {
            "crop_scale": large,
            "n_small_views": n,
            "small_size": config.augment.size // 2,
            "small_crop_scale": scale,
        }
    )
