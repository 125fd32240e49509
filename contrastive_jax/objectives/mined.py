"""Hard negatives that training mines again as it goes: rows of a corpus, a part of the state.

    negatives of pair i = documents at table[i],   table [N,K] mined by an earlier encoder

The table is in the model state, so that a checkpoint has it, and is replaced between steps.
Xiong et al. 2021 (ANCE, arXiv 2007.00808), section 4.2, for negatives of a refreshed index.
"""

from typing import Any

import jax
import jax.numpy as jnp

from contrastive_jax.types import Batch, LossOutput, ModelState, Objective, Params

TABLE = "negatives"  # its name in the model state


def from_table(objective: Objective, first_NK: Any) -> Objective:
    """Make an objective take the negatives of a batch from a table in its model state.

    Args:
      objective: as of `dual.make`; its model state is a dict.
      first_NK: int32, the first table: for each of N pairs rows of the corpus, -1 for none.

    Returns:
      The objective, whose batches have "index" [B], "corpus" [M,L], "corpus_length" [M] and
      "corpus_id" [M] in place of negatives, and of a guided loss "corpus_guide" [M,G].
    """

    def init(key: jax.Array, batch: Batch) -> tuple[Params, ModelState]:
        params, model_state = objective.init(key, batch)
        return params, {**model_state, TABLE: jnp.asarray(first_NK, jnp.int32)}

    def loss(
        params: Params, model_state: ModelState, batch: Batch, key: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, LossOutput]:
        own = {name: value for name, value in model_state.items() if name != TABLE}
        table_NK = model_state[TABLE]
        filled = {**batch, **negatives_at(table_NK, batch)}
        value, out = objective.loss(params, own, filled, key, step)
        return value, LossOutput({**out.model_state, TABLE: table_NK}, out.metrics)

    return objective._replace(init=init, loss=loss)


def negatives_at(table_NK: jax.Array, batch: Batch) -> dict[str, jax.Array]:
    """Gather the negatives of the pairs of a batch.

    >>> batch = {"index": jnp.array([1]), "corpus": jnp.array([[7], [8]])}
    >>> batch |= {"corpus_length": jnp.array([1, 1]), "corpus_id": jnp.array([4, 5])}
    >>> found = negatives_at(jnp.array([[0, -1], [1, -1]]), batch)
    >>> found["negatives"].ravel().tolist(), found["negatives_mask"].tolist()
    ([8, 7], [[True, False]])
    """
    place_BK = table_NK[batch["index"]]
    row_BK = jnp.maximum(place_BK, 0)
    guided = {"negatives_guide": batch["corpus_guide"][row_BK]} if "corpus_guide" in batch else {}
    return {
        **guided,
        "negatives": batch["corpus"][row_BK],
        "negatives_length": batch["corpus_length"][row_BK],
        "negatives_id": batch["corpus_id"][row_BK],
        "negatives_mask": place_BK >= 0,
    }
