"""The methods by name: the one table. A new method is its two files and a line here."""

from collections.abc import Mapping

from experiments import moco, simclr
from experiments.run.build import Experiment

METHODS: Mapping[str, Experiment] = {
    "simclr": simclr.EXPERIMENT,
    "moco": moco.EXPERIMENT,
}
