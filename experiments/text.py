"""Train a text encoder on pairs of queries and documents, score retrieval, draw it.

python -m experiments.text --config configs/docstrings.py
python -m experiments.text --config configs/pairs.py --config.data.path=mine.jsonl --workdir DIR
python -m experiments.text --config configs/pairs.py:minilm --config.data.path=mine.jsonl \\
    --config.encoder.folder=DIR
"""

from ml_collections import ConfigDict

from contrastive_jax import parallel
from contrastive_jax.encoders import heads
from contrastive_jax.objectives import dual, mined, temperature
from contrastive_jax.types import Objective, RunInfo
from experiments.run import guide, image_method, start_folder, text_losses
from experiments.run.build import Experiment
from experiments.run.sections import Key, as_kwargs, takes
from experiments.scoring import kinds

HEAD = {**takes(heads.make), "kind": Key("none", str), "batch_norm": Key(False, bool)}


def build(config: ConfigDict, info: RunInfo) -> Objective:
    """Make the objective of a config."""
    options = as_kwargs(config, "loss")
    for key in guide.KEYS:
        options.pop(key, None)
    _check_parts(config.data.batch_size, info)
    text_losses.check_negatives(options["kind"], config.data.n_negatives, info.negatives_NK)
    scale = [options.pop(f"temperature{part}", None) for part in ("", "_start", "_min")]
    bias = options.pop("bias", None)
    loss = parallel.shard_loss(text_losses.pair_loss(**options), info.mesh, n_sharded=1)
    objective = dual.make(
        start_folder.encoder_of(config, "encoder", info),
        heads.make(**as_kwargs(config, "head")),
        loss,
        temperature=None if scale[0] is None else temperature.make(*scale),
        bias=bias,
        chunk_size=info.chunk_size,
        longest=info.longest,
        **as_kwargs(config, "dual"),
    )
    first_NK = info.negatives_NK
    return objective if first_NK is None else mined.from_table(objective, first_NK)


def _check_parts(batch_size: int, info: RunInfo) -> None:
    """Refuse devices that would not hold as many rows of each length.

    Raises:
      ValueError: naming the numbers.
    """
    rows, devices = info.chunk_size or batch_size, info.mesh.devices.size
    if info.longest and rows % (len(info.longest) * devices):
        raise ValueError(
            f"data.length_buckets is {len(info.longest)}, which does not divide the "
            f"{rows / devices:g} pairs that a device encodes at once; give 1, or another batch"
        )


EXPERIMENT = Experiment(
    name="text",
    usage=image_method.usage(__doc__),
    sections={
        "encoder": start_folder.section("bag"),
        "head": HEAD,
        "dual": {"towers": Key("shared", str)},
        "loss": text_losses.LOSS,
    },
    build=build,
    kind=kinds.TEXT,
    resolve=lambda config: guide.resolve(start_folder.resolve(config)),
    to_score=guide.not_asked,
)

if __name__ == "__main__":
    image_method.run(EXPERIMENT)
