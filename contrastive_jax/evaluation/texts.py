"""Compute the features of texts: those of similar length together, so that little is padding."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from contrastive_jax.evaluation import features
from contrastive_jax.types import EmbedFn, ModelState, Params

WIDTHS = (16, 32, 64, 128, 256, 512)


def by_width(
    length_N: np.ndarray, batch_size: int, longest: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Divide texts among few widths, the longest first.

    Sorted by length and cut into batches, each batch takes the smallest width that holds its
    longest text; those of one width come together. All but the last fill their batches.

    Args:
      length_N: tokens of each text.
      batch_size: texts at a time.
      longest: tokens of a text at most; the last width.

    Yields:
      (width, rows of the texts), each width once.

    >>> list(by_width(np.array([3, 40, 9, 20, 5]), batch_size=2, longest=48))
    [(48, array([1, 3])), (16, array([2, 4, 0]))]
    """
    order = np.argsort(-length_N, kind="stable")
    widths = np.array([*(w for w in WIDTHS if w < longest), longest])
    width = widths[np.searchsorted(widths, length_N[order[::batch_size]])]
    for one in sorted(set(width.tolist()), reverse=True):
        first, last = np.flatnonzero(width == one)[[0, -1]]
        yield one, order[first * batch_size : (last + 1) * batch_size]


def extract(
    embed: EmbedFn,
    params: Params,
    model_state: ModelState,
    tokens_NL: np.ndarray,
    length_N: np.ndarray,
    *,
    batch_size: int,
    longest: int,
    names: tuple[str, str] = ("tokens", "length"),
    **placement: Any,
) -> dict[str, np.ndarray]:
    """Compute an encoder's outputs for texts, in order, in few widths, each of them compiled once.

    Args:
      embed: (params, model_state, {names[0]: [B,L], names[1]: [B]}) -> arrays [B, ...].
      params, model_state: as `embed` takes them.
      tokens_NL: what comes after a text's length is not read.
      length_N: tokens of each text.
      batch_size: B, texts at a time, over all devices.
      longest: L at most.
      names: of tokens and lengths in a batch.
      placement: `shard` and `out_sharding` of `features.extract`.

    Returns:
      What `embed` returns, with N rows.

    >>> def embed(params, model_state, batch):
    ...     return {"width": batch["length"] * 0 + batch["tokens"].shape[1]}
    >>> tokens = np.zeros((3, 40), np.uint16)
    >>> extract(embed, {}, {}, tokens, np.array([3, 40, 9]), batch_size=1, longest=48)["width"]
    array([16., 48., 16.], dtype=float32)
    """
    parts, order = [], []
    for width, rows in by_width(length_N, batch_size, longest):
        texts = _of_width(tokens_NL[rows], width), length_N[rows]
        arrays = dict(zip(names, texts, strict=True))
        settings: Any = {"batch_size": batch_size, **placement}
        parts.append(features.extract(embed, params, model_state, arrays, **settings))
        order.append(rows)
    place = np.argsort(np.concatenate(order))
    return {name: np.concatenate([part[name] for part in parts])[place] for name in parts[0]}


def _of_width(tokens_NL: np.ndarray, width: int) -> np.ndarray:
    return np.pad(tokens_NL[:, :width], [(0, 0), (0, max(width - tokens_NL.shape[1], 0))])
