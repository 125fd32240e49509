"""Train an objective: the first state, the step, the loop, optimizers, checkpoints."""

from contrastive_jax.training.loop import Evaluator, Finished, Refresh, StepCost, held_bytes, run
from contrastive_jax.training.step import (
    AUGMENT_STREAM,
    INIT_STREAM,
    REFRESH_STREAM,
    Plan,
    abstract_state,
    batch_spec,
    lowered_step,
    make_init,
    make_step,
    make_train_step,
    plan,
    stream_key,
)

__all__ = [
    "AUGMENT_STREAM",
    "INIT_STREAM",
    "REFRESH_STREAM",
    "Evaluator",
    "Finished",
    "Plan",
    "Refresh",
    "StepCost",
    "abstract_state",
    "batch_spec",
    "held_bytes",
    "lowered_step",
    "make_init",
    "make_step",
    "make_train_step",
    "plan",
    "run",
    "stream_key",
]
