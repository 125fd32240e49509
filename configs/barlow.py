"""Barlow Twins (arXiv 2103.03230) on CIFAR-10 or digits.

    python -m experiments.barlow --config configs/barlow.py:digits
    python -m experiments.barlow --config configs/barlow.py --config.data.data_dir=DIR

Paper     ImageNet, section 2.2: lambda 5e-3, head of three layers of 8192, LARS at 0.2 x
          batch / 256 for weights, decay 1.5e-6, 10 epochs of warm-up. The authors' main.py has
          lambda 0.0051 and decay 1e-6.
full      head of three layers of 2048 and the loss x 0.1, the CIFAR-10 recipe of solo-learn (its
          table: 92.10 % linear after 1000 epochs), with the optimizer and the 100 epochs of
          configs/cifar.py. Not yet measured.
cpu       two CPU cores. digits: the same in about a minute. smoke: seconds.
"""

from ml_collections import ConfigDict

from configs import _images


def get_config(preset: str = "full") -> ConfigDict:
    """`preset` is "full", "cpu", "digits" or "smoke"."""
    config = _images.start(preset)
    width = _images.pick(preset, full=2048, cpu=512, digits=256)
    config.head.update({"hidden_dim": width, "output_dim": width, "batch_norm": True})
    with config.unlocked():
        config.head.layers = _images.pick(preset, full=3, cpu=2, digits=2)
    config.barlow = ConfigDict({"off_diagonal": 5e-3, "scale": 0.1})
    return config
