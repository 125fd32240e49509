"""Encoders by name: images to features (`resnet`, `vit`), features to embeddings (`heads`).

A new encoder is a function `make(...)` that returns a flax module, which is called as
`encoder(x_BHWC, train=...)` and returns float32 features [B,F]. It is a line of `ENCODERS`, or in a
module of one's own, and then named "module:function".
"""

import difflib
import importlib
import inspect
from collections.abc import Callable
from typing import Any

from contrastive_jax.encoders import resnet, vit
from contrastive_jax.encoders.pretrained import Pretrained

ENCODERS: dict[str, Callable[..., Any]] = {
    "resnet": resnet.make,
    "vit": vit.make,
}


def make(name: str = "resnet", init: str = "", **settings: Any) -> Any:
    """Make an encoder from images [B,H,W,C] to features [B,F], by its name.

    Args:
      name: one of `ENCODERS`, or "module:function" for one's own.
      init: a .safetensors or .pth file with the names of torchvision or timm, whose tensors are the
        first variables of an encoder of `ENCODERS`; see `torch_names.from_torch`.
      settings: the keywords of that encoder, such as those of `resnet.make`.

    Returns:
      A flax module, or with `init` a `Pretrained`, which has its `init` and `apply`.

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
    if init and name not in ENCODERS:
        raise ValueError(
            f"encoder init is {init!r}, but its tensors have names for {', '.join(ENCODERS)} only; "
            f"read the weights of {name!r} in its own initializers"
        )
    encoder = function(name)(**settings)
    return Pretrained(encoder, init) if init else encoder


def function(name: str) -> Callable[..., Any]:
    """Find the function that makes an encoder: of `ENCODERS`, or "module:function".

    A module is imported, so its code runs: give only names that you trust.

    Raises:
      ValueError: an unknown name, or a module that is not found or lacks the function.

    >>> function("contrastive_jax.encoders.vit:make") is vit.make
    True
    """
    if name in ENCODERS:
        return ENCODERS[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ValueError(
            f"encoder name is {name!r}; give one of {', '.join(ENCODERS)}, or 'module:function'"
        )
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ModuleNotFoundError, AttributeError, ValueError) as error:
        raise ValueError(
            f"encoder name is {name!r}: {error}; give a module that Python finds and a function "
            "of it"
        ) from error


def keywords(name: str = "resnet") -> tuple[str, ...]:
    """List the settings of an encoder, besides its name and `init`.

    Raises:
      ValueError: an unknown name.

    >>> keywords("resnet")[:3]
    ('depth', 'stem', 'width')
    """
    return tuple(inspect.signature(function(name)).parameters)


def resolved(name: str = "resnet", init: str = "", **settings: Any) -> dict[str, Any]:
    """Write out the settings of an encoder with its name and all defaults, without `init`.

    What `make` takes, so that an encoder can be made again when a default has changed.

    Raises:
      ValueError: as `make`.

    >>> resolved(depth=50)["name"], resolved(depth=50)["stem"]
    ('resnet', 'cifar')
    """
    make(name, init, **settings)  # refuses what is unknown
    bound = inspect.signature(function(name)).bind(**settings)
    bound.apply_defaults()
    return {"name": name, **bound.arguments}


def _nearest(key: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"give any of {', '.join(known)}"
