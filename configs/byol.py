"""BYOL (arXiv 2006.07733) on CIFAR-10 or digits.

    python -m experiments.byol --config configs/byol.py:digits
    python -m experiments.byol --config configs/byol.py --config.data.data_dir=DIR

Paper     ImageNet, section 3.3, for 1000 epochs: momentum 0.996 to 1, head and predictor 4096-256
          with batch norm after the hidden layer, LARS at 0.2 x batch / 256, decay 1.5e-6, 10 epochs
          of warm-up. For 100 epochs the authors' configs/byol.py has momentum 0.99, LARS at 0.45
          and decay 1e-6.
full      momentum 0.99, head and predictor 4096-256, which is the CIFAR-10 recipe of solo-learn as
          well (its table: 92.58 % linear after 1000 epochs), with the optimizer and the 100 epochs
          of configs/cifar.py. Not yet measured.
cpu       two CPU cores. digits: the same in about a minute. smoke: seconds.
          In few steps the target has to follow faster: 0.95.
"""

from ml_collections import ConfigDict

from configs import _images


def get_config(preset: str = "full") -> ConfigDict:
    """`preset` is "full", "cpu", "digits" or "smoke"."""
    config = _images.start(preset)
    hidden, output = _images.pick(preset, full=(4096, 256), cpu=(256, 128), digits=(128, 64))
    config.head.update({"hidden_dim": hidden, "output_dim": output, "batch_norm": True})
    config.predictor = ConfigDict({"hidden_dim": hidden})
    momentum = _images.pick(preset, full=0.99, cpu=0.95, digits=0.95)
    config.byol = ConfigDict({"momentum": momentum})
    return config
