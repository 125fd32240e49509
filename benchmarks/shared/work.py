"""Describe the work that `train_step.py` and `augment.py` give every contender."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.shared.harness import ROOT

PRESETS = {"resnet18": "full", "cpu": "cpu", "smoke": "smoke"}  # of configs/cifar.py
BATCH_SIZES = {"resnet18": 128, "cpu": 256, "smoke": 64}
STEPS = {"resnet18": 2, "cpu": 20, "smoke": 2}  # timed in one turn
WARM_UP = {"resnet18": 1, "cpu": 6, "smoke": 1}  # more than a loader prepares in advance


class Contender(NamedTuple):
    """One step of training, as a function that need not wait for the device, and its parts."""

    step: Callable[[], object]
    wait: Callable[[], object]  # until the device has done what it was given
    parts: Callable[[], dict[str, Callable[[], object]]]  # each waits for its own result
    parameters: dict[str, int]  # of "encoder" and "head"
    includes: str


def config(name: str, batch_size: int | None, dtype: str) -> Any:
    """Read the config of a workload: SimCLR on two views of CIFAR-10."""
    chosen = read_config(f"{ROOT}/configs/cifar.py:{PRESETS[name]}")
    chosen.data.batch_size = batch_size or BATCH_SIZES[name]
    chosen.encoder.dtype = dtype
    return chosen


def read_config(path: str) -> Any:
    """Read FILE[:preset] of SimCLR, with the default of every key that it leaves out."""
    from experiments import simclr
    from experiments.run import command_line, sections

    return sections.complete(command_line.read(path), simclr.EXPERIMENT.all_sections())


def images(data_dir: str | None, limit: int = 50_000) -> tuple[np.ndarray, str]:
    """Load CIFAR-10's training images, uint8 [N,32,32,3], or random ones; and say which."""
    from contrastive_jax import data
    from contrastive_jax.errors import DataError

    folder = data_dir or os.environ.get("TFDS_DATA_DIR")
    try:
        cifar = data.load("tfds", name="cifar10", data_dir=folder, limit_train=limit, batch_size=1)
        return cifar.train["image"], "CIFAR-10"
    except (DataError, ImportError):
        random = np.random.default_rng(0).integers(0, 256, (limit, 32, 32, 3), np.uint8)
        return random, "random uint8"


def save_images(folder: str, data_dir: str | None, limit: int = 50_000) -> tuple[Path, str]:
    """Save the images in a file that every child process can map; and say which they are."""
    array, source = images(data_dir, limit)
    path = Path(folder) / "images.npy"
    np.save(path, array)
    return path, source


def step_flops(chosen: Any) -> float:
    """Count the FLOP of one step in the encoder's and the head's matrix products.

    3 x forward, two views, from the shapes; a multiplication and an addition are two. The stem's
    gradient to the images, which nobody computes, is counted too.
    """
    import jax
    import jax.numpy as jnp

    from contrastive_jax import encoders
    from contrastive_jax.encoders import heads
    from experiments.run.sections import as_kwargs

    encoder = encoders.make(**as_kwargs(chosen, "encoder"))
    head = heads.make(**as_kwargs(chosen, "head"))
    x = jnp.zeros((2, chosen.augment.size, chosen.augment.size, 3))
    h, variables = encoder.init_with_output(jax.random.key(0), x, train=False)
    head_variables = head.init(jax.random.key(1), h, train=False)

    def forward(x: jax.Array) -> jax.Array:
        return head.apply(head_variables, encoder.apply(variables, x, train=False), train=False)

    return 3 * chosen.data.batch_size * _flops(jax.make_jaxpr(forward)(x).jaxpr)


def _flops(jaxpr: Any) -> float:
    """Sum over the convolutions and matrix products of a program and of those that it calls."""
    total = 0.0
    for equation in jaxpr.eqns:
        out = equation.outvars[0].aval
        if equation.primitive.name == "conv_general_dilated":
            total += 2 * out.size * math.prod(equation.invars[1].aval.shape[:-1])
        elif equation.primitive.name == "dot_general":
            total += 2 * out.size * equation.invars[0].aval.shape[-1]
        inner = [getattr(p, "jaxpr", p) for p in equation.params.values()]
        total += sum(_flops(p) for p in inner if hasattr(p, "eqns"))
    return total
