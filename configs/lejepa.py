"""LeJEPA (arXiv 2511.08544) on CIFAR-10 or digits.

    python -m experiments.lejepa --config configs/lejepa.py:digits
    python -m experiments.lejepa --config configs/lejepa.py --config.data.data_dir=DIR

Paper     section 6.1: lambda 0.05, 1024 directions, two large and eight small views, batches of
          128 or more; algorithm 2: for ResNets large views only. README of rbalestr-lab/lejepa at
          eddffdd: six small views, AdamW at 5e-4, decay 5e-2 for ViTs and 5e-4 for ResNets, warm-up
          and cosine to a thousandth of the rate. MINIMAL.md there, ViT-S on ImageNette: head of
          three layers 2048-2048-16 with batch norm, lambda 0.02, 256 directions, four views, batch
          256, an epoch of warm-up.
full      two large views of CIFAR-10, AdamW and decay as above, embeddings of 64 dimensions, 100
          epochs, an epoch of warm-up. Not yet measured.
cpu       two CPU cores, 256 directions, embeddings of 16 dimensions. digits: two large views in
          about a minute. smoke: seconds.
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
        warmup = _images.pick(preset, full=1.0, cpu=0.2, digits=0.0)
        config.optimizer.update({"decay_norm_and_bias": False, "warmup_epochs": warmup})
    return config
