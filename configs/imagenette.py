"""SimCLR on Imagenette (ten classes of ImageNet) at 128 px with ResNet-18.

    python -m experiments.simclr --config configs/imagenette.py --config.data.data_dir=DIR

Data      `imagenette/320px-v2` of TFDS as ArrayRecord, 9,469 train and 3,925 test images, 0.7 GB
          on the device at 160 px. Preparing it takes TensorFlow once, on any machine:
          tfds build imagenette/320px-v2 --file_format=array_record --data_dir DIR
Source    the setting of lightly's Imagenette benchmark (128 px, ResNet-18, batch 256, 800 epochs,
          SGD 0.06 x batch / 128, decay 5e-4, temperature 0.5): SimCLR .889 kNN (k=200, best epoch)
          in 193.5 minutes on an A6000. Blur and jitter as in the SimCLR paper, appendix A.
Hardware  one GPU. Not yet measured here.
"""

from ml_collections import ConfigDict

from configs import cifar


def get_config(preset: str = "full") -> ConfigDict:
    """`preset` is "full" or "smoke"."""
    if preset not in ("full", "smoke"):
        raise ValueError(f"preset {preset!r} is unknown; configs/imagenette.py has full and smoke")
    config = cifar.get_config("full")
    with config.unlocked():
        config.data.image_size = 160  # short side, center-cropped; crops of 128 px come out of it
        config.data.test_split = "validation"  # it has no other
    config.data.update({"name": "imagenette/320px-v2", "batch_size": 256})
    config.augment.update(
        {
            "size": 128,
            "crop_scale": (0.08, 1.0),
            "brightness": 0.8,
            "contrast": 0.8,
            "saturation": 0.8,
            "hue": 0.2,
            "grayscale_probability": 0.2,
            "blur_probability": 0.5,
        }
    )
    config.encoder.stem = "imagenet"
    config.head.update({"hidden_dim": 512, "output_dim": 128, "batch_norm": True})
    config.optimizer.update(
        {"learning_rate": 0.12, "scaling": "linear", "weight_decay": 5e-4, "warmup_epochs": 10.0}
    )
    config.train.epochs = 800.0
    config.checkpoint.every_steps = 720  # 20 epochs of 36 steps
    config.eval.update({"every_steps": 720, "batch_size": 256})
    if preset == "smoke":
        cifar.shrink(config)
        config.data.image_size = 40
        config.optimizer.warmup_epochs = 0.5
    return config
