"""Train in PyTorch, as contenders of `train_step.py`: a plain loop, and lightly's with its loader.

Both: the network of torch_resnet.py, channels-last, fused SGD with momentum. On a GPU the network
and the views are compiled by torch.compile, and bfloat16 means autocast.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from benchmarks.peers import torch_resnet, torch_views
from benchmarks.shared.work import Contender

PLAIN = (
    "gather from uint8 on the device, two views in batched tensor operations, encoder, head, "
    "NT-Xent, gradients, SGD"
)
LIGHTLY = (
    "PIL images through lightly's SimCLRTransform in a DataLoader, encoder, head, lightly's "
    "NTXentLoss, gradients, SGD"
)


def plain(config: Any, images: np.ndarray) -> Contender:
    """Make the contender that loops over tensors that are already on the device."""
    batch = plain_batches(config, images)
    loss = functools.partial(nt_xent, temperature=config.loss.temperature)
    parts = functools.partial(_parts, batch, source="gather and augment")
    return _contender(config, plain_head(config), batch, loss, parts, PLAIN)


def plain_head(config: Any) -> torch.nn.Module:
    return torch_resnet.head(torch_resnet.features(**config.encoder), **config.head)


def plain_batches(config: Any, images: np.ndarray) -> Callable[[], torch.Tensor]:
    """Make the function that returns the next batch: the first views, then the second ones."""
    device, augment = _device(), config.augment.to_dict()
    resident = on_device(images)
    views = _compiled(functools.partial(torch_views.batched, augment=augment))
    order = _order(len(images), config.data.batch_size, device)
    return lambda: views(resident[next(order)].repeat(2, 1, 1, 1))


def on_device(images: np.ndarray) -> torch.Tensor:
    """Move images [N,H,W,C] to the device as uint8 [N,C,H,W]."""
    return torch.from_numpy(np.asarray(images)).permute(0, 3, 1, 2).contiguous().to(_device())


def lightly(config: Any, images: np.ndarray, workers: int) -> Contender:
    """Make the contender that follows lightly's examples, with its transform and loss.

    The head is that of the plain loop: lightly's normalizes the output too, which the others do
    not.
    """
    from lightly.loss import NTXentLoss

    augment, device = config.augment.to_dict(), _device()
    loader = torch_views.loader(images, augment, "lightly", config.data.batch_size, workers)
    head = plain_head(config)
    criterion = NTXentLoss(temperature=config.loss.temperature)
    batches = _forever(loader)

    def batch() -> torch.Tensor:
        return torch.cat(next(batches)).to(device, non_blocking=True)

    def loss(z: torch.Tensor) -> torch.Tensor:
        return criterion(*z.chunk(2))

    def parts(*_: Any) -> dict[str, Any]:
        """Time the loader alone: the network is that of the plain loop."""
        return {"loader": batch}

    return _contender(config, head, batch, loss, parts, LIGHTLY)


def _contender(
    config: Any, head: torch.nn.Module, batch: Any, loss: Any, parts: Any, includes: str
) -> Contender:
    network = build(config, head)
    optimizer = network.optimizer

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(network.forward(batch())).backward()
        optimizer.step()

    parts = functools.partial(parts, network.forward, loss, optimizer)
    return Contender(step, wait, parts, network.parameters, includes)


class Network(NamedTuple):
    """An encoder with its head, on the device, and what trains both."""

    encoder: torch.nn.Module
    forward: Callable[[torch.Tensor], torch.Tensor]  # views [N,C,H,W] to float32 embeddings
    optimizer: torch.optim.Optimizer
    parameters: dict[str, int]  # of "encoder" and "head"


def build(config: Any, head: torch.nn.Module) -> Network:
    """Make the encoder of a config with a head, channels-last, and its fused SGD."""
    device, encoder = _device(), torch_resnet.encoder(**config.encoder)
    count = {"encoder": torch_resnet.parameters(encoder), "head": torch_resnet.parameters(head)}
    network = torch.nn.Sequential(encoder, head).to(device, memory_format=torch.channels_last)
    settings = config.optimizer
    decayed = lambda p: settings.decay_norm_and_bias or p.ndim > 1  # noqa: E731
    groups = [
        {"params": [p for p in network.parameters() if decayed(p) is decays], "weight_decay": decay}
        for decays, decay in ((True, settings.weight_decay), (False, 0.0))
    ]
    optimizer = torch.optim.SGD(groups, settings.learning_rate, settings.momentum, fused=True)
    compiled = _compiled(network)

    def forward(x: torch.Tensor) -> torch.Tensor:
        x = x.to(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, config.encoder.dtype == "bfloat16"):
            return compiled(x).float()

    return Network(encoder, forward, optimizer, count)


def _parts(batch: Any, forward: Any, loss: Any, optimizer: Any, source: str) -> dict[str, Any]:
    """Make each part of the step alone, on the output of the part before it."""
    x = batch()
    z = forward(x).detach().requires_grad_()

    def backward() -> None:
        optimizer.zero_grad(set_to_none=True)
        forward(x).backward(z.detach())

    parts = {
        source: batch,
        "forward": lambda: forward(x),
        "forward and backward": backward,
        "loss": lambda: torch.autograd.grad(loss(z), z),
        "optimizer": optimizer.step,
    }
    return {name: functools.partial(_finish, part) for name, part in parts.items()}


def nt_xent(z: torch.Tensor, temperature: float) -> torch.Tensor:
    """Compute NT-Xent of the first views followed by the second ones."""
    z = functional.normalize(z, dim=1)
    logits = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
    n = len(z) // 2
    return functional.cross_entropy(logits, torch.arange(2 * n, device=z.device).roll(n))


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _compiled(function: Any) -> Any:
    return torch.compile(function) if torch.cuda.is_available() else function


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _finish(part: Any) -> None:
    part()
    wait()


def _order(n: int, batch_size: int, device: torch.device) -> Iterator[torch.Tensor]:
    while True:
        shuffled = torch.randperm(n, device=device)
        yield from shuffled[: n - n % batch_size].split(batch_size)


def _forever(loader: Any) -> Iterator[list[torch.Tensor]]:
    while True:
        yield from loader
