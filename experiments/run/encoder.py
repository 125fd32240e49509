"""The section `encoder` of a config: an encoder of the library, or one's own function."""

from contrastive_jax import encoders
from contrastive_jax.errors import ConfigError
from experiments.run.sections import Choice, Key, Keys, takes


def _of_function(name: object) -> Keys | None:
    """The keys of "module:function"; its signature has them."""
    if not isinstance(name, str) or ":" not in name:
        return None
    try:
        return takes(encoders.function(name))
    except ValueError as error:
        raise ConfigError(f"{error}.") from error


ENCODER = Choice(
    key="name",
    default="resnet",
    common={"init": Key("", str)},
    options={name: takes(make) for name, make in encoders.ENCODERS.items()},
    further=_of_function,
)
