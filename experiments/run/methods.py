"""The methods by name: the one table. A new method is its two files and its line here."""

# ruff: noqa: F401  the table is made of what is imported

from collections.abc import Collection, Mapping

from experiments.barlow import EXPERIMENT as barlow
from experiments.byol import EXPERIMENT as byol
from experiments.clip import EXPERIMENT as clip
from experiments.dino import EXPERIMENT as dino
from experiments.lejepa import EXPERIMENT as lejepa
from experiments.moco import EXPERIMENT as moco
from experiments.moco_v3 import EXPERIMENT as moco_v3
from experiments.nnclr import EXPERIMENT as nnclr
from experiments.run.build import Experiment
from experiments.simclr import EXPERIMENT as simclr
from experiments.simsiam import EXPERIMENT as simsiam
from experiments.swav import EXPERIMENT as swav
from experiments.text import EXPERIMENT as text
from experiments.vicreg import EXPERIMENT as vicreg

METHODS: Mapping[str, Experiment] = {
    value.name: value for value in list(globals().values()) if isinstance(value, Experiment)
}


def of_sections(given: Collection[str]) -> Experiment:
    """The method that a config file is of: it has the sections of the file, and few others.

    >>> of_sections({"data", "encoder", "head", "text", "loss"}).name
    'clip'
    """

    def further(experiment: Experiment) -> int:
        return len(experiment.all_sections().keys() - given)

    every = [*METHODS.values()]
    return min([e for e in every if e.all_sections().keys() >= set(given)] or every, key=further)
