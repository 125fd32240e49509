"""The pair losses of a config by name: `loss.kind` -> the function, and the options it takes."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from contrastive_jax import losses, parallel
from contrastive_jax.parallel import Mesh
from experiments.run.sections import Choice, takes

NOT_OPTIONS = ("z_BVD", "labels_B", "logits_BVK", "label_B", "axis_name")


class PairLoss(NamedTuple):
    """A loss ready for the mesh, and what the objective has to know of it."""

    function: Callable[..., jax.Array]  # z_BVD, or (z_BVD, label_B), to [B,V]
    reads_labels: bool
    temperature: float | None


def _cross_entropy(
    logits_BVK: jax.Array, label_B: jax.Array, *, axis_name: str | None = None
) -> jax.Array:
    """The supervised baseline: the embedding is taken for class logits; unlabeled rows give 0."""
    del axis_name  # every row is judged by itself
    label_BV = jnp.broadcast_to(jnp.maximum(label_B, 0)[:, None], logits_BVK.shape[:2])
    loss = optax.softmax_cross_entropy_with_integer_labels(logits_BVK, label_BV)
    return jnp.where(label_B[:, None] >= 0, loss, 0.0)


KINDS: dict[str, Callable[..., jax.Array]] = {
    "nt_xent": losses.nt_xent,
    "nt_logistic": losses.nt_logistic,
    "nt_margin": losses.nt_margin,
    "decoupled": losses.decoupled,
    "hard_negatives": losses.debiased_nt_xent,
    "sup_con": losses.sup_con,
    "cross_entropy": _cross_entropy,
}
READ_LABELS = ("sup_con", "cross_entropy")
SECTION = Choice(
    key="kind",
    default="nt_xent",
    common={},
    options={kind: takes(loss, without=NOT_OPTIONS) for kind, loss in KINDS.items()},
)


def pair_loss(kind: str, mesh: Mesh, **options: Any) -> PairLoss:
    """Make the loss of a config, its keys gathered over the mesh.

    Args:
      kind: of `KINDS`.
      mesh: the devices.
      options: keywords of that loss.

    Raises:
      ValueError: a temperature of 0 or less.

    >>> loss = pair_loss("nt_xent", parallel.make_mesh(), temperature=0.2)
    >>> jax.jit(loss.function)(jnp.ones((8, 2, 4))).shape, loss.temperature
    ((8, 2), 0.2)
    """
    temperature = options.get("temperature")
    if temperature is not None and temperature <= 0:
        raise ValueError(f"loss temperature is {temperature}; give a positive number")
    reads_labels = kind in READ_LABELS
    loss = functools.partial(KINDS[kind], **options)
    sharded = parallel.shard_loss(loss, mesh, n_sharded=1 + reads_labels)
    return PairLoss(sharded, reads_labels, temperature)
