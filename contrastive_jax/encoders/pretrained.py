"""An encoder that starts from the weights of a file."""

import os
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from contrastive_jax.encoders import torch_files, torch_names
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
    """Read the tensors of a .safetensors file, or of a .pth or .pt file of torch.save.

    Nothing in a file is run, see `torch_files`.

    Raises:
      CheckpointError: no such file, another kind of file, or a broken one.
    """
    import safetensors
    import safetensors.numpy

    path = os.path.expanduser(file)
    if not os.path.isfile(path):
        raise CheckpointError("There is no such file.")
    if not path.endswith((".safetensors", ".pth", ".pt")):
        raise CheckpointError("Give a .safetensors, .pth or .pt file.")
    try:
        load = safetensors.numpy.load_file if path.endswith(".safetensors") else torch_files.read
        return load(path)
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise CheckpointError(f"It cannot be read: {type(error).__name__}: {error}.") from error
