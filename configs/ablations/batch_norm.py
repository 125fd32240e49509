"""Statistics of batch norm, global or local: SimCLR (arXiv 2002.05709), section 2.2.

    python -m experiments.ablations --config configs/ablations/batch_norm.py:cpu --workdir DIR

Section 2.2  where each device normalizes the images it holds, and both views of an image are on
             one device, the model can solve the contrastive task by what leaks through the
             statistics, without better features. The paper gives no numbers; MoCo's CIFAR-10
             notebook loses 4 points at 800 epochs where keys are not shuffled.
Here         local statistics are those of parts of the batch, on any number of devices. The
             contrastive accuracy is that of the last training batch.
full         ResNet-18 on CIFAR-10, 100 epochs. 6 runs, expected: 1 hour on one GPU. Not yet
             measured.
cpu          digits, three seeds, parts of 8 images. 6 runs, expected: 3 minutes on two CPU cores.
             Not yet measured.
"""

from configs.ablations import base
from contrastive_jax.evaluation import claims


def get_config(preset: str = "full"):
    return base.with_digits(preset)


def grid(preset: str):
    parts = {"global": 1, "local": base.pick(preset, full=64, cpu=32, smoke=32)}
    return {
        "axes": {
            "statistics": {
                name: {"encoder.norm_groups": groups, "head.norm_groups": groups}
                for name, groups in parts.items()
            }
        },
        "seeds": base.pick(preset, full=3, cpu=3, smoke=1),
        "columns": base.COLUMNS,
        "figure": {"axis": "batch statistics", "columns": ("linear", "contrastive accuracy")},
        "seconds": base.pick(preset, full=600.0, cpu=30.0, smoke=8.0),
    }


def claim(results):
    """Local statistics make the contrastive task easier and the features worse."""
    whole, local = (results[f"statistics={name}"] for name in ("global", "local"))
    task = "contrastive accuracy"
    return claims.all_of(
        claims.above(whole["linear"], local["linear"], names=("linear: global", "local")),
        claims.above(local[task], whole[task], names=("contrastive accuracy: local", "global")),
    )
