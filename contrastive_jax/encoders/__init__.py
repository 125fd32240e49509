"""Encoders by name: images to features (`resnet`), features to embeddings (`heads`).

A new encoder is a module with a function `make(...)` that returns a flax module, which is called
as `encoder(x_BHWC, train=...)` and returns float32 features [B,F], and a line of `ENCODERS`.
"""

import difflib
import inspect
from collections.abc import Callable
from typing import Any

import flax.linen as nn

from contrastive_jax.encoders import resnet

ENCODERS: dict[str, Callable[..., nn.Module]] = {
    "resnet": resnet.make,
}


def make(name: str = "resnet", **settings: Any) -> nn.Module:
    """Make an encoder from images [B,H,W,C] to features [B,F], by its name.

    Args:
      name: one of `ENCODERS`.
      settings: the keywords of that encoder, such as those of `resnet.make`.

    Returns:
      A flax module.

    Raises:
      ValueError: an unknown name or keyword, or a value that the encoder refuses.

    >>> type(make("resnet", depth=10, width=0.25)).__name__
    'ResNet'
    >>> make("resnet", dept=18)
    Traceback (most recent call last):
    ValueError: encoder 'resnet' has no setting 'dept'; did you mean 'depth'?
    """
    known = keywords(name)
    for key in settings:
        if key not in known:
            raise ValueError(f"encoder {name!r} has no setting {key!r}; {_nearest(key, known)}")
    return ENCODERS[name](**settings)


def keywords(name: str = "resnet") -> tuple[str, ...]:
    """List the settings of an encoder, besides its name.

    Raises:
      ValueError: an unknown name.

    >>> keywords("resnet")
    ('depth', 'stem', 'width', 'stages', 'dtype', 'norm_groups')
    """
    if name not in ENCODERS:
        raise ValueError(f"encoder name is {name!r}; give one of {', '.join(ENCODERS)}")
    return tuple(inspect.signature(ENCODERS[name]).parameters)


def resolved(name: str = "resnet", **settings: Any) -> dict[str, Any]:
    """Write out the settings of an encoder with its name and all defaults.

    What `make` takes, so that an encoder can be made again when a default has changed.

    Raises:
      ValueError: as `make`.

    >>> resolved(depth=50)["name"], resolved(depth=50)["stem"]
    ('resnet', 'cifar')
    """
    make(name, **settings)  # refuses what is unknown
    bound = inspect.signature(ENCODERS[name]).bind(**settings)
    bound.apply_defaults()
    return {"name": name, **bound.arguments}


def _nearest(key: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"give any of {', '.join(known)}"
