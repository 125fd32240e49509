"""The pair losses of a config, by name: which function each is and which options it takes."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from contrastive_jax import losses, parallel
from contrastive_jax.parallel import Mesh


class Kind(NamedTuple):
    loss: Callable[..., jax.Array]
    options: tuple[str, ...]  # of the config's `loss`
    labelled: bool = False  # reads the labels


def _cross_entropy(
    logits_BVK: jax.Array, label_B: jax.Array, *, axis_name: str | None = None
) -> jax.Array:
    """The supervised baseline: the embedding is taken for class logits; unlabelled rows give 0."""
    del axis_name  # every row is judged by itself
    label_BV = jnp.broadcast_to(jnp.maximum(label_B, 0)[:, None], logits_BVK.shape[:2])
    loss = optax.softmax_cross_entropy_with_integer_labels(logits_BVK, label_BV)
    return jnp.where(label_B[:, None] >= 0, loss, 0.0)


KINDS = {
    "nt_xent": Kind(losses.nt_xent, ("temperature", "normalize")),
    "nt_logistic": Kind(losses.nt_logistic, ("temperature", "semi_hard")),
    "nt_margin": Kind(losses.nt_margin, ("margin", "semi_hard")),
    "decoupled": Kind(losses.decoupled, ("temperature", "sigma")),
    "hard_negatives": Kind(losses.debiased_nt_xent, ("temperature", "tau_plus", "beta")),
    "sup_con": Kind(losses.sup_con, ("temperature", "positives"), labelled=True),
    "cross_entropy": Kind(_cross_entropy, (), labelled=True),
}


def pair_loss(
    kind: str = "nt_xent",
    temperature: float = 0.5,
    normalize: bool | None = None,
    semi_hard: bool | None = None,
    margin: float | None = None,
    sigma: float | None = None,
    tau_plus: float | None = None,
    beta: float | None = None,
    positives: str | None = None,
    *,
    mesh: Mesh,
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The loss of the config's `loss`: (z_BVD, label_B) -> [B,V], keys gathered over the mesh.

    An option of None is left to the loss; one that the kind does not take is refused.

    Args:
      kind: "nt_xent" (SimCLR), "nt_logistic", "nt_margin", "decoupled", "hard_negatives", and two
        that read the labels: "sup_con" and "cross_entropy", for which the head's output is the
        class logits.
      temperature: of the softmax or sigmoid, positive; the entropy among the metrics has it too.
      normalize: of nt_xent: False compares embeddings by their inner products.
      semi_hard: of nt_logistic and nt_margin: negatives less alike than the positive only.
      margin: of nt_margin, in cosine similarity.
      sigma: of decoupled: the width of its weights.
      tau_plus, beta: of hard_negatives: chance of a false negative, weight of the hard ones.
      positives: of sup_con: "outside" or "inside" the logarithm.
      mesh: the devices.

    Raises:
      ValueError: an unknown kind, an option that it does not take, a temperature of 0 or less.
    """
    if kind not in KINDS:
        raise ValueError(f"loss kind is {kind!r}; give one of {tuple(KINDS)}")
    if temperature <= 0:
        raise ValueError(f"loss temperature is {temperature}; give a positive number")
    chosen = KINDS[kind]
    options = {"normalize": normalize, "semi_hard": semi_hard, "margin": margin, "sigma": sigma}
    options |= {"tau_plus": tau_plus, "beta": beta, "positives": positives}
    given = {name: value for name, value in options.items() if value is not None}
    for name, value in given.items():
        if name not in chosen.options:
            raise ValueError(f"loss {name} is {value}, which {kind!r} does not take; leave it out")
    given |= {"temperature": temperature} if "temperature" in chosen.options else {}
    loss = functools.partial(chosen.loss, **given)
    sharded = parallel.shard_loss(loss, mesh, n_sharded=2 if chosen.labelled else 1)
    return sharded if chosen.labelled else lambda z_BVD, label_B: sharded(z_BVD)
