"""Train an image encoder with MoCo, score it, draw it.

python -m experiments.moco --config configs/ablations/moco.py:cpu --workdir DIR
"""

from ml_collections import ConfigDict

from contrastive_jax import encoders
from contrastive_jax.encoders import heads
from contrastive_jax.objectives import moco
from contrastive_jax.types import Objective, RunInfo
from experiments.run import image_method
from experiments.run.build import Experiment
from experiments.run.encoder import ENCODER
from experiments.run.sections import as_kwargs, takes
from experiments.scoring import kinds


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
        image_method.one_size_of_views(config, "moco"),
        n_classes=info.n_classes,
        chunk_size=info.chunk_size,
        **as_kwargs(config, "moco"),
    )


EXPERIMENT = Experiment(
    name="moco",
    usage=image_method.usage(__doc__),
    sections={
        "encoder": ENCODER,
        "head": takes(heads.make),
        "moco": takes(moco.make, without=("encoder", "head", "views", "n_classes", "chunk_size")),
    },
    build=build,
    kind=kinds.IMAGES,
)

if __name__ == "__main__":
    image_method.run(EXPERIMENT)
