"""VICReg (arXiv 2105.04906) on CIFAR-10 or digits.

    python -m experiments.vicreg --config configs/vicreg.py:digits
    python -m experiments.vicreg --config configs/vicreg.py --config.data.data_dir=DIR

Paper     ImageNet, section 4.2: weights 25, 25 and 1, head of three layers of 8192, LARS at 0.2 x
          batch / 256, decay 1e-6, 10 epochs of warm-up.
full      head of three layers of 2048, of solo-learn's CIFAR-10 recipe (its table: 92.07 % linear
          after 1000 epochs), with the optimizer and the 100 epochs of configs/cifar.py at a tenth
          of its rate, because the weights scale the gradient. Not yet measured.
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
    config.vicreg = ConfigDict({"invariance": 25.0, "variance": 25.0, "covariance": 1.0})
    if config.optimizer.name == "sgd":
        config.optimizer.learning_rate /= 10
    return config
