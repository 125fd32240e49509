"""LeJEPA (arXiv 2511.08544) on CIFAR-10 or digits.

    python -m experiments.lejepa --config configs/lejepa.py:digits
    python -m experiments.lejepa --config configs/lejepa.py --config.data.data_dir=DIR

Paper     lambda 0.05, 1024 directions, two large and six small views, head 2048-2048 with batch
          norm; AdamW at 5e-4, decay 5e-2 for ViTs and 5e-4 for ResNets, warm-up and cosine
          (README of rbalestr-lab/lejepa at a0d6745).
full      two large views of CIFAR-10, AdamW as above, 100 epochs. Not yet measured.
cpu       two CPU cores, 256 directions. digits: the same in about a minute.
          smoke: seconds. Embeddings have 16 dimensions, as in the authors' small example
          (MINIMAL.md at 2f2d970; there lambda is 0.02).
"""

from ml_collections import ConfigDict

from configs import _images


def get_config(preset: str = "full") -> ConfigDict:
    """`preset` is "full", "cpu", "digits" or "smoke"."""
    config = _images.start(preset)
    hidden, output = _images.pick(preset, full=(2048, 64), cpu=(512, 16), digits=(256, 16))
    config.head.update({"hidden_dim": hidden, "output_dim": output, "batch_norm": True})
    with config.unlocked():
        config.head.layers = _images.pick(preset, full=3, cpu=2, digits=2)
    directions = _images.pick(preset, full=1024, cpu=256, digits=256)
    config.lejepa = ConfigDict({"weight": 0.05, "n_directions": directions})
    if preset in ("full", "cpu"):
        rate = 5e-4 if preset == "full" else 3e-3
        config.optimizer.update({"name": "adamw", "learning_rate": rate, "scaling": "none"})
        config.optimizer.update({"decay_norm_and_bias": False, "warmup_epochs": 0.2})
    return config
