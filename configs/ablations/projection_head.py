"""The projection head, its type and dimension: SimCLR (arXiv 2002.05709), Figure 8.

    python -m experiments.ablations --config configs/ablations/projection_head.py:cpu --workdir DIR

Figure 8  ImageNet, ResNet-50, linear top-1 of h: a nonlinear head is better than a linear one by
          about 3 points and than none by more than 10; the dimension, 32 to 2048, hardly matters.
full      ResNet-18 on CIFAR-10, 100 epochs. 33 runs, expected: 6 hours on one GPU. Not yet
          measured.
cpu       digits, dimensions 16 and 64, three seeds. 15 runs, 7 minutes on two CPU cores:
          benchmarks/results/ablations/projection_head_cpu.
"""

from configs.ablations import base
from contrastive_jax.evaluation import claims


def get_config(preset: str = "full"):
    return base.with_digits(preset)


def sizes(preset: str):
    return base.pick(preset, full=(32, 64, 128, 256, 512), cpu=(16, 64), smoke=(8, 16))


def grid(preset: str):
    cells = {("h itself", "none"): {"head.kind": "none"}}
    for kind in ("linear", "mlp"):
        for size in sizes(preset):
            cells[str(size), kind] = {"head.kind": kind, "head.output_dim": size}
    return {
        "cells": cells,
        "seeds": base.pick(preset, full=3, cpu=3, smoke=1),
        "columns": base.COLUMNS,
        "figure": {"axis": "dimension of z"},
        "seconds": base.pick(preset, full=600.0, cpu=25.0, smoke=8.0),
    }


def claim(results):
    """Features are better with a nonlinear projection head than with a linear one, with that than
    with none, and the dimension of a nonlinear head matters by less than 2 points."""
    of = {name: columns["linear"] for name, columns in results.items()}
    dims = sorted(int(name.split(" + ")[0]) for name in of if name.endswith("mlp"))
    small, large = (f"{size} + mlp" for size in (dims[0], dims[-1]))
    linear, none = f"{dims[-1]} + linear", "h itself + none"
    return claims.all_of(
        claims.above(of[large], of[linear], names=("the nonlinear head", "the linear one")),
        claims.above(of[linear], of[none], names=("the linear head", "no head")),
        claims.close(
            of[large], of[small], 0.02, names=(f"a head of {dims[-1]} dimensions", f"{dims[0]}")
        ),
    )
