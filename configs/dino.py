"""DINO (arXiv 2104.14294) on CIFAR-10 or digits.

    python -m experiments.dino --config configs/dino.py:digits
    python -m experiments.dino --config configs/dino.py --config.data.data_dir=DIR

Paper     ImageNet, section 3.2 and appendix C: 65536 prototypes, head of three layers
          2048-2048-256, temperatures 0.1 and 0.04 (rising to 0.07 in the first 30 epochs, here it
          stays), momentum 0.996 to 1, center 0.9, prototypes frozen for the first epoch, two large
          and up to ten small views; ViT without batch norm in its head, AdamW at 5e-4 x batch / 256
          and decay 0.04 rising to 0.4, which does not rise here.
full      4096 prototypes and the head of three layers, with batch norm, of solo-learn's CIFAR-10
          recipe (its table: 89.52 % linear after 1000 epochs); ResNet-18 on two views, with the
          optimizer and the 100 epochs of configs/cifar.py. The momentum is the paper's: for batch
          256 solo-learn and the authors' code advise 0.9995. Not yet measured.
cpu       two CPU cores. digits: two large and two small views in about a minute. smoke: seconds.
          In few steps the teacher has to follow faster: 0.95.
"""

from ml_collections import ConfigDict

from configs import _images


def get_config(preset: str = "full") -> ConfigDict:
    """`preset` is "full", "cpu", "digits" or "smoke"."""
    config = _images.start(preset)
    hidden, output = _images.pick(preset, full=(2048, 256), cpu=(256, 128), digits=(128, 64))
    config.head.update({"hidden_dim": hidden, "output_dim": output, "batch_norm": True})
    with config.unlocked():
        config.head.layers = _images.pick(preset, full=3, cpu=2, digits=2)
    count, frozen = _images.pick(preset, full=(4096, 97), cpu=(512, 20), digits=(256, 5))
    momentum = _images.pick(preset, full=0.996, cpu=0.95, digits=0.95)
    config.dino = ConfigDict(
        {
            "n_prototypes": count,
            "temperature": 0.1,
            "teacher_temperature": 0.04,
            "momentum": momentum,
            "center_momentum": 0.9,
            "frozen_steps": frozen,
        }
    )
    if config.data.source == "digits":
        _images.small_views(config, 2)
    return config
