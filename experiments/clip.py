"""Train an image and a text encoder jointly with CLIP or SigLIP, score and draw them.

python -m experiments.clip --config configs/glyphs.py
python -m experiments.clip --config configs/glyphs.py:siglip --workdir DIR
python -m experiments.clip --config configs/glyphs.py:lit --config.encoder.init=FILE
"""

import functools
from collections.abc import Callable
from pathlib import Path

import jax
from ml_collections import ConfigDict

from contrastive_jax import encoders, frozen, losses, parallel
from contrastive_jax.data import Dataset
from contrastive_jax.encoders import heads, open_clip_names, pretrained
from contrastive_jax.errors import CheckpointError
from contrastive_jax.objectives import temperature, two_towers
from contrastive_jax.types import Batch, ModelState, Objective, Params, RunInfo
from experiments.run import image_method, start_folder
from experiments.run.build import Experiment, Run
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
IDS = {"ids": Key(True, bool)}  # pairs of one id are no negatives of one another
OPTIONS = {
    "symmetric_info_nce": IDS,
    "siglip": {**IDS, "bias": Key(-10.0, float)},
    "multi_positive_info_nce": {},  # positives, all of them
}


def build(config: ConfigDict, info: RunInfo) -> Objective:
    """Make the objective of a config."""
    check_context(config)
    options = as_kwargs(config, "loss")
    loss = pair_loss(options["kind"], options["block_size"], options.get("ids", True))
    scale = [options[f"temperature{part}"] for part in ("", "_start", "_min")]
    text_head = {"kind": "linear", "output_dim": config.head.output_dim, "bias": False}
    objective = two_towers.make(
        encoders.make(**as_kwargs(config, "encoder")),
        heads.make(**as_kwargs(config, "head")),
        start_folder.encoder_of(config, "text", info),
        heads.make(**text_head, batch_norm=False),
        image_method.one_size_of_views(config, "clip"),
        parallel.shard_loss(loss, info.mesh, n_sharded=3),
        n_classes=info.n_classes,
        temperature=temperature.make(*scale),
        bias=options.get("bias"),
        chunk_size=info.chunk_size,
        frozen=config.optimizer.frozen,
    )
    return started(objective, config.towers.init) if config.towers.init else objective


def pair_loss(kind: str, block_size: int | None = None, ids: bool = True) -> Callable:
    """Make a loss of (image_BD, text_BD, ids_B, scale); see `two_towers.make`.

    Args:
      kind: of `KINDS`.
      block_size: side of its tiles.
      ids: whether it reads ids_B; without them every other pair is a negative.
    """

    def loss(image_BD, text_BD, ids_B, scale, axis_name=None):
        options = {"axis_name": axis_name, "block_size": block_size}
        return KINDS[kind](image_BD, text_BD, ids_B if ids else None, scale, **options)

    return loss


def check_context(config: ConfigDict) -> None:
    """Refuse captions that may be longer than what the text tower reads.

    Raises:
      ValueError: naming both lengths.
    """
    text = config.text
    longest = text.get("context") or text.get("positions", 0) - text.get("position_offset", 0)
    if 0 < longest < config.data.context:
        raise ValueError(
            f"captions may have {config.data.context} tokens (data.context), and the text tower "
            f"reads {longest}; lower data.context, or raise text.context"
        )


def started(objective: Objective, file: str) -> Objective:
    """Begin with the tensors of a file of OpenAI's CLIP or open_clip: both towers and scalars."""

    def init(key: jax.Array, batch: Batch) -> tuple[Params, ModelState]:
        params, state = objective.init(key, batch)
        try:
            return open_clip_names.from_open_clip(pretrained.read(file), params), state
        except CheckpointError as error:
            raise CheckpointError(f"towers.init={file}: {error}") from error

    return objective._replace(init=init)


def resolve(config: ConfigDict) -> ConfigDict:
    """Fill in what the folder of the text tower decides.

    Raises:
      ValueError: an image tower is frozen that starts from no file.
    """
    locked = frozen.covers({"kernel": 0}, "encoder", config.optimizer.frozen)
    from_file = config.encoder.get("init") or config.towers.init
    if locked and not from_file and ":" not in config.encoder.name:
        raise ValueError(
            f"optimizer.frozen is {config.optimizer.frozen!r}, and the image tower has random "
            "weights; set encoder.init to a file, such as one of experiments.export"
        )
    return start_folder.resolve(config, "text")


def load(config: ConfigDict) -> Dataset:
    """Load captioned images, their captions as tokens of the folder that the text tower is of.

    Raises:
      ValueError: a source without captions, or whose captions have no other tokens than words.
    """
    known = start_folder.vocabulary(config, "text")
    if not known:
        return kinds.CAPTIONED_IMAGES.load(config)
    if not (config.data.source == "captions" or config.data.prompts) or config.data.tokenizer:
        raise ValueError(
            f"text.folder has a tokenizer of its own; data.source {config.data.source!r} with "
            f"data.tokenizer {config.data.tokenizer!r} has another: give 'captions' (or "
            "data.prompts) and none"
        )
    config = config.copy_and_resolve_references()
    config.data.tokenizer = known["tokenizer"].json
    dataset = kinds.CAPTIONED_IMAGES.load(config)
    unused = known["n_tokens"] - len(dataset.vocabulary)
    return dataset._replace(vocabulary=(*dataset.vocabulary, *[""] * unused))


def keep(run: Run, folder: Path) -> None:
    """Write the tokenizer of the captions into a run's folder."""
    if run.dataset.tokenizer is not None:
        (folder / "tokenizer.json").write_text(run.dataset.tokenizer.json, "utf-8")


EXPERIMENT = Experiment(
    name="clip",
    usage=image_method.usage(__doc__),
    sections={
        "encoder": ENCODER,
        "head": takes(heads.make),
        "text": start_folder.section("words"),
        "towers": {"init": Key("", str)},
        "loss": Choice("kind", "symmetric_info_nce", COMMON, OPTIONS),
    },
    build=build,
    kind=kinds.CAPTIONED_IMAGES._replace(load=load, keep=keep),
    resolve=resolve,
)

if __name__ == "__main__":
    image_method.run(EXPERIMENT)
