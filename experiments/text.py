"""Train a text encoder on pairs of queries and documents, score retrieval, draw it.

python -m experiments.text --config configs/docstrings.py
python -m experiments.text --config configs/pairs.py --config.data.path=mine.jsonl --workdir DIR
python -m experiments.text --config configs/pairs.py:minilm --config.data.path=mine.jsonl \\
    --config.encoder.folder=DIR
"""

from typing import Any

from ml_collections import ConfigDict

from contrastive_jax import parallel
from contrastive_jax.encoders import heads, text
from contrastive_jax.objectives import dual, mined, temperature
from contrastive_jax.types import Objective, RunInfo
from experiments.run import guide, image_method, start_folder, text_losses
from experiments.run.build import Experiment
from experiments.run.sections import Choice, Key, as_kwargs, takes
from experiments.scoring import kinds

HEAD = {**takes(heads.make), "kind": Key("none", str), "batch_norm": Key(False, bool)}
ENCODER = Choice(
    key="name",
    default="bag",
    common={},
    options=start_folder.KEYS,
)


def encoder_of(config: ConfigDict, info: RunInfo) -> Any:
    """Make the encoder of a config, which starts from a folder where it names one.

    Raises:
      ValueError: a value out of range.
    """
    settings = as_kwargs(config, "encoder")
    folder, sha256 = settings.pop("folder", ""), settings.pop("folder_sha256", "")
    encoder = text.make(n_tokens=info.n_tokens, idf_T=info.idf_T, **settings)
    return start_folder.StartedFrom(encoder, folder, sha256) if folder else encoder


def build(config: ConfigDict, info: RunInfo) -> Objective:
    """Make the objective of a config."""
    options = as_kwargs(config, "loss")
    for key in guide.KEYS:
        options.pop(key, None)
    text_losses.check_negatives(options["kind"], config.data.n_negatives, info.negatives_NK)
    scale = [options.pop(f"temperature{part}", None) for part in ("", "_start", "_min")]
    bias = options.pop("bias", None)
    loss = parallel.shard_loss(text_losses.pair_loss(**options), info.mesh, n_sharded=1)
    objective = dual.make(
        encoder_of(config, info),
        heads.make(**as_kwargs(config, "head")),
        loss,
        temperature=None if scale[0] is None else temperature.make(*scale),
        bias=bias,
        chunk_size=info.chunk_size,
        **as_kwargs(config, "dual"),
    )
    first_NK = info.negatives_NK
    return objective if first_NK is None else mined.from_table(objective, first_NK)


EXPERIMENT = Experiment(
    name="text",
    usage=image_method.usage(__doc__),
    sections={
        "encoder": ENCODER,
        "head": HEAD,
        "dual": {"towers": Key("shared", str)},
        "loss": text_losses.LOSS,
    },
    build=build,
    kind=kinds.TEXT,
    resolve=lambda config: guide.resolve(start_folder.resolve(config)),
)

if __name__ == "__main__":
    image_method.run(EXPERIMENT)
