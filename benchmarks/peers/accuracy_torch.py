"""Train the PyTorch peer of `time_to_accuracy.py`: the plain loop of `simclr_torch.py`.

Same images, network, first filters, loss, optimizer, decay and cosine; the first matrices of the
head and the order of the jitter's adjustments are PyTorch's and torch_views.py's.
"""

import functools
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.peers import simclr_torch
from contrastive_jax.data import Dataset

BATCH = 1000  # of images whose features are taken


def train(
    config: Any, dataset: Dataset, steps: int, evaluate: Callable[[Callable[..., Any], int], None]
) -> tuple[float, float]:
    """Train for so many steps; `evaluate(features, step)` comes after each.

    Returns:
      When the second step started, and the seconds of the first, in which a GPU compiles.
    """
    torch.manual_seed(config.train.seed)
    network = simclr_torch.build(config, simclr_torch.plain_head(config))
    batch = simclr_torch.plain_batches(config, dataset.train["image"])
    loss = functools.partial(simclr_torch.nt_xent, temperature=config.loss.temperature)
    cosine = lambda step: 0.5 * (1 + math.cos(math.pi * step / steps))  # noqa: E731
    schedule = torch.optim.lr_scheduler.LambdaLR(network.optimizer, cosine)
    features = functools.partial(features_of, network.encoder)
    start = started = time.perf_counter()
    for step in range(1, steps + 1):
        network.optimizer.zero_grad(set_to_none=True)
        loss(network.forward(batch())).backward()
        network.optimizer.step()
        schedule.step()
        if step == 1 and torch.cuda.is_available():  # it was compiled in that step
            simclr_torch.wait()
            started = time.perf_counter()
        evaluate(features, step)
    return started, started - start


@torch.inference_mode()
def features_of(encoder: torch.nn.Module, image: np.ndarray) -> np.ndarray:
    """Compute pooled features [N,F] of plain images [N,H,W,C] uint8, by the running statistics."""
    encoder.eval()
    found = []
    for part in simclr_torch.on_device(image).split(BATCH):
        x = (part.float() / 255).to(memory_format=torch.channels_last)
        found.append(encoder(x).cpu().numpy())
    encoder.train()
    return np.concatenate(found)
