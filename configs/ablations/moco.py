"""MoCo's queue and its momentum: He et al. (arXiv 1911.05722).

    python -m experiments.ablations --config configs/ablations/moco.py:cpu --workdir DIR

Source    the CIFAR-10 notebook of MoCo (ResNet-18, batch 512, queue 4096, temperature 0.1, momentum
          0.99, kNN of z): 82.6, 86.3, 88.7 at 200, 400, 800 epochs; it notes that without momentum
          training fails and that the queue saturates at 4096.
Here      batch statistics are global, as on one device without shuffling.
full      ResNet-18 on CIFAR-10, 100 epochs. 36 runs, expected: 7 hours on one GPU. Not yet
          measured.
cpu       digits, three seeds; each queue holds at least one batch. 18 runs, expected: 8 minutes on
          two CPU cores. Not yet measured.
"""

from configs.ablations import base
from contrastive_jax.evaluation import claims


def get_config(preset: str = "full"):
    config = base.with_digits(preset)
    with config.unlocked():
        del config.loss
        config.moco = {"temperature": 0.1, "queue_size": 4096, "momentum": 0.99}
    if preset != "full":
        config.data.batch_size = 64
        config.moco.queue_size = 1024
    return config


def grid(preset: str):
    sizes = base.pick(preset, full=(512, 4096, 16384), cpu=(64, 1024), smoke=(64,))
    momenta = base.pick(
        preset, full=(0.0, 0.9, 0.99, 0.999), cpu=(0.0, 0.9, 0.99), smoke=(0.0, 0.9)
    )
    return {
        "experiment": "moco",
        "axes": {"moco.queue_size": sizes, "moco.momentum": momenta},
        "seeds": base.pick(preset, full=3, cpu=3, smoke=1),
        "columns": base.COLUMNS,
        "figure": {"axis": "queue size; a color for each momentum"},
        "seconds": base.pick(preset, full=700.0, cpu=25.0, smoke=8.0),
    }


def claim(results):
    """Keys from a slowly moving encoder are better than keys from a copy of it, and a queue of many
    batches is no worse than the smallest, by 2 points."""
    of = {_place(name): columns["linear"] for name, columns in results.items()}
    sizes = sorted({size for size, _ in of})
    slow = sorted({momentum for _, momentum in of})[1:]
    large, small = sizes[-1], sizes[0]
    moving = 0.99 if 0.99 in slow else slow[-1]
    return claims.all_of(
        claims.above(of[large, moving], of[large, 0.0], names=(f"momentum {moving:g}", "0")),
        claims.above(
            of[large, moving], of[small, moving], by=-0.02, names=(f"queue {large}", f"{small}")
        ),
    )


def _place(name: str):
    size, momentum = (part.split("=")[1] for part in name.split(", "))
    return int(size), float(momentum)
