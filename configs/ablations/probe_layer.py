"""Which layer to probe, h or z = g(h): SimCLR (arXiv 2002.05709), section 4.2 and Figure 8.

    python -m experiments.ablations --config configs/ablations/probe_layer.py:cpu --workdir DIR

Section 4.2  ImageNet, ResNet-50: the layer before the head is better by more than 10 points (top-1
             of a linear probe), whichever head.
full         ResNet-18 on CIFAR-10, 100 epochs. 6 runs, expected: 1 hour on one GPU. Not yet
             measured.
cpu          digits, z as wide as h, three seeds. 6 runs, 3 minutes on two CPU cores:
             benchmarks/results/ablations/probe_layer_cpu.
"""

from configs.ablations import base
from contrastive_jax.evaluation import claims

H, Z = "h", "z"


def get_config(preset: str = "full"):
    return base.with_digits(preset)


def grid(preset: str):
    width = base.pick(preset, full=512, cpu=64, smoke=32)
    heads = {kind: {"head.kind": kind, "head.output_dim": width} for kind in ("linear", "mlp")}
    return {
        "axes": {"head": heads},
        "seeds": base.pick(preset, full=3, cpu=3, smoke=1),
        "columns": {H: base.LINEAR, Z: {"layer": "embedding", "name": "linear"}},
        "figure": {"axis": "head", "columns": (H, Z)},
        "seconds": base.pick(preset, full=600.0, cpu=25.0, smoke=8.0),
    }


def claim(results):
    """A linear probe of the features (h, before the projection head) is better than one of the
    embedding (z, after it), with a nonlinear head and with a linear one."""
    return claims.all_of(
        *(
            claims.above(of[H], of[Z], names=(f"with {name} the probe of h", "the probe of z"))
            for name, of in results.items()
        )
    )
