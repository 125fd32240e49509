"""Which features of a prepared set hold its images and its labels."""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from contrastive_jax.data.decode import MODES
from contrastive_jax.errors import DataError

_ID = re.compile(r"(.*_)?(id|index)")  # integers that count examples, not classes
_log = logging.getLogger(__name__)


class Features(NamedTuple):
    """The features of a set that are read."""

    image_key: str
    label_key: str | None  # None for a set without labels
    class_names: tuple[str, ...]  # none where the labels are plain integers
    shape: tuple[int | None, int | None, int]
    mode: str  # Pillow's name of the pixels


def choose_features(
    features: Mapping[str, Any], image_key: str | None, label_key: str | None, folder: Path
) -> Features:
    """Choose the image and the label among the features of a set.

    Args:
      features: of tensorflow_datasets, by name.
      image_key, label_key: the wanted ones, or None for "image" and "label" or, without these, the
        only image and the only class, or else the only integer. A set without them has no labels.
      folder: for messages.

    Raises:
      DataError: says which features there are and what is needed.
    """
    image = _image_key(features, image_key, folder)
    label = _label_key(features, label_key, folder)
    shape, dtype = features[image].shape, np.dtype(features[image].np_dtype)
    if dtype not in (np.uint8, np.uint16) or shape[-1] not in MODES:
        raise DataError(
            f"{folder}: feature {image!r} is {dtype} with {shape[-1]} channels\n"
            "Store images of 1 to 4 channels as uint8 or uint16"
        )
    feature: Any = features[label] if label else None
    names = tuple(feature.names) if _n_classes(feature) else ()
    return Features(image, label, names, shape, MODES[shape[-1]])


def _image_key(features: Mapping[str, Any], wanted: str | None, folder: Path) -> str:
    import tensorflow_datasets as tfds

    images = [key for key, feature in features.items() if type(feature) is tfds.features.Image]
    usual = images if len(images) == 1 else ["image"]
    for key in [wanted] if wanted is not None else usual:
        if key in images:
            return key
    needed = f"Set data.image_key to an Image feature: {_or_none(images)}"
    raise DataError(f"{folder} {_lacks('image', wanted)}: it has {_listed(features)}\n{needed}")


def _label_key(features: Mapping[str, Any], wanted: str | None, folder: Path) -> str | None:
    classes = [key for key, feature in features.items() if _n_classes(feature)]
    integers = [key for key, feature in features.items() if _is_integer(feature)]  # classes too
    likely = classes or [key for key in integers if not _ID.fullmatch(key)]
    usual = ["label", *(likely if len(likely) == 1 else [])]
    for key in [wanted] if wanted is not None else usual:
        if key in integers:
            return key
    if wanted is not None or len(classes) > 1:
        needed = f"Set data.label_key to a ClassLabel or an integer feature: {_or_none(likely)}"
        raise DataError(f"{folder} {_lacks('label', wanted)}: it has {_listed(features)}\n{needed}")
    _log.warning(
        "%s is read without labels: of its features %s none is clearly the label. "
        "data.label_key names one", folder, _listed(features),
    )  # fmt: skip
    return None


def _n_classes(feature: Any) -> int | None:
    import tensorflow_datasets as tfds

    return feature.num_classes if isinstance(feature, tfds.features.ClassLabel) else None


def _is_integer(feature: Any) -> bool:
    import tensorflow_datasets as tfds

    scalar = isinstance(feature, tfds.features.Tensor) and feature.shape == ()
    dtype: Any = feature.np_dtype if scalar else object
    return np.issubdtype(dtype, np.integer)


def _lacks(what: str, wanted: str | None) -> str:
    if wanted is None:
        return f"does not show which feature is the {what}"
    return f"has no {what} feature {wanted!r}"


def _or_none(keys: Sequence[str]) -> str:
    return ", ".join(keys) or "there is none in this set"


def _listed(features: Mapping[str, Any]) -> str:
    """List features by name and type, the first dozen of them."""
    listed = []
    for key, feature in features.items():
        kind = type(feature).__name__
        plain = kind in ("Tensor", "Scalar")
        listed.append(f"{key} ({np.dtype(feature.np_dtype) if plain else kind})")
    return ", ".join(listed[:12]) + (", ..." if len(listed) > 12 else "")
