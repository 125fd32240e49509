"""The temperature of a method's loss: a number, or "learned" as CLIP learns it, on a log scale."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from contrastive_jax import losses
from contrastive_jax.types import Params


class Temperature(NamedTuple):
    """A temperature as a config gives it.

    Learned, its parameter is {"log_scale": log(1 / temperature)}, float32 [].
    """

    fixed: float | None  # None when it is learned
    start: float
    minimum: float

    def init(self) -> Params:
        """Make its parameters: none when it is fixed."""
        return {} if self.fixed is not None else {"log_scale": -jnp.log(jnp.float32(self.start))}

    def value(self, params: Params) -> jax.Array | float:
        """Compute the temperature from its parameters."""
        if self.fixed is not None:
            return self.fixed
        return losses.learned_temperature(params["log_scale"], 1.0 / self.minimum)


def make(
    temperature: float | str, start: float = 0.1, minimum: float = 0.01, *, section: str = "loss"
) -> Temperature:
    """Check the temperature of a config.

    Args:
      temperature: a positive number, or "learned".
      start: of a learned one, at least `minimum`.
      minimum: below which a learned one does not fall.
      section: of the config, for messages.

    Raises:
      ValueError: a number out of range, or another word.

    >>> learned = make("learned", start=0.5)
    >>> print(f"{learned.value(learned.init()):.2f}")
    0.50
    """
    if isinstance(temperature, str):
        if temperature != "learned":
            raise ValueError(
                f"{section} temperature is {temperature!r}; give a positive number or 'learned'"
            )
        if not 0 < minimum <= start:
            raise ValueError(
                f"{section} temperature_start is {start} and temperature_min {minimum}; "
                "give a positive minimum and start at it or above"
            )
        return Temperature(None, start, minimum)
    if temperature <= 0:
        raise ValueError(f"{section} temperature is {temperature}; give a positive number")
    return Temperature(temperature, start, minimum)
