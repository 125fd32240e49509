"""The methods by name: the one table. A new method is its two files and its line here."""

# ruff: noqa: F401  the table is made of what is imported

from collections.abc import Mapping

from experiments.clip import EXPERIMENT as clip
from experiments.moco import EXPERIMENT as moco
from experiments.run.build import Experiment
from experiments.simclr import EXPERIMENT as simclr

METHODS: Mapping[str, Experiment] = {
    value.name: value for value in list(globals().values()) if isinstance(value, Experiment)
}
