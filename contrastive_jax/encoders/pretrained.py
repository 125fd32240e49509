"""An encoder that starts from the weights of a file."""

import os
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from contrastive_jax.encoders import torch_names
from contrastive_jax.errors import CheckpointError


class Pretrained(NamedTuple):
    """An encoder whose `init` gives the variables of a file."""

    encoder: nn.Module
    file: str

    def init(self, key: Any, x_BHWC: jax.Array, *, train: bool) -> dict[str, Any]:
        """Read the file; the key is not used.

        Raises:
          CheckpointError: no such file, another format, or tensors of another architecture.
        """
        del key, train
        try:
            return torch_names.from_torch(read(self.file), self.encoder, x_BHWC.shape[1:])
        except CheckpointError as error:
            raise CheckpointError(f"encoder.init={self.file}: {error}") from error

    def apply(self, *args: Any, **settings: Any) -> Any:
        """Apply the encoder."""
        return self.encoder.apply(*args, **settings)


def read(file: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read the tensors of a .safetensors file.

    Files of torch.save are pickles, which can run code when they are read: they are refused.

    Raises:
      CheckpointError: no such file, or not one in safetensors.
    """
    import safetensors
    import safetensors.numpy

    path = os.path.expanduser(file)
    if not os.path.isfile(path):
        raise CheckpointError("There is no such file.")
    if not path.endswith(".safetensors"):
        raise CheckpointError(
            "Only .safetensors is read, because a .pth can run code. With torch, convert it:\n"
            "import torch; from safetensors.torch import save_file\n"
            'save_file(torch.load("weights.pth", weights_only=True), "weights.safetensors")'
        )
    try:
        return safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, KeyError, TypeError, OSError) as error:
        raise CheckpointError(f"It cannot be read: {type(error).__name__}: {error}.") from error
