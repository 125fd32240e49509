"""The training loop: steps on the devices, metrics one step late, checkpoints of finite states."""

import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import jax
import optax

from contrastive_jax import parallel
from contrastive_jax.errors import NonFiniteError
from contrastive_jax.parallel import Mesh
from contrastive_jax.training.checkpoint import Checkpointer
from contrastive_jax.training.step import AUGMENT_STREAM, Plan, make_train_step, stream_key
from contrastive_jax.types import Feed, Objective, TrainState


class StepCost(NamedTuple):
    """What a step takes: seconds, and bytes of a device's memory."""

    seconds: float  # mean over the steps, without compilation, evaluation and checkpoints
    bytes: int | None  # arguments and temporaries of the compiled step; None: XLA does not say


class Finished(NamedTuple):
    """The result of `run`."""

    state: TrainState
    step: int
    compile_seconds: float
    train_seconds: float  # all that is not compilation
    cost: StepCost | None  # None where no step was left to do


class Evaluator(NamedTuple):
    """`measure(state, step)` is called every `every` steps and adds its metrics to the row."""

    every: int
    measure: Callable[[TrainState, int], Mapping[str, Any]]


class Refresh(NamedTuple):
    """`renew(state, step)` replaces a part of the state after every `every` steps.

    It comes before the next step and is a function of the state, so that a run that resumes there
    does it again. Its metrics stand in the row of that next step.
    """

    every: int
    renew: Callable[[TrainState, int], tuple[TrainState, Mapping[str, float]]]


def run(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    feed: Feed,
    state: TrainState,
    *,
    plan: Plan,
    mesh: Mesh,
    write: Callable[[int, Mapping[str, Any]], None],
    checkpointer: Checkpointer | None = None,
    meta: Mapping[str, Any] | None = None,
    evaluators: Sequence[Evaluator] = (),
    refresh: Refresh | None = None,
    on_step: Callable[[int], None] = lambda step: None,
    stop: Callable[[], bool] = lambda: False,
) -> Finished:
    """Train from `state` to the last step of the plan, or until `stop()`.

    A row of metrics is written one step late, when the next step is already on its way, so that
    reading it does not hold the device up. A checkpoint is written only after the metrics of its
    step were found finite.

    Args:
      objective, optimizer, feed: what to train and on what.
      state: where to begin: of `make_init` or of a checkpoint. It is donated.
      plan: length, seed and logging interval.
      mesh: the devices.
      write: called with (step, metrics) for every logged step, in order.
      checkpointer: where to save, or None.
      meta: goes into every checkpoint beside the state.
      evaluators: measured at their own intervals and at the end.
      refresh: what replaces a part of the state between steps.
      on_step: called after each step is dispatched: a progress bar.
      stop: asked after each step; True saves and returns.

    Raises:
      NonFiniteError: a metric became NaN or infinite. The last checkpoint is from before that.
      CheckpointError: a checkpoint could not be written.
    """
    first = step = int(jax.device_get(state.step))
    resident = parallel.put_replicated(dict(feed.resident), mesh)
    root = functools.partial(stream_key, plan.seed, AUGMENT_STREAM)
    key = jax.jit(root, out_shardings=parallel.replicated(mesh))()
    log = _LateLog(write, step)
    train_step = running = None
    started, compiling, beside = time.perf_counter(), 0.0, _Beside()

    while step < plan.steps:
        renewed: Mapping[str, float] = {}
        if refresh is not None and step > 0 and step % refresh.every == 0:
            with beside(state):
                state, renewed = refresh.renew(state, step)
        with jax.transfer_guard("disallow"):
            sent = parallel.put_batch(feed.batch_at(step), mesh)
            if train_step is None:  # compiled ahead, so that a second compilation is an error
                began = time.perf_counter()
                lowered = make_train_step(objective, optimizer, feed, mesh)
                train_step = lowered.lower(state, resident, sent, key).compile()
                compiling = time.perf_counter() - began
            state, metrics = train_step(state, resident, sent, key)
        if (
            feed.spec is not None
        ):  # streamed batches are large: one in use and one on its way are enough
            jax.block_until_ready(running)
            running = metrics
        step += 1
        log.flush()
        on_step(step)
        done = step == plan.steps
        last = done or stop()
        due = [e for e in evaluators if done or step % e.every == 0]
        if due or done or renewed or step == 1 or step % plan.log_every == 0:
            with beside(state) if due else nullcontext():
                measured = {k: v for e in due for k, v in e.measure(state, step).items()}
            log.hold(step, {**metrics, **renewed, **measured})
        if checkpointer is not None and (last or checkpointer.due(step)):
            log.flush()
            require_finite(_of_the_state(metrics), step, log.last_finite)
            row = log.finite_row(step)
            with beside(state):
                checkpointer.save(step, state, meta=dict(meta or {}), metrics=row)
        if last:
            break

    log.flush()
    jax.block_until_ready(state)
    training = time.perf_counter() - started - compiling
    cost = None
    if train_step is not None:
        cost = StepCost((training - beside.seconds) / (step - first), held_bytes(train_step))
    return Finished(state, step, compiling, training, cost)


def held_bytes(compiled: Any) -> int | None:
    """Count what a compiled function needs of each device: arguments, temporaries, other outputs.

    >>> double = jax.jit(lambda x: 2 * x).lower(jax.ShapeDtypeStruct((256,), "float32")).compile()
    >>> held_bytes(double)  # 1024 in, 1024 out
    2048
    """
    stats = compiled.memory_analysis()
    if stats is None:
        return None
    outputs = stats.output_size_in_bytes - stats.alias_size_in_bytes  # but for donated arguments
    return stats.argument_size_in_bytes + stats.temp_size_in_bytes + outputs


class _Beside:
    """Counts the seconds of what is done between steps; those on their way are waited for."""

    seconds = 0.0

    @contextmanager
    def __call__(self, state: TrainState) -> Iterator[None]:
        jax.block_until_ready(state)
        began = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - began


class _LateLog:
    """Holds the metrics of one step until the next one runs, then writes and checks them."""

    def __init__(self, write: Callable[[int, Mapping[str, float]], None], step: int):
        self._write = write
        self._held: tuple[int, Mapping[str, Any]] | None = None
        self._last_row: dict[str, float] = {}
        self.last_finite: int | None = step or None

    def hold(self, step: int, metrics: Mapping[str, Any]) -> None:
        self._held = (step, metrics)

    def flush(self) -> None:
        if self._held is None:
            return
        (step, metrics), self._held = self._held, None
        row = {name: float(value) for name, value in jax.device_get(dict(metrics)).items()}
        self._write(step, row)
        require_finite(_of_the_state(row), step, self.last_finite)
        self.last_finite, self._last_row = step, row

    def finite_row(self, step: int) -> dict[str, float] | None:
        """What is finite in the row of this very step, None if it was not logged."""
        if self.last_finite != step:
            return None
        return {name: value for name, value in self._last_row.items() if math.isfinite(value)}


def _of_the_state(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """What has to be finite: of a step that was skipped, its update only, which is zero.

    When too many in a row were not finite the optimizer applies one: its update is not.
    """
    skipped = "skipped_in_a_row" in row and float(row["skipped_in_a_row"]) > 0
    return {"update_norm": row["update_norm"]} if skipped else row


def require_finite(metrics: Mapping[str, Any], step: int, previous_step: int | None = None) -> None:
    """Stop the run when a metric is NaN or infinite.

    Args:
      metrics: scalars by name.
      step: the step that the metrics belong to.
      previous_step: the last step that was checked and found finite, None for none.

    Raises:
      NonFiniteError: names each non-finite metric and the steps in which it may have started.

    >>> require_finite({"loss": 1.5}, step=20, previous_step=10)
    """
    values = {name: float(value) for name, value in jax.device_get(dict(metrics)).items()}
    bad = [f"{name} = {value}" for name, value in values.items() if not math.isfinite(value)]
    if not bad:
        return
    first = min(1 if previous_step is None else previous_step + 1, step)
    steps = f"step {step}" if first == step else f"steps {first} to {step}"
    more = f" and {len(bad) - 4} more" if len(bad) > 4 else ""
    raise NonFiniteError(
        f"Training is not finite: {', '.join(bad[:4])}{more}, since {steps}.\n"
        "Lower the learning rate, lengthen the warm-up or raise the temperature.",
        range(first, step + 1),
    )
