"""Train an image encoder with MoCo, score it, draw it.

python -m experiments.moco --config configs/ablations/moco.py:cpu --workdir DIR

--config FILE[:preset]         a config with a section `moco` in place of `loss`
--config.section.key=value     change one value of it
--workdir DIR                  where the run lives (default: runs/NAME); the same command resumes it
--strict_resume                a damaged newest checkpoint is an error, not passed over
--coordinator HOST:PORT --num_processes N --process_id I     one of N processes that train together;
                               on Slurm and Cloud TPU they find each other
"""

from ml_collections import ConfigDict

from contrastive_jax.encoders import heads, resnet
from contrastive_jax.objectives import moco
from contrastive_jax.parallel import Mesh
from contrastive_jax.types import Objective
from experiments import simclr
from experiments.run import lifecycle
from experiments.run.command_line import as_kwargs


def build(config: ConfigDict, mesh: Mesh, n_classes: int) -> Objective:
    """The last place that sees a ConfigDict."""
    del mesh  # the queue is on every device, and each query meets it there
    if config.moco.queue_size < config.data.batch_size:
        raise ValueError(
            f"moco.queue_size is {config.moco.queue_size} and data.batch_size "
            f"{config.data.batch_size}; the queue must hold a batch"
        )
    return moco.make(
        resnet.make(**as_kwargs(config, "encoder")),
        heads.make(**as_kwargs(config, "head")),
        simclr.views(config),
        n_classes=n_classes,
        **as_kwargs(config, "moco"),
    )


EXPERIMENT = lifecycle.Experiment(
    usage=__doc__ or "",
    sections={
        **{name: simclr.EXPERIMENT.sections[name] for name in ("augment", "encoder", "head")},
        "moco": ("temperature", "queue_size", "momentum"),
    },
    build=build,
    views=simclr.views,
)

if __name__ == "__main__":
    lifecycle.main(EXPERIMENT)
