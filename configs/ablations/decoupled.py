"""The decoupled loss in small batches: DCL (arXiv 2110.06848).

    python -m experiments.ablations --config configs/ablations/decoupled.py:cpu --workdir DIR

Source    lightly's benchmarks. CIFAR-10, ResNet-18, kNN, 200 epochs: batch 128: SimCLR .847, DCL
          .844; batch 512: .848, .840. ImageNet, ResNet-50, batch 256, 100 epochs, linear: SimCLR
          63.2, DCL 65.1. So the claim is a contested one.
full      ResNet-18 on CIFAR-10, 100 epochs. 12 runs, expected: 2 hours on one GPU. Not yet
          measured.
cpu       digits, batches of 16 and 256, three seeds. 12 runs, 10 minutes on two CPU cores:
          benchmarks/results/ablations/decoupled_cpu.
"""

from configs.ablations import base
from contrastive_jax.evaluation import claims


def get_config(preset: str = "full"):
    return base.with_digits(preset)


def grid(preset: str):
    return {
        "axes": {
            "data.batch_size": base.pick(preset, full=(64, 512), cpu=(16, 256), smoke=(64, 256)),
            "loss.kind": ("nt_xent", "decoupled"),
        },
        "seeds": base.pick(preset, full=3, cpu=3, smoke=1),
        "columns": base.COLUMNS,
        "figure": {"axis": "batch size"},
        "seconds": base.pick(preset, full=700.0, cpu=30.0, smoke=8.0),
    }


def claim(results):
    """In small batches the decoupled loss, whose denominator leaves out the positive pair, trains
    better features than NT-Xent."""
    of = {name: columns["linear"] for name, columns in results.items()}
    small = min(int(name.split(", ")[0].split("=")[1]) for name in of)
    names = [f"batch_size={small}, kind={kind}" for kind in ("decoupled", "nt_xent")]
    return claims.above(
        of[names[0]], of[names[1]], names=(f"the decoupled loss at batch size {small}", "NT-Xent")
    )
