"""Train an image and a text encoder jointly with CLIP or SigLIP, score and draw them.

python -m experiments.clip --config configs/glyphs.py
python -m experiments.clip --config configs/glyphs.py:siglip --workdir DIR
"""

import functools
from collections.abc import Callable

import jax
from ml_collections import ConfigDict

from contrastive_jax import encoders, losses, parallel
from contrastive_jax.encoders import heads, words
from contrastive_jax.objectives import temperature, two_towers
from contrastive_jax.types import Objective, RunInfo
from experiments.run import image_method
from experiments.run.build import Experiment
from experiments.run.encoder import ENCODER
from experiments.run.sections import Choice, Key, as_kwargs, takes
from experiments.scoring import kinds


def _symmetric(image_BD, text_BD, ids_B, scale, **kw):
    return losses.symmetric_info_nce(image_BD, text_BD, scale[0], ids_B=ids_B, **kw)


def _siglip(image_BD, text_BD, ids_B, scale, **kw):
    return losses.siglip(image_BD, text_BD, scale[0], scale[1], ids_B=ids_B, **kw)


def _multi_positive(image_BD, text_BD, ids_B, scale, **kw):
    loss = functools.partial(
        losses.multi_positive_info_nce, ids_B=ids_B, temperature=scale[0], **kw
    )
    return (loss(image_BD, text_BD) + loss(text_BD, image_BD)) / 2


KINDS: dict[str, Callable[..., jax.Array]] = {
    "symmetric_info_nce": _symmetric,
    "siglip": _siglip,
    "multi_positive_info_nce": _multi_positive,
}
COMMON = {
    "temperature": Key("learned", float | str),
    "temperature_start": Key(0.07, float),
    "temperature_min": Key(0.01, float),
    "block_size": Key(None, int | None),
}
OPTIONS = {kind: {"bias": Key(-10.0, float)} if kind == "siglip" else {} for kind in KINDS}


def build(config: ConfigDict, info: RunInfo) -> Objective:
    """Make the objective of a config."""
    options = as_kwargs(config, "loss")
    loss, block_size = KINDS[options["kind"]], options["block_size"]
    scale = [options[f"temperature{part}"] for part in ("", "_start", "_min")]

    def with_axis(*args, axis_name=None):
        return loss(*args, axis_name=axis_name, block_size=block_size)

    text = words.make(info.n_tokens, output_dim=config.head.output_dim, **as_kwargs(config, "text"))
    return two_towers.make(
        encoders.make(**as_kwargs(config, "encoder")),
        heads.make(**as_kwargs(config, "head")),
        text,
        image_method.one_size_of_views(config, "clip"),
        parallel.shard_loss(with_axis, info.mesh, n_sharded=3),
        n_classes=info.n_classes,
        temperature=temperature.make(*scale),
        bias=options.get("bias"),
    )


EXPERIMENT = Experiment(
    name="clip",
    usage=image_method.usage(__doc__),
    sections={
        "encoder": ENCODER,
        "head": takes(heads.make),
        "text": takes(words.make, without=("vocabulary", "output_dim")),
        "loss": Choice("kind", "symmetric_info_nce", COMMON, OPTIONS),
    },
    build=build,
    kind=kinds.CAPTIONED_IMAGES,
)

if __name__ == "__main__":
    image_method.run(EXPERIMENT)
