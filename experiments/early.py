"""The section `early` of a config: other settings for the first part of the training.

    config.early = ConfigDict({"until": 0.5, "size": 24, "crop_scale": (0.4, 1.0)})

`until` is where it ends, as a fraction of the training; every other key is one of `augment` or of
the section of the loss, and stands in its place until then.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from contrastive_jax.augment import Augmentation, Views
from contrastive_jax.errors import ConfigError
from contrastive_jax.types import Early, Objective
from experiments.command_line import Sections

VIEWS = ("size", *Augmentation._fields)  # the keys of `augment`


def keys(sections: Sections) -> tuple[str, ...]:
    """The keys of `early`, where these sections may differ early on.

    >>> keys({"augment": ("size",), "loss": ("kind", "temperature")})
    ('until', 'size', 'kind', 'temperature')
    """
    return ("until", *(key for names in sections.values() for key in names))


def settings(config: ConfigDict) -> ConfigDict | None:
    """The config of the first part of the training, None where it is that of all.

    Raises:
      ConfigError: `until` is no fraction, or nothing is to be different.
    """
    if "early" not in config:
        return None
    changed = config.early.to_dict()
    until = changed.pop("until", None)
    if isinstance(until, bool) or not isinstance(until, int | float) or not 0 <= until < 1:
        raise ConfigError(f"early.until is {until}; give a part of the training, from 0 below 1.")
    if not changed:
        raise ConfigError("early changes nothing; add size, temperature or another key.")
    if until == 0:
        return None
    first = config.copy_and_resolve_references()
    with first.unlocked():
        del first["early"]
        for key, value in changed.items():
            try:
                first["augment" if key in VIEWS else _loss(config)][key] = value
            except TypeError as error:
                raise ConfigError(f"early.{key}: {error}") from error
    return first


def build(one: Callable[[ConfigDict], Objective], config: ConfigDict, steps: int) -> Objective:
    """The objective that `one` makes of a config, with another loss early on if that says so."""
    late, first = one(config), settings(config)
    if first is None:
        return late
    return late._replace(early=Early(one(first).loss, round(config.early.until * steps)))


def check_streamed(views_of: Callable[[ConfigDict], Views], config: ConfigDict) -> None:
    """Refuse crops that differ early on where the host cuts them.

    Raises:
      ConfigError: they do.
    """
    first = settings(config)
    if first is not None and views_of(first).crops != views_of(config).crops:
        raise ConfigError(
            "early changes the crops, which are cut on the host where images are streamed.\n"
            "Set data.streaming=False, or leave size, crop_* and n_views out of early."
        )


def _loss(config: ConfigDict) -> str:
    """The section that says which loss: that of SimCLR, or of MoCo."""
    return "loss" if "loss" in config else "moco"
