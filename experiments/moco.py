"""Train an image encoder with MoCo, score it, draw it.

python -m experiments.moco --config configs/ablations/moco.py:cpu --workdir DIR

--config FILE[:preset]         a config with a section `moco` in place of `loss`
--config.section.key=value     change one value of it; None gives a key its default back
--workdir DIR                  where the run lives (default: runs/NAME); the same command resumes it
--strict_resume                a damaged newest checkpoint is an error, not skipped
--coordinator HOST:PORT --num_processes N --process_id I     one of N processes that train jointly;
                               on Slurm and Cloud TPU they find each other
"""

import sys

from ml_collections import ConfigDict

from contrastive_jax import encoders
from contrastive_jax.encoders import heads
from contrastive_jax.objectives import moco
from contrastive_jax.types import Objective, RunInfo
from experiments.run.build import Experiment
from experiments.run.encoder import ENCODER
from experiments.run.sections import as_kwargs, takes
from experiments.scoring import images, kinds


def build(config: ConfigDict, info: RunInfo) -> Objective:
    """Make the objective of a config."""
    if config.moco.queue_size < config.data.batch_size:
        raise ValueError(
            f"moco.queue_size is {config.moco.queue_size} and data.batch_size "
            f"{config.data.batch_size}; the queue must hold a batch"
        )
    return moco.make(
        encoders.make(**as_kwargs(config, "encoder")),
        heads.make(**as_kwargs(config, "head")),
        images.views(config),
        n_classes=info.n_classes,
        chunk_size=info.chunk_size,
        **as_kwargs(config, "moco"),
    )


EXPERIMENT = Experiment(
    name="moco",
    usage=__doc__ or "",
    sections={
        "encoder": ENCODER,
        "head": takes(heads.make),
        "moco": takes(moco.make, without=("encoder", "head", "views", "n_classes", "chunk_size")),
    },
    build=build,
    kind=kinds.IMAGES,
)

if __name__ == "__main__":
    from experiments.run import command_line, lifecycle, multihost  # they import every method

    with command_line.exit_codes():
        multihost.leave(lifecycle.main(EXPERIMENT, sys.argv))
