"""The methods by name: the one table. A new method is its two files and its line here."""

# ruff: noqa: F401  the table is made of what is imported

from collections.abc import Mapping

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
