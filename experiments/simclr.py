"""Train an image encoder with SimCLR, score it, draw it.

python -m experiments.simclr --config configs/digits.py
python -m experiments.simclr --config configs/cifar.py:cpu --config.data.data_dir=DIR --workdir DIR

--config FILE[:preset]         a page of configs/
--config.section.key=value     change one value of it
--workdir DIR                  where the run lives (default: runs/NAME); the same command resumes it
"""

import functools

import jax
from ml_collections import ConfigDict

from contrastive_jax import augment, losses, parallel
from contrastive_jax.encoders import heads, resnet
from contrastive_jax.objectives import simclr
from contrastive_jax.parallel import Mesh
from contrastive_jax.types import Objective
from experiments import launch
from experiments.command_line import as_kwargs, keywords

KINDS = ("nt_xent", "sup_con")


def pair_loss(kind: str = "nt_xent", temperature: float = 0.5, *, mesh: Mesh):
    """The loss of the config's `loss`: (z_BVD, label_B) -> [B,V], keys gathered over the mesh.

    Args:
      kind: "nt_xent" (SimCLR) or "sup_con" (supervised contrastive, which reads the labels).
      temperature: of the softmax, positive.
      mesh: the devices.
    """
    if kind not in KINDS:
        raise ValueError(f"loss kind is {kind!r}; give one of {KINDS}")
    if temperature <= 0:
        raise ValueError(f"loss temperature is {temperature}; give a positive number")
    if kind == "sup_con":
        loss = functools.partial(losses.sup_con, temperature=temperature)
        return parallel.shard_loss(loss, mesh, n_sharded=2)
    loss = functools.partial(losses.nt_xent, temperature=temperature)
    sharded = parallel.shard_loss(loss, mesh)

    def ignoring_labels(z_BVD: jax.Array, label_B: jax.Array) -> jax.Array:
        del label_B
        return sharded(z_BVD)

    return ignoring_labels


def build(config: ConfigDict, mesh: Mesh, n_classes: int) -> Objective:
    """The last place that sees a ConfigDict."""
    return simclr.make(
        resnet.make(**as_kwargs(config, "encoder")),
        heads.make(**as_kwargs(config, "head")),
        views(config),
        pair_loss(**as_kwargs(config, "loss"), mesh=mesh),
        n_classes=n_classes,
        temperature=config.loss.temperature,
    )


def views(config: ConfigDict) -> augment.Views:
    """The augmentations of the config."""
    return augment.make_views(**as_kwargs(config, "augment"))


EXPERIMENT = launch.Experiment(
    usage=__doc__ or "",
    sections={
        "augment": ("size", *augment.Augmentation._fields),
        "encoder": keywords(resnet.make),
        "head": keywords(heads.make),
        "loss": keywords(pair_loss),
    },
    build=build,
    views=views,
)

if __name__ == "__main__":
    launch.main(EXPERIMENT)
