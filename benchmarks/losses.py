"""Measure time and memory of the contrastive losses against their peers.

    python -m pip install -r benchmarks/requirements.txt
    python -m benchmarks.losses                      # docs/performance.md: minutes to an hour
    python -m benchmarks.losses --pairs 64 --rounds 1 --out /tmp/losses.json   # a try
    python -m benchmarks.losses --pairs 65536 --dim 512 --dtype bfloat16 --only symm open_clip \
        memeff --rounds 1 --out benchmarks/results/losses_cpu_65536_d512.json

Each contender computes one mean loss and its gradient to embeddings [pairs, 2, dim]. All
contenders of a size run in one process, in turn (A B C A B C ...), and the median of the rounds is
reported. Peak memory is measured in a process of its own: how far its resident set rises
in the first call (Linux; a JAX step is compiled by then), or on a GPU the library's own peak. A
contender that would exceed --memory-gb is skipped and the reason recorded; so is a package that is
not installed, or that needs a GPU where there is none.
"""

import argparse
import importlib.util
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.shared import harness

TEMPERATURE = 0.5
MARGIN = 1.0
IMAGES_PER_CLASS = 4  # for SupCon; every image has two views
NOT_ASKED = "not asked for"
PACKAGES = (
    "jax",
    "numpy",
    "optax",
    "torch",
    "lightly",
    "pytorch-metric-learning",
    "open_clip_torch",
    "memeff",
    "siglip-kernel",
)
NEED_CUDA = ("memeff", "siglip_kernel")  # packages of Triton kernels
Step = Callable[[], float]  # one value and gradient; returns the value


def embeddings(pairs: int, dim: int, dtype: str = "float32") -> np.ndarray:
    """Make the same unit vectors for every contender."""
    import ml_dtypes  # of jax: NumPy's bfloat16

    z = np.random.default_rng(0).normal(size=(pairs, 2, dim)).astype(np.float32)
    z /= np.linalg.norm(z, axis=-1, keepdims=True)
    return z.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def jax_step(loss: Callable, z: np.ndarray) -> Step:
    import jax
    import jax.numpy as jnp

    z = jnp.asarray(z)
    step = jax.jit(jax.value_and_grad(lambda z: loss(z).mean())).lower(z).compile()
    return lambda: float(jax.block_until_ready(step(z))[0])


def torch_step(loss: Callable, z: np.ndarray) -> Step:
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, z.dtype.name)
    z = torch.tensor(z.astype(np.float32)).to(device, dtype).requires_grad_()

    def step() -> float:
        z.grad = None
        value = loss(z)
        value.backward()
        return value.item()

    return step


def nt_xent(z: np.ndarray, block_size: int | None) -> Step:
    from contrastive_jax import losses

    return jax_step(lambda z: losses.nt_xent(z, TEMPERATURE, block_size=block_size), z)


def nt_xent_by_config(z: np.ndarray, block_size: int | None) -> Step:
    """Make the loss that a run makes of its config's section, for the devices of this machine."""
    from contrastive_jax import parallel
    from experiments.run.losses import pair_loss

    options = {"temperature": TEMPERATURE, "block_size": block_size}
    return jax_step(pair_loss("nt_xent", parallel.make_mesh(), **options).function, z)


def clip(z: np.ndarray, block_size: int | None) -> Step:
    from contrastive_jax import losses

    def loss(z):
        return losses.symmetric_info_nce(z[:, 0], z[:, 1], TEMPERATURE, block_size=block_size)

    return jax_step(loss, z)


def siglip(z: np.ndarray, block_size: int | None) -> Step:
    from contrastive_jax import losses

    def loss(z):
        return losses.siglip(z[:, 0], z[:, 1], TEMPERATURE, -1.0, block_size=block_size)

    return jax_step(loss, z)


def sup_con(z: np.ndarray, block_size: int | None) -> Step:
    from contrastive_jax import losses

    labels = np.arange(len(z)) // IMAGES_PER_CLASS
    return jax_step(lambda z: losses.sup_con(z, labels, TEMPERATURE, block_size=block_size), z)


def semi_hard(z: np.ndarray) -> Step:
    from contrastive_jax import losses

    labels = np.repeat(np.arange(len(z)), 2)
    return jax_step(
        lambda z: losses.batch_semi_hard_triplet(z.reshape(len(labels), -1), labels, MARGIN), z
    )


def optax_ntxent(z: np.ndarray) -> Step:
    import jax.numpy as jnp
    import optax

    labels = jnp.repeat(jnp.arange(len(z)), 2)
    return jax_step(
        lambda z: optax.losses.ntxent(z.reshape(-1, z.shape[-1]), labels, TEMPERATURE), z
    )


def lightly_ntxent(z: np.ndarray) -> Step:
    from lightly.loss import NTXentLoss

    loss = NTXentLoss(temperature=TEMPERATURE)
    return torch_step(lambda z: loss(z[:, 0], z[:, 1]), z)


def metric_learning_ntxent(z: np.ndarray) -> Step:
    import torch
    from pytorch_metric_learning.losses import NTXentLoss

    loss, labels = NTXentLoss(temperature=TEMPERATURE), torch.arange(len(z)).repeat_interleave(2)
    return torch_step(lambda z: loss(z.flatten(0, 1), labels), z)


def open_clip(z: np.ndarray) -> Step:
    from open_clip.loss import ClipLoss

    loss = ClipLoss()
    return torch_step(lambda z: loss(z[:, 0], z[:, 1], 1 / TEMPERATURE), z)


def open_clip_siglip(z: np.ndarray) -> Step:
    import torch
    from open_clip.loss import SigLipLoss

    loss, scale, bias = SigLipLoss(), 1 / TEMPERATURE, torch.tensor(-1.0)
    return torch_step(lambda z: loss(z[:, 0], z[:, 1], scale, bias.to(z.device, z.dtype)), z)


def memeff_clip(z: np.ndarray) -> Step:
    from memeff import MemoryEfficientCLIPLoss

    loss = MemoryEfficientCLIPLoss(temperature=TEMPERATURE, stable=False)
    return torch_step(lambda z: loss(z[:, 0].contiguous(), z[:, 1].contiguous()), z)


def siglip_kernel(z: np.ndarray) -> Step:
    import torch
    from siglip_kernel import fused_siglip_loss

    scale, bias = torch.tensor([-np.log(TEMPERATURE), -1.0], device="cuda").float()
    return torch_step(
        lambda z: fused_siglip_loss(z[:, 0].contiguous(), z[:, 1].contiguous(), scale, bias), z
    )


def torch_ntxent(z: np.ndarray) -> Step:
    """Make one masked cross-entropy by hand, the fastest form that we know in torch."""
    import torch
    from torch.nn.functional import cross_entropy

    def loss(z):
        rows = torch.arange(z.shape[0] * 2, device=z.device)
        z = torch.nn.functional.normalize(z.flatten(0, 1), dim=1)
        logits = (z @ z.T / TEMPERATURE).fill_diagonal_(-torch.inf)
        return cross_entropy(logits, rows ^ 1)

    return torch_step(loss, z)


def metric_learning_supcon(z: np.ndarray) -> Step:
    import torch
    from pytorch_metric_learning.losses import SupConLoss

    labels = (torch.arange(len(z)) // IMAGES_PER_CLASS).repeat_interleave(2)
    loss = SupConLoss(temperature=TEMPERATURE)
    return torch_step(lambda z: loss(z.flatten(0, 1), labels), z)


def torch_semi_hard(z: np.ndarray) -> Step:
    """Make the loss by hand for pairs: each anchor has one positive."""
    import torch

    rows = torch.arange(2 * len(z))

    def loss(z):
        z = z.flatten(0, 1)
        square = (z * z).sum(1)
        d = (square[:, None] + square[None, :] - 2 * z @ z.T).clamp(min=0)
        to_positive = d[rows, rows ^ 1]
        with torch.no_grad():
            same = torch.zeros_like(d, dtype=torch.bool)
            same[rows, rows] = same[rows, rows ^ 1] = True
            far = d.masked_fill(same, -torch.inf).argmax(1)
            near = d.masked_fill(same | (d <= to_positive[:, None]), torch.inf).min(1)
            chosen = torch.where(near.values.isinf(), far, near.indices)
        return (to_positive - d[rows, chosen] + MARGIN).relu().mean()

    return torch_step(loss, z)


def no_bytes(pairs: int, dim: int) -> int:
    """Bound the memory of a linear form from below."""
    return 20 * pairs * dim


def matrix_bytes(pairs: int, dim: int) -> int:
    """Estimate a few matrices of all views against all views."""
    return 4 * 4 * (2 * pairs) ** 2


def broadcast_bytes(pairs: int, dim: int) -> int:
    """Estimate all pairs of views, times the dimension."""
    return 8 * (2 * pairs) ** 2 * dim


def triplet_bytes(pairs: int, dim: int) -> int:
    """Estimate each positive pair against all negative pairs."""
    return 16 * (2 * pairs) ** 3


# name: (make(z, block) -> step, the package it needs, a low guess of its memory)
CONTENDERS = {
    "nt_xent dense": (lambda z, block: nt_xent(z, None), "jax", matrix_bytes),
    "nt_xent blockwise": (nt_xent, "jax", no_bytes),
    "nt_xent by config": (nt_xent_by_config, "jax", no_bytes),
    "optax ntxent": (lambda z, block: optax_ntxent(z), "optax", broadcast_bytes),
    "torch NT-Xent by hand": (lambda z, block: torch_ntxent(z), "torch", matrix_bytes),
    "lightly NTXentLoss": (lambda z, block: lightly_ntxent(z), "lightly", matrix_bytes),
    "pytorch-metric-learning NTXentLoss": (
        lambda z, block: metric_learning_ntxent(z),
        "pytorch_metric_learning",
        triplet_bytes,
    ),
    "symmetric_info_nce dense": (lambda z, block: clip(z, None), "jax", matrix_bytes),
    "symmetric_info_nce blockwise": (clip, "jax", no_bytes),
    "open_clip ClipLoss": (lambda z, block: open_clip(z), "open_clip", matrix_bytes),
    "memeff MemoryEfficientCLIPLoss": (lambda z, block: memeff_clip(z), "memeff", no_bytes),
    "siglip dense": (lambda z, block: siglip(z, None), "jax", matrix_bytes),
    "siglip blockwise": (siglip, "jax", no_bytes),
    "open_clip SigLipLoss": (lambda z, block: open_clip_siglip(z), "open_clip", matrix_bytes),
    "siglip-kernel": (lambda z, block: siglip_kernel(z), "siglip_kernel", no_bytes),
    "sup_con dense": (lambda z, block: sup_con(z, None), "jax", matrix_bytes),
    "sup_con blockwise": (sup_con, "jax", no_bytes),
    "pytorch-metric-learning SupConLoss": (
        lambda z, block: metric_learning_supcon(z),
        "pytorch_metric_learning",
        matrix_bytes,
    ),
    "batch_semi_hard_triplet": (lambda z, block: semi_hard(z), "jax", matrix_bytes),
    "torch semi-hard by hand": (lambda z, block: torch_semi_hard(z), "torch", matrix_bytes),
}
FAMILIES = {  # the contenders that compute the same number
    "NT-Xent": ("nt_xent", "optax", "torch NT-Xent", "lightly", "pytorch-metric-learning NTXent"),
    "CLIP": ("symmetric_info_nce", "open_clip ClipLoss", "memeff"),
    "SigLIP": ("siglip", "open_clip SigLipLoss"),
    "SupCon": ("sup_con", "pytorch-metric-learning SupCon"),
    "semi-hard triplet": ("batch_semi_hard", "torch semi-hard"),
}


def family(name: str) -> str:
    return next(key for key, starts in FAMILIES.items() if name.startswith(starts))


def why_skip(name: str, pairs: int, args: argparse.Namespace) -> str | None:
    _, package, guess = CONTENDERS[name]
    if not name.startswith(tuple(args.only)):
        return NOT_ASKED
    if importlib.util.find_spec(package) is None:
        return f"{package} is not installed"
    if package in NEED_CUDA and not has_cuda():
        return f"{package} needs a GPU"
    if guess(pairs, args.dim) > args.memory_gb * 2**30:
        return f"would need about {guess(pairs, args.dim) / 2**30:.0f} GiB"
    return None


def has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def times(names: list[str], pairs: int, args: argparse.Namespace) -> dict[str, list[float]]:
    """Time each round, once the values of each family were found equal."""
    z = embeddings(pairs, args.dim, args.dtype)
    tolerance = 1e-4 if args.dtype == "float32" else 1e-2
    steps = {name: CONTENDERS[name][0](z, args.block_size) for name in names}
    values = {name: step() for name, step in steps.items()}
    for name, value in values.items():
        first = next(v for other, v in values.items() if family(other) == family(name))
        if abs(value - first) > tolerance * abs(first):
            raise SystemExit(f"{name} computes {value}, and another of its family {first}")
    return harness.take_turns(steps, args.rounds)


def grown_megabytes(name: str, pairs: int, args: argparse.Namespace) -> float:
    """Measure how far the resident set of a new process rises in its first call."""
    sizes = ("--pairs", pairs, "--dim", args.dim, "--block-size", args.block_size)
    sizes += ("--dtype", args.dtype)
    return float(harness.in_own_process("benchmarks.losses", "--measure", name, *sizes))


def measure_memory(name: str, args: argparse.Namespace) -> None:
    make, package, _ = CONTENDERS[name]
    make(embeddings(2, args.dim, args.dtype), 2)()  # libraries load and thread pools start
    step = make(embeddings(args.pairs[0], args.dim, args.dtype), args.block_size)
    start = time.perf_counter()
    megabytes = harness.risen_megabytes(step, "jax" if package in ("jax", "optax") else "torch")
    print(f"{time.perf_counter() - start:.1f} s")
    print(megabytes)


def circumstances(args: argparse.Namespace) -> dict:
    return {
        **harness.circumstances(PACKAGES),
        "protocol": {
            "what": f"mean loss and its gradient to {args.dtype} unit embeddings [pairs, 2, dim]",
            "dim": args.dim,
            "temperature": TEMPERATURE,
            "block_size": args.block_size,
            "rounds": args.rounds,
            "seconds": "median of the rounds, contenders in turn in one process",
            "megabytes": "rise of the resident set, or a GPU's peak, in a process of its own",
        },
    }


def row(name: str, pairs: int, seconds: list[float], args: argparse.Namespace) -> dict:
    return {
        "family": family(name),
        "name": name,
        "pairs": pairs,
        **harness.timing(seconds),
        "megabytes": round(grown_megabytes(name, pairs, args), 1),
    }


def run(args: argparse.Namespace) -> dict:
    rows, ceilings = [], {}
    for pairs in args.pairs:
        skipped = {name: why_skip(name, pairs, args) for name in CONTENDERS}
        rows += [
            {"name": name, "pairs": pairs, "skipped": why}
            for name, why in skipped.items()
            if why and why != NOT_ASKED
        ]
        names = [name for name, why in skipped.items() if not why]
        ceilings[str(pairs)] = round(harness.matmul_gigaflops(), 1)
        for name, seconds in times(names, pairs, args).items():
            rows.append(row(name, pairs, seconds, args))
            print("{name:36s} {pairs:7d} {seconds:9.4f} s {megabytes:9.1f} MB".format(**rows[-1]))
    return {**circumstances(args), "matmul_gigaflops": ceilings, "rows": rows}


def plot(result: dict, path: Path) -> None:
    """Plot time and memory against the number of pairs, a column for each family."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    done = [row for row in result["rows"] if "seconds" in row]
    families = [name for name in FAMILIES if any(row["family"] == name for row in done)]
    size = (3.2 * len(families), 6)
    figure, axes = pyplot.subplots(
        2, len(families), figsize=size, sharex=True, sharey="row", squeeze=False
    )
    for column, name in zip(axes.T, families, strict=True):
        for axis, quantity in zip(column, ("seconds", "megabytes"), strict=True):
            draw_family(axis, [row for row in done if row["family"] == name], quantity)
        column[0].set_title(name)
        column[1].set_xlabel("pairs")
        column[0].legend(fontsize=6.5, loc="upper left", frameon=False)
    axes[0, 0].set_ylabel("seconds")
    axes[1, 0].set_ylabel("megabytes")
    axes[0, 0].set_ylim(top=1e5)  # room for the names
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


COLORS = {  # by who made it, the same in every panel: ours in blues
    **{"by config": "#000000", "blockwise": "#0072B2"},
    **{"dense": "#56B4E9", "batch_semi_hard": "#56B4E9"},
    **{"by hand": "#D55E00", "optax": "#009E73", "open_clip": "#E69F00"},
    **{"lightly": "#CC79A7", "pytorch-metric-learning": "#882255"},
    **{"memeff": "#009E73", "siglip-kernel": "#009E73"},
}


def draw_family(axis: Any, rows: list[dict], quantity: str) -> None:
    for name in dict.fromkeys(row["name"] for row in rows):
        of = [row for row in rows if row["name"] == name and row[quantity] > 0]
        color = next(color for part, color in COLORS.items() if part in name)
        x, y = [r["pairs"] for r in of], [r[quantity] for r in of]
        axis.plot(x, y, "o-", ms=4, color=color, label=name)
    axis.set(xscale="log", yscale="log")
    sizes = sorted({row["pairs"] for row in rows})
    axis.set_xticks(sizes, [f"{n:,}" for n in sizes], fontsize=7)
    axis.minorticks_off()
    axis.grid(alpha=0.3)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, nargs="+", default=[512, 2048, 8192, 32768, 65536])
    parser.add_argument("--only", nargs="+", default=[""], help="contenders by how they begin")
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--block-size", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--memory-gb", type=float, default=8.0, help="skip what needs more")
    parser.add_argument("--out", type=Path, default=harness.RESULTS / "losses_cpu.json")
    parser.add_argument("--measure", choices=CONTENDERS, help=argparse.SUPPRESS)
    return harness.parse(parser, pairs=[64], rounds=1)


def main() -> None:
    args = parse()
    if importlib.util.find_spec("torch") is not None:
        harness.import_torch()
    if args.measure:
        return measure_memory(args.measure, args)
    result = run(args)
    harness.write(args.out, result)
    if importlib.util.find_spec("matplotlib") is not None:
        plot(result, args.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
