"""Train an image encoder with SimCLR or SupCon, score it, draw it.

python -m experiments.simclr --config configs/digits.py
python -m experiments.simclr --config configs/cifar.py:cpu --config.data.data_dir=DIR --workdir DIR
"""

from ml_collections import ConfigDict

from contrastive_jax import encoders
from contrastive_jax.encoders import heads
from contrastive_jax.objectives import simclr
from contrastive_jax.types import Objective, RunInfo
from experiments.run import image_method, losses
from experiments.run.build import Experiment
from experiments.run.encoder import ENCODER
from experiments.run.sections import Key, as_kwargs, takes
from experiments.scoring import kinds


def build(config: ConfigDict, info: RunInfo) -> Objective:
    """Make the objective of a config."""
    options = as_kwargs(config, "loss")
    views_separately = options.pop("views_separately")
    if options["kind"] == "cross_entropy" and config.head.output_dim < info.n_classes:
        raise ValueError(
            f"head.output_dim is {config.head.output_dim}, but with loss.kind cross_entropy the "
            f"head gives class logits; set it to {info.n_classes}"
        )
    loss = losses.pair_loss(**options, mesh=info.mesh, n_classes=info.n_classes)
    if loss.reads_labels and not info.n_classes:
        raise ValueError(f"loss.kind {options['kind']!r} reads labels, and the data has none")
    return simclr.make(
        encoders.make(**as_kwargs(config, "encoder")),
        heads.make(**as_kwargs(config, "head")),
        image_method.one_size_of_views(config, "simclr"),
        loss.function,
        n_classes=info.n_classes,
        reads_labels=loss.reads_labels,
        temperature=loss.temperature,
        views_separately=views_separately,
        init_loss=loss.init,
        chunk_size=info.chunk_size,
    )


EXPERIMENT = Experiment(
    name="simclr",
    usage=image_method.usage(__doc__),
    sections={
        "encoder": ENCODER,
        "head": takes(heads.make),
        "loss": losses.SECTION._replace(
            common={**losses.SECTION.common, "views_separately": Key(False, bool)}
        ),
    },
    build=build,
    kind=kinds.IMAGES,
)

if __name__ == "__main__":
    image_method.run(EXPERIMENT)
