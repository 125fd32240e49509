"""Batch size and length of training: SimCLR (arXiv 2002.05709), Figures 9 and B.7, Table B.1.

    python -m experiments.ablations --config configs/ablations/batch_size.py:cpu --workdir DIR

Table B.1  ImageNet, ResNet-50, linear top-1 % with the linear rule for the rate, at 100, 200, 400,
           800 epochs: batch 256: 57.5, 61.9, 64.7, 66.6; 512: 60.7, 64.0, 66.2, 67.8; 1024: 62.8,
           65.3, 67.2, 68.5; 2048: 64.0, 66.1, 68.1, 68.9; 4096: 64.6, 66.5, 68.2, 68.9.
CIFAR-10   Figure B.7 (ResNet-50): the same trend; dkobak/simclr-cifar10 saw no gain beyond batch
           512 with ResNet-18.
full       SGD with the linear rule; batches up to 2048. 36 runs, expected: 7 hours on one GPU. Not
           yet measured.
cpu        digits with AdamW and the square-root rule, three seeds. 12 runs, expected: 5 minutes on
           two CPU cores. Not yet measured.
"""

from configs.ablations import base
from contrastive_jax.evaluation import claims


def get_config(preset: str = "full"):
    config = base.with_digits(preset)
    if preset != "full":  # the same rate as in configs/digits.py at a batch of 256
        config.optimizer.update({"learning_rate": 6e-3 / 16, "warmup_epochs": 0.0})
        with config.unlocked():
            config.optimizer.scaling = "sqrt"
    return config


def grid(preset: str):
    batches = base.pick(preset, full=(256, 512, 1024, 2048), cpu=(32, 256), smoke=(64, 256))
    epochs = base.pick(preset, full=(50.0, 100.0, 200.0), cpu=(6.0, 24.0), smoke=(1.0, 2.0))
    return {
        "axes": {"data.batch_size": batches, "train.epochs": epochs},
        "seeds": base.pick(preset, full=3, cpu=3, smoke=1),
        "columns": base.COLUMNS,
        "figure": {"axis": "batch size; a color for each number of epochs"},
        "seconds": base.pick(preset, full=700.0, cpu=25.0, smoke=8.0),
    }


def claim(results):
    """A large batch is better than a small one when epochs are few, and its lead shrinks with more
    epochs."""
    of = {_place(name): columns["linear"] for name, columns in results.items()}
    batches = sorted({batch for batch, _ in of})
    epochs = sorted({length for _, length in of})
    small, large, few, many = batches[0], batches[-1], epochs[0], epochs[-1]
    early = [b - a for a, b in zip(of[small, few], of[large, few], strict=True)]
    late = [b - a for a, b in zip(of[small, many], of[large, many], strict=True)]
    return claims.all_of(
        claims.above(
            of[large, few], of[small, few], names=(f"{few:g} epochs: batch {large}", f"{small}")
        ),
        claims.above(early, late, names=(f"lead after {few:g} epochs", f"after {many:g}")),
    )


def _place(name: str):
    batch, epochs = (part.split("=")[1] for part in name.split(", "))
    return int(batch), float(epochs)
