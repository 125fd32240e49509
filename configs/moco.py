"""MoCo (arXiv 1911.05722) and MoCo v2 (2003.04297) on CIFAR-10 or digits.

    python -m experiments.moco --config configs/moco.py:digits
    python -m experiments.moco --config configs/moco.py --config.data.data_dir=DIR

Papers    ImageNet. MoCo, section 3: temperature 0.07, queue 65536, momentum 0.999, embeddings of
          128 dimensions; SGD at 0.03 for batch 256, decay 1e-4, 200 epochs. MoCo v2: temperature
          0.2, a head of 2048-128 without batch norm, blur.
full      temperature 0.1, queue 4096, momentum 0.99 and batch 512, of the authors' CIFAR-10
          notebook (ResNet-18, 200 epochs, SGD at 0.06, decay 5e-4: 82.6 % kNN), with the head, the
          optimizer and the 100 epochs of configs/cifar.py. solo-learn's MoCo v2+, which is
          symmetric, has 92.94 % linear after 1000 epochs. Not yet measured.
cpu       two CPU cores. digits: the same in about a minute. smoke: seconds.
          In few steps the keys' encoder has to follow faster: 0.95; the queue of the digits holds
          less than a pass over the images.
"""

from ml_collections import ConfigDict

from configs import _images


def get_config(preset: str = "full") -> ConfigDict:
    """`preset` is "full", "cpu", "digits" or "smoke"."""
    config = _images.start(preset)
    momentum = _images.pick(preset, full=0.99, cpu=0.95, digits=0.95)
    size = _images.pick(preset, full=4096, cpu=4096, digits=1024)
    config.moco = ConfigDict({"temperature": 0.1, "queue_size": size, "momentum": momentum})
    return config
