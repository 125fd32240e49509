"""MoCo v3 (arXiv 2104.02057) on CIFAR-10 or digits.

    python -m experiments.moco_v3 --config configs/moco_v3.py:digits
    python -m experiments.moco_v3 --config configs/moco_v3.py:vit --config.data.data_dir=DIR

Paper     ImageNet, and CONFIG.md of facebookresearch/moco-v3 at c349e6e: batch 4096, head 4096-256
          and predictor 4096-256, momentum 0.99 to 1 (0.996 for 1000 epochs). ViT: temperature 0.2,
          head of three layers, batch norm on every layer, the patch projection frozen, AdamW at
          1.5e-4 x batch / 256, decay 0.1, 40 of 300 epochs of warm-up. ResNet-50: temperature 1,
          head of two layers, the predictor's output without batch norm, LARS at 0.6 x batch / 256
          for 100 epochs, decay 1e-6, 10 epochs of warm-up.
full      ResNet-18: head, predictor, temperature and momentum of solo-learn's CIFAR-10 recipe (its
          table: 93.10 % linear after 1000 epochs), with the optimizer and the 100 epochs of
          configs/cifar.py. Not yet measured.
vit       ViT-Ti with patches of 4 pixels: the paper's optimizer, heads and frozen patches on
          CIFAR-10, 300 epochs at batch 512. Not yet measured.
cpu       two CPU cores. digits: the same in about a minute. smoke: seconds.
          In few steps the keys' encoder has to follow faster: 0.95.
"""

from ml_collections import ConfigDict

from configs import _images


def get_config(preset: str = "full") -> ConfigDict:
    """`preset` is "full", "vit", "cpu", "digits" or "smoke"."""
    size = "full" if preset == "vit" else preset
    config = _images.start(size)
    hidden, output = _images.pick(size, full=(4096, 256), cpu=(256, 128), digits=(128, 64))
    with config.unlocked():
        config.head.update({"hidden_dim": hidden, "output_dim": output, "batch_norm": True})
        config.head.output_batch_norm = True
    config.predictor = ConfigDict({"hidden_dim": hidden})
    momentum = _images.pick(size, full=0.99, cpu=0.95, digits=0.95)
    config.moco_v3 = ConfigDict({"temperature": 0.2, "momentum": momentum})
    if preset == "vit":
        _vit(config)
    return config


def _vit(config: ConfigDict) -> None:
    """The paper's recipe for ViTs, on small images."""
    config.encoder = ConfigDict(
        {
            "name": "vit",
            "size": "Ti",
            "patch_size": 4,
            "positions": "sincos",
            "freeze_patches": True,
            "dtype": "bfloat16",
        }
    )
    with config.unlocked():
        config.head.layers = 3
        config.predictor.output_batch_norm = True
    config.optimizer.update(
        {
            "name": "adamw",
            "learning_rate": 1.5e-4,
            "scaling": "linear",
            "weight_decay": 0.1,
            "decay_norm_and_bias": False,
            "warmup_epochs": 40.0,
        }
    )
    config.train.epochs = 300.0
