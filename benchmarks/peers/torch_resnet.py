"""Build the same network in PyTorch: a ResNet with basic blocks, and its head.

Same convolutions, norms and shortcuts, so the same number of parameters, which `train_step.py`
checks. Channels-last is for the caller to choose.
"""

import torch
from torch import nn

BLOCKS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
STEM_STRIDES = {"cifar": 1, "stride2": 2}


def convolution(inputs: int, outputs: int, size: int, stride: int) -> nn.Conv2d:
    made = nn.Conv2d(inputs, outputs, size, stride, padding=(size - 1) // 2, bias=False)
    nn.init.kaiming_normal_(made.weight, mode="fan_out")  # as ours is initialized
    return made


class Basic(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = convolution(inputs, outputs, 3, stride)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = convolution(outputs, outputs, 3, 1)
        self.norm2 = nn.BatchNorm2d(outputs)
        nn.init.zeros_(self.norm2.weight)
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            projection = convolution(inputs, outputs, 1, stride)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm1(self.conv1(x)).relu_()
        y = self.norm2(self.conv2(y))
        return (self.shortcut(x) + y).relu_()


def encoder(depth: int, stem: str, width: float, stages: int, **_) -> nn.Sequential:
    """Make an encoder by the keys of a config's `encoder`; its precision is that of autocast."""
    channels = round(64 * width)
    layers = [convolution(3, channels, 3, STEM_STRIDES[stem]), nn.BatchNorm2d(channels), nn.ReLU()]
    inputs = channels
    for stage, count in enumerate(BLOCKS[depth][:stages]):
        outputs = channels * 2**stage
        for i in range(count):
            layers.append(Basic(inputs, outputs, 2 if stage > 0 and i == 0 else 1))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def features(width: float, stages: int, **_) -> int:
    """Count the channels of the pooled features."""
    return round(64 * width) * 2 ** (stages - 1)


def head(inputs: int, hidden_dim: int, output_dim: int, batch_norm: bool, **_) -> nn.Sequential:
    """Make a projection head of two matrices, by the keys of a config's `head`."""
    hidden = [nn.Linear(inputs, hidden_dim, bias=not batch_norm)]
    hidden += [nn.BatchNorm1d(hidden_dim)] if batch_norm else []
    return nn.Sequential(*hidden, nn.ReLU(), nn.Linear(hidden_dim, output_dim))


def parameters(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())
