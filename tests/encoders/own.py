"""An encoder of one's own, as a user writes it."""

import flax.linen as nn


class Mean(nn.Module):
    features: int

    @nn.compact
    def __call__(self, x_BHWC, *, train: bool):
        return nn.Dense(self.features)(x_BHWC.mean(axis=(1, 2)))


def make(features: int = 6) -> nn.Module:
    """Make the encoder."""
    return Mean(features)
