"""The rate by the batch, linear or its root: SimCLR (arXiv 2002.05709), Table B.1.

    python -m experiments.ablations --config configs/ablations/lr_scaling.py:cpu --workdir DIR

Table B.1  ImageNet, ResNet-50, LARS, linear top-1 %, linear / square root, 100
           epochs: batch 256: 57.5 / 62.8; 512: 60.7 / 63.8; 1024: 62.8 / 64.3; 2048: 64.0 / 64.7;
           4096: 64.6 / 64.5; 8192: 64.8 / 64.8. At 800 epochs, 256: 66.6 / 66.5.
Here       the paper's rates: 0.3 x batch / 256, and 0.075 x sqrt(batch), equal at a batch of 4096.
full       ResNet-18 on CIFAR-10, 100 epochs. 24 runs, expected: 5 hours on one GPU. Not yet
           measured.
cpu        digits, batches of 64 and 256, three seeds. 12 runs, expected: 5 minutes on two CPU
           cores. Not yet measured.
"""

from configs.ablations import base
from contrastive_jax.evaluation import claims


def get_config(preset: str = "full"):
    config = base.with_digits(preset)
    with config.unlocked():
        config.optimizer.update({"name": "lars", "scaling": "linear", "learning_rate": 0.3})
        config.optimizer.update({"weight_decay": 1e-6, "decay_norm_and_bias": False})
    return config


def grid(preset: str):
    rules = {
        "linear": {"optimizer.scaling": "linear", "optimizer.learning_rate": 0.3},
        "square root": {"optimizer.scaling": "sqrt", "optimizer.learning_rate": 0.075},
    }
    batches = base.pick(preset, full=(256, 512, 1024, 2048), cpu=(64, 256), smoke=(64, 256))
    return {
        "axes": {"data.batch_size": batches, "rule": rules},
        "seeds": base.pick(preset, full=3, cpu=3, smoke=1),
        "columns": base.COLUMNS,
        "figure": {"axis": "batch size"},
        "seconds": base.pick(preset, full=700.0, cpu=25.0, smoke=8.0),
    }


def claim(results):
    """With few epochs and the smallest batch the square-root rule is better than the linear one."""
    of = {name: columns["linear"] for name, columns in results.items()}
    small = min(int(name.split(", ")[0].split("=")[1]) for name in of)
    names = [f"batch_size={small}, rule={rule}" for rule in ("square root", "linear")]
    return claims.above(of[names[0]], of[names[1]], names=(names[0], "linear"))
