"""Train a text encoder on pairs of queries and documents, score retrieval, draw it.

python -m experiments.text --config configs/docstrings.py
python -m experiments.text --config configs/pairs.py --config.data.path=mine.jsonl --workdir DIR
python -m experiments.text --config configs/pairs.py:minilm --config.data.path=mine.jsonl \\
    --config.encoder.folder=DIR
"""

import inspect
from collections.abc import Callable
from typing import Any

import jax
from ml_collections import ConfigDict

from contrastive_jax import losses, parallel
from contrastive_jax.encoders import heads, text
from contrastive_jax.objectives import dual, temperature
from contrastive_jax.types import Objective, RunInfo
from experiments.run import image_method, start_folder
from experiments.run.build import Experiment
from experiments.run.losses import options_of
from experiments.run.sections import Choice, Key, as_kwargs, takes
from experiments.scoring import kinds

KINDS: dict[str, Callable[..., jax.Array]] = {
    "info_nce": losses.info_nce,
    "symmetric_info_nce": losses.symmetric_info_nce,
    "joint_info_nce": losses.joint_info_nce,
    "multi_positive_info_nce": losses.multi_positive_info_nce,
    "per_query_info_nce": losses.per_query_info_nce,
    "siglip": losses.siglip,
}
HEAD = {**takes(heads.make), "kind": Key("none", str), "batch_norm": Key(False, bool)}
ENCODER = Choice(
    key="name",
    default="bag",
    common={},
    options=start_folder.KEYS,
)
LOSS = Choice(
    key="kind",
    default="info_nce",
    common={"matryoshka": Key(None, tuple[int, ...] | None)},
    options={  # negatives are given with the pairs, not mined in the batch
        kind: {key: value for key, value in options_of(kind).items() if key != "mining"}
        for kind in KINDS
    },
)


def pair_loss(
    kind: str, matryoshka: tuple[int, ...] | None, **options: Any
) -> Callable[..., jax.Array]:
    """Make the loss of what `dual` gives, in the arguments that the library's function takes.

    Args:
      kind: of `KINDS`.
      matryoshka: sizes of embeddings, each a prefix of the next, that all have this loss.
      options: what is no array and no temperature.
    """
    loss = KINDS[kind]
    taken = inspect.signature(loss).parameters
    names = {
        "id": "ids_B",
        "negatives_mask": "negatives_mask_BK",
        "negatives_id": "negatives_ids_BK",
    }

    def of(split: dict[str, jax.Array], scale: dict[str, jax.Array], **axis: Any) -> jax.Array:
        sides = [split[name] for name in (*dual.SIDES, "negatives") if name in split]
        named = {names[key]: value for key, value in split.items() if names.get(key) in taken}

        def whole(query_BD: jax.Array, document_BD: jax.Array, *given: jax.Array) -> jax.Array:
            negatives = {"negatives_BKD": given[0]} if given else {}
            return loss(query_BD, document_BD, **negatives, **named, **scale, **options, **axis)

        return losses.matryoshka(whole, *sides, dims=matryoshka) if matryoshka else whole(*sides)

    def gathered(split: Any, scale: Any, axis_name: str | None = None) -> jax.Array:
        return of(split, scale, axis_name=axis_name)

    return gathered if "axis_name" in taken else of


def check_negatives(kind: str, n_negatives: int) -> None:
    """Refuse negatives that the loss does not read, and a loss that lacks them.

    Raises:
      ValueError: naming the losses that fit.
    """
    taken = inspect.signature(KINDS[kind]).parameters
    readers = [
        name for name in KINDS if "negatives_BKD" in inspect.signature(KINDS[name]).parameters
    ]
    if n_negatives and "negatives_BKD" not in taken:
        raise ValueError(
            f"loss.kind {kind!r} reads no negatives, and data.n_negatives is {n_negatives}; "
            f"give one of {readers}, or 0"
        )
    if not n_negatives and kind == "per_query_info_nce":
        raise ValueError(f"loss.kind {kind!r} contrasts with negatives alone; set data.n_negatives")


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
    check_negatives(options["kind"], config.data.n_negatives)
    scale = [options.pop(f"temperature{part}", None) for part in ("", "_start", "_min")]
    bias = options.pop("bias", None)
    loss = parallel.shard_loss(pair_loss(**options), info.mesh, n_sharded=1)
    return dual.make(
        encoder_of(config, info),
        heads.make(**as_kwargs(config, "head")),
        loss,
        temperature=temperature.make(*scale),
        bias=bias,
        chunk_size=info.chunk_size,
        **as_kwargs(config, "dual"),
    )


EXPERIMENT = Experiment(
    name="text",
    usage=image_method.usage(__doc__),
    sections={
        "encoder": ENCODER,
        "head": HEAD,
        "dual": {"towers": Key("shared", str)},
        "loss": LOSS,
    },
    build=build,
    kind=kinds.TEXT,
    resolve=start_folder.resolve,
)

if __name__ == "__main__":
    image_method.run(EXPERIMENT)
