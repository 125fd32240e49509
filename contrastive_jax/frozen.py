"""Parts of a model that stay as they are: a regex on the paths of parameters.

A path is "encoder/stage1_block1/Conv_0/kernel". A pattern matches from its start, so "encoder/"
is the whole encoder, and "(encoder|head)/" both. Zhai et al. 2022 (LiT, arXiv 2111.07991) train a
text tower beside an image tower that is frozen.
"""

import functools
import re
from typing import Any

import jax

from contrastive_jax.types import Batch, LossOutput, ModelState, Objective, Params


def freeze(objective: Objective, pattern: str) -> Objective:
    """Keep the gradient from parameters, and the statistics of their modules as they are.

    The optimizer has to leave the same parameters alone: weight decay needs no gradient.

    Args:
      objective: any.
      pattern: a regex; "" freezes nothing.

    Raises:
      ValueError: no regex; at `init` one that matches no parameter.
    """
    if not pattern:
        return objective
    _check(pattern)

    def init(key: jax.Array, batch: Batch) -> tuple[Params, ModelState]:
        params, model_state = objective.init(key, batch)
        if not any(jax.tree.leaves(mask(params, pattern))):
            raise ValueError(
                f"optimizer.frozen is {pattern!r}, which matches no parameter; "
                f"their paths begin with {', '.join(f'{name}/' for name in params)}"
            )
        return params, model_state

    def loss(
        params: Params, model_state: ModelState, batch: Batch, key: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, LossOutput]:
        still = jax.tree.map(
            lambda p, stays: jax.lax.stop_gradient(p) if stays else p,
            params,
            mask(params, pattern),
        )
        value, out = objective.loss(still, model_state, batch, key, step)
        kept = jax.tree.map(
            lambda before, after, stays: before if stays else after,
            model_state,
            out.model_state,
            mask(model_state, pattern),
        )
        return value, out._replace(model_state=kept)

    return objective._replace(init=init, loss=loss)


def mask(tree: Any, pattern: str) -> Any:
    """Say of each leaf of a tree whether its path matches.

    >>> mask({"encoder": {"kernel": 1}, "head": {"kernel": 2}}, "encoder/")
    {'encoder': {'kernel': True}, 'head': {'kernel': False}}
    """
    matches = functools.partial(_matches, pattern)
    return jax.tree.map_with_path(lambda path, _: matches(path), tree)


def covers(tree: Any, name: str, pattern: str) -> bool:
    """Say whether every leaf of the part `name` of a tree matches.

    Raises:
      ValueError: the pattern is no regex.

    >>> covers({"kernel": 1, "bias": 2}, "encoder", "encoder/.*kernel")
    False
    """
    _check(pattern)
    return bool(pattern) and all(jax.tree.leaves(mask({name: tree}, pattern)))


def _check(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"optimizer.frozen is {pattern!r}, which is no regex: {error}") from error


def _matches(pattern: str, path: tuple[Any, ...]) -> bool:
    return re.match(pattern, jax.tree_util.keystr(path, simple=True, separator="/")) is not None
