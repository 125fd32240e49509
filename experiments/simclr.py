"""Train an image encoder with SimCLR, score it, draw it.

python -m experiments.simclr --config configs/digits.py
python -m experiments.simclr --config configs/cifar.py:cpu --config.data.data_dir=DIR --workdir DIR

--config FILE[:preset]         a page of configs/
--config.section.key=value     change one value of it
--workdir DIR                  where the run lives (default: runs/NAME); the same command resumes it
--strict_resume                a damaged newest checkpoint is an error, not passed over
--coordinator HOST:PORT --num_processes N --process_id I     one of N processes that train together;
                               on Slurm and Cloud TPU they find each other
"""

from ml_collections import ConfigDict

from contrastive_jax import augment
from contrastive_jax.encoders import heads, resnet
from contrastive_jax.objectives import simclr
from contrastive_jax.parallel import Mesh
from contrastive_jax.types import Objective
from experiments.run import lifecycle
from experiments.run.command_line import as_kwargs, keywords
from experiments.run.losses import pair_loss


def build(config: ConfigDict, mesh: Mesh, n_classes: int) -> Objective:
    """The last place that sees a ConfigDict."""
    if config.loss.kind == "cross_entropy" and config.head.output_dim < n_classes:
        raise ValueError(
            f"head.output_dim is {config.head.output_dim}, but with loss.kind cross_entropy the "
            f"head gives class logits; set it to {n_classes}"
        )
    loss = as_kwargs(config, "loss")
    views_apart = loss.pop("views_apart", False)
    return simclr.make(
        resnet.make(**as_kwargs(config, "encoder")),
        heads.make(**as_kwargs(config, "head")),
        views(config),
        pair_loss(**loss, mesh=mesh),
        n_classes=n_classes,
        temperature=config.loss.temperature,
        views_apart=views_apart,
    )


def views(config: ConfigDict) -> augment.Views:
    """The augmentations of the config."""
    return augment.make_views(**as_kwargs(config, "augment"))


EXPERIMENT = lifecycle.Experiment(
    usage=__doc__ or "",
    sections={
        "augment": ("size", *augment.Augmentation._fields),
        "encoder": keywords(resnet.make),
        "head": keywords(heads.make),
        "loss": (*keywords(pair_loss), "views_apart"),
    },
    build=build,
    views=views,
)

if __name__ == "__main__":
    lifecycle.main(EXPERIMENT)
