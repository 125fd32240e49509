"""NNCLR (arXiv 2104.14548) on CIFAR-10 or digits.

    python -m experiments.nnclr --config configs/nnclr.py:digits
    python -m experiments.nnclr --config configs/nnclr.py --config.data.data_dir=DIR

Paper     ImageNet, section 4.1: temperature 0.1, queue 98304, head 2048-2048-256 and predictor
          4096-256 with batch norm, LARS at 0.3 x batch / 256, decay 1e-6, 10 epochs of warm-up.
full      queue 65536, head 2048-256, predictor 4096-256 and temperature 0.2, the CIFAR-10 recipe of
          solo-learn (its table: 91.88 % linear after 1000 epochs), with the optimizer and the 100
          epochs of configs/cifar.py. The queue is longer than the training set of 50,000, so that
          many supports are the image itself. Not yet measured.
cpu       two CPU cores. digits: the same in about a minute. smoke: seconds.
          Their queue holds less than a pass over the images, so that few supports are the image
          itself.
"""

from ml_collections import ConfigDict

from configs import _images


def get_config(preset: str = "full") -> ConfigDict:
    """`preset` is "full", "cpu", "digits" or "smoke"."""
    config = _images.start(preset)
    hidden, output = _images.pick(preset, full=(2048, 256), cpu=(256, 128), digits=(128, 64))
    config.head.update({"hidden_dim": hidden, "output_dim": output, "batch_norm": True})
    config.predictor = ConfigDict({"hidden_dim": 2 * hidden})
    size = _images.pick(preset, full=65536, cpu=16384, digits=1024)
    config.nnclr = ConfigDict({"temperature": 0.2, "queue_size": size})
    return config
