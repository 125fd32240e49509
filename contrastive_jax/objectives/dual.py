"""Queries and documents in one space: a dual encoder for retrieval.

    query -> tokens -> q = g(f(tokens)),   document -> tokens -> d = g(f(tokens)),   loss of q and d

f and g are shared by both sides, or each side has its own. Pairs whose ids are equal share a query
or a document and are no negatives of one another. Karpukhin et al. 2020 (DPR, arXiv 2004.04906);
Reimers & Gurevych 2019 (Sentence-BERT, arXiv 1908.10084) for shared encoders.
"""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from contrastive_jax._numerics import unit
from contrastive_jax.evaluation import diagnostics
from contrastive_jax.grad_cache import encode_in_chunks
from contrastive_jax.objectives.image_model import DIAGNOSED
from contrastive_jax.objectives.temperature import Temperature
from contrastive_jax.types import Batch, EmbedFn, LossOutput, ModelState, Objective, Params

TOWERS = ("shared", "two")
SIDES = ("query", "document")
_OF_PAIRS = ("id", "score", "scores", "query_guide", "document_guide")
_OF_NEGATIVES = ("negatives_mask", "negatives_id", "negatives_guide")
_DROPOUT = {"query": 1, "document": 2, "negatives": 3}  # folded into the key of a step


def make(
    encoder: nn.Module,
    head: nn.Module,
    pair_loss: Callable[..., jax.Array],
    *,
    towers: str = "shared",
    temperature: Temperature | None = None,
    bias: float | None = None,
    chunk_size: int | None = None,
    longest: Sequence[int] = (),
) -> Objective:
    """Make the objective of a dual encoder.

    Args:
      encoder: f, tokens [N,L] int32 and lengths [N] to features [N,F], called with `train=`.
      head: g, features [N,F] to embeddings [N,D], called with `train=`; it keeps no statistics.
      pair_loss: (split, scale) to [B]: `split` is {"query" [B,D], "document" [B,D], "id" [B]} and,
        where the batch has negatives, {"negatives" [B,K,D], "negatives_mask" [B,K],
        "negatives_id" [B,K]}, further what the batch has of {"score" [B], "scores" [B,1+K],
        "query_guide", "document_guide" [B,G], "negatives_guide" [B,K,G]}; `scale` is
        {"temperature", "bias"} as far as the loss has them; see
        `parallel.shard_loss`.
      towers: "shared", or "two": documents have an encoder and a head of their own.
      temperature: fixed or learned; None for a loss without one.
      bias: of losses that have one, learned from this start where the temperature is learned.
      chunk_size: pairs encoded at a time, and again in the backward pass (GradCache); None for all.
      longest: [G], tokens of the documents of training batches: row i has at most those of place
        i mod G, and padding beyond them is not computed; () for all that the batch has.

    Returns:
      An objective whose parameters are {"encoder", "head", "loss"}, of two towers also
      {"document_encoder", "document_head"}. It embeds "query" and "document", each from the tokens
      and the lengths of that name, to "features" and to an "embedding" of length one.

    Raises:
      ValueError: other towers, or a head with batch norm.
    """
    if towers not in TOWERS:
        raise ValueError(f"dual.towers is {towers!r}; give one of {TOWERS}")
    prefix = {"query": "", "document": "document_" if towers == "two" else ""}
    prefix["negatives"] = prefix["document"]
    of_place = (len(longest),) if longest else ()

    def init(key: jax.Array, batch: Batch) -> tuple[Params, ModelState]:
        params: dict[str, Any] = {}
        for number, side in enumerate(SIDES[: 1 if towers == "shared" else 2]):
            keys = jax.random.split(jax.random.fold_in(key, number))
            tokens, length = batch[side][:1].astype(jnp.int32), batch[f"{side}_length"][:1]
            of_encoder = encoder.init(keys[0], tokens, length, train=False)
            h: Any = encoder.apply(of_encoder, tokens, length, train=False)
            of_head = head.init(keys[1], h, train=False)
            if "batch_stats" in of_head:
                raise ValueError("a head of texts keeps no statistics; set head.batch_norm=False")
            params[f"{prefix[side]}encoder"] = of_encoder["params"]
            params[f"{prefix[side]}head"] = of_head.get("params", {})
        if temperature is not None and (learned := temperature.init()):
            params["loss"] = learned | ({} if bias is None else {"bias": jnp.float32(bias)})
        return params, {}

    def forward(
        params: Params, side: str, tokens_NL: jax.Array, length_N: jax.Array, key: Any = None
    ) -> tuple[jax.Array, jax.Array]:
        """Features and embeddings of one side; in training there is a key."""
        train, rngs = key is not None, {} if key is None else {"dropout": key}
        of_encoder = {"params": params[f"{prefix[side]}encoder"]}
        of_head = {"params": params[f"{prefix[side]}head"]}
        tokens_NL = tokens_NL.astype(jnp.int32)
        h: Any = encoder.apply(of_encoder, tokens_NL, length_N, train=train, rngs=rngs)
        z: Any = head.apply(of_head, h, train=train, rngs=rngs)
        return h, z

    def encode(params: Params, batch: Mapping[str, jax.Array], key: jax.Array) -> dict[str, Any]:
        """The embeddings of a training batch, or of a chunk of it."""

        def flat(side: str, tokens: jax.Array, length: jax.Array, key: jax.Array) -> jax.Array:
            rows = tokens.reshape(-1, tokens.shape[-1]), length.reshape(-1)
            return forward(params, side, *rows, key)[1].reshape(*length.shape, -1)

        found = {}
        for side in _DROPOUT:
            if side in batch:
                texts = batch[side], batch[f"{side}_length"]
                encode_all = functools.partial(flat, side)
                if side == "document" and longest:
                    encode_all = functools.partial(in_parts, encode_all)
                found[side] = encode_all(*texts, jax.random.fold_in(key, _DROPOUT[side]))
        return found

    def in_parts(
        encode_all: Callable[..., jax.Array], tokens_NGL: jax.Array, length_NG: jax.Array, key: Any
    ) -> jax.Array:
        """Encode the places of equal length together, cut to it."""
        parts, first = [], 0
        for most, places in itertools.groupby(longest):
            last = first + len(list(places))
            rows = tokens_NGL[:, first:last, :most], length_NG[:, first:last]
            parts.append(encode_all(*rows, jax.random.fold_in(key, first)))
            first = last
        return jnp.concatenate(parts, axis=1)

    def scale_of(params: Params) -> dict[str, jax.Array]:
        own = params.get("loss", {})
        values = {} if temperature is None else {"temperature": temperature.value(own)}
        values |= {} if bias is None else {"bias": own.get("bias", bias)}
        return {name: jnp.asarray(value, jnp.float32) for name, value in values.items()}

    def loss(
        params: Params, model_state: ModelState, batch: Batch, key: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, LossOutput]:
        del step
        texts = {name: batch[name] for name in batch if name.removesuffix("_length") in _DROPOUT}
        texts = {name: x.reshape(-1, *of_place, *x.shape[1:]) for name, x in texts.items()}
        if chunk_size is None:
            z = encode(params, texts, key)
        else:
            rows = chunk_size // max(len(longest), 1)
            z = encode_in_chunks(encode, params, texts, key, chunk_size=rows)
        z = {side: x.reshape(-1, *x.shape[1 + len(of_place) :]) for side, x in z.items()}
        read = (*_OF_PAIRS, *_OF_NEGATIVES) if "negatives" in z else _OF_PAIRS
        others = {name: batch[name] for name in read if name in batch}
        scale = scale_of(params)
        contrastive = pair_loss({**z, **others}, scale).mean()
        both_BVD = jnp.stack([z[side][:DIAGNOSED] for side in SIDES], axis=1)
        both_BVD, tau = jax.lax.stop_gradient(both_BVD), scale.get("temperature")
        measured = diagnostics.summary(both_BVD, tau, across=True)
        learned = scale if "loss" in params else {}
        return contrastive, LossOutput(model_state, {"loss": contrastive, **learned, **measured})

    def embedder(side: str) -> EmbedFn:
        def embed(params: Params, model_state: ModelState, batch: Batch) -> dict[str, jax.Array]:
            h, z = forward(params, side, batch[side], batch[f"{side}_length"])
            return {"features": h, "embedding": unit(z)}

        return embed

    embed = {side: embedder(side) for side in SIDES}
    return Objective(init, loss, embed, ("loss",), chunk_size=chunk_size)
