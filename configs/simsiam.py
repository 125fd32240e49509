"""SimSiam (arXiv 2011.10566) on CIFAR-10 or digits.

    python -m experiments.simsiam --config configs/simsiam.py:digits
    python -m experiments.simsiam --config configs/simsiam.py --config.data.data_dir=DIR

Paper     ImageNet, section 3: head of three layers of 2048 with batch norm on each, predictor
          512-2048, SGD at 0.05 x batch / 256, decay 1e-4, the predictor's rate constant. CIFAR-10,
          appendix D: ResNet-18, batch 512, head of two layers, base rate 0.03, decay 5e-4, 800
          epochs: 91.8 % linear.
full      the CIFAR-10 recipe, 100 epochs. Not yet measured.
cpu       two CPU cores. digits: the same in about a minute. smoke: seconds.
"""

from ml_collections import ConfigDict

from configs import _images


def get_config(preset: str = "full") -> ConfigDict:
    """`preset` is "full", "cpu", "digits" or "smoke"."""
    config = _images.start(preset)
    width, bottleneck = _images.pick(preset, full=(2048, 512), cpu=(256, 64), digits=(128, 32))
    config.head.update({"hidden_dim": width, "output_dim": width, "batch_norm": True})
    with config.unlocked():
        config.head.output_batch_norm = True
    config.predictor = ConfigDict({"hidden_dim": bottleneck})
    config.simsiam = ConfigDict({"constant_rate": True})
    if preset == "full":
        config.optimizer.learning_rate = 0.03
    return config
