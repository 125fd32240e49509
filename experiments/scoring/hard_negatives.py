"""Negatives of texts that the encoder mines again every so many steps, over the training documents.

They are the table of `objectives/mined.py`, so a checkpoint has them; a run that resumes at a step
where they are due mines them again, with the same result.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

from contrastive_jax import mining, training
from contrastive_jax.data.examples import Mineable
from contrastive_jax.data.text.tokens import Tokens
from contrastive_jax.mining import Negatives
from contrastive_jax.objectives.mined import TABLE
from contrastive_jax.types import TrainState
from experiments.run.build import Run
from experiments.run.sections import as_kwargs
from experiments.scoring import texts

WRITTEN = ("found", "mean_margin", "above_positive")  # of the report, into metrics.jsonl


class Settings(NamedTuple):
    """How negatives are mined in training."""

    every_steps: int
    ranks: tuple[int, ...]
    margin: float | None
    relative_margin: float | None
    sample: bool


def settings(
    every_steps: int = 0,
    ranks: tuple[int, ...] = (0, 50),
    margin: float | None = None,
    relative_margin: float | None = None,
    sample: bool = False,
) -> Settings:
    """Choose how negatives are mined in training, by the keys of the config's `mine`.

    Args:
      every_steps: steps between two searches of all training documents; 0 for never. Before the
        first one the negatives are those of the data.
      ranks: first and last among the documents that are no positives, from 0.
      margin, relative_margin: how far below the worst positive a negative must score at least, in
        cosine, or as a fraction of the positive's.
      sample: a random choice of what remains, another one each time; not the best of it.

    Raises:
      ValueError: a number out of range.
    """
    if every_steps < 0:
        raise ValueError(f"mine.every_steps is {every_steps}; give 0 or more")
    if len(ranks) != 2 or not 0 <= ranks[0] < ranks[1]:
        raise ValueError(f"mine.ranks is {ranks}; give the first and the last, such as (5, 50)")
    return Settings(every_steps, ranks, margin, relative_margin, sample)


def of_run(run: Run) -> Settings:
    """Read how a run mines."""
    return settings(**as_kwargs(run.config, "mine"))


def refresh(run: Run) -> training.Refresh | None:
    """Mine as often as the config asks; None where it does not."""
    chosen, mineable = of_run(run), texts.texts_of(run).mineable
    if mineable is None or not chosen.every_steps:
        return None

    def renew(state: TrainState, step: int) -> tuple[TrainState, Mapping[str, float]]:
        mined = _mine(run, state, step, mineable, chosen)
        table_NK = np.where(mined.valid, mined.index, -1)[mineable.query_N].astype(np.int32)
        report = {f"mined_{name}": mining.report(mined)[name] for name in WRITTEN}
        known = {name: value for name, value in report.items() if not math.isnan(value)}
        return _with_table(state, table_NK), known

    return training.Refresh(chosen.every_steps, renew)


def check(run: Run) -> list[str]:
    """Ask what `texts.check` asks, and whether as many negatives can be mined.

    Raises:
      ValueError: naming both numbers.
    """
    chosen, mineable = of_run(run), texts.texts_of(run).mineable
    if mineable is None or not chosen.every_steps:
        return texts.check(run)
    n, (first, last) = run.config.data.n_negatives, chosen.ranks
    if last - first < n:
        raise ValueError(f"mine.ranks {chosen.ranks} hold fewer than the {n} of data.n_negatives")
    if last > len(mineable.corpus):
        raise ValueError(
            f"mine.ranks end at {last}, above the {len(mineable.corpus)} training documents"
        )
    never = chosen.every_steps >= run.plan.steps
    said = f"mine.every_steps is {chosen.every_steps} of {run.plan.steps} steps: nothing is mined"
    return [*texts.check(run), *([said] if never else [])]


def _mine(
    run: Run, state: TrainState, step: int, mineable: Mineable, chosen: Settings
) -> Negatives:
    """Rank the training documents for each query, and choose; none that is joined to its pairs."""
    query, document = Tokens(*mineable[:2]), Tokens(*mineable[2:4])
    key = jax.random.fold_in(training.stream_key(run.plan.seed, training.REFRESH_STREAM), step)
    mined = mining.mine_in_blocks(
        texts.embed_tokens(run, state, "query", query, query.tokens_NL.shape[1]),
        texts.embed_tokens(run, state, "document", document, document.tokens_NL.shape[1]),
        mineable.positives_QP,
        mineable.excluded_QE,
        key=key if chosen.sample else None,
        n_negatives=run.config.data.n_negatives,
        ranks=chosen.ranks,
        margin=chosen.margin,
        relative_margin=chosen.relative_margin,
    )
    own_Q = mineable.corpus_id[mineable.positives_QP[:, 0]]
    return mined._replace(valid=mined.valid & (mineable.corpus_id[mined.index] != own_Q[:, None]))


def _with_table(state: TrainState, table_NK: np.ndarray) -> TrainState:
    """Put a table in the place of the one before, on the same devices."""
    before = state.model_state[TABLE]
    placed = jax.make_array_from_callback(
        before.shape, before.sharding, lambda index: table_NK[index]
    )
    return state._replace(model_state={**state.model_state, TABLE: placed})
