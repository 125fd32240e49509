"""The training loop: steps on the devices, metrics one step late, checkpoints of finite states."""

import functools
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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

_JUDGED_STEPS, _LONG_WAIT = 100, 0.1  # after so many steps a warning says that input is the limit
_SLOW_INPUT = (
    "input is the limit: the devices waited for images in %.0f %% of the last %d steps' time\n"
    "Give more data.workers, up to the processors of the host, or store the images smaller"
)
_log = logging.getLogger(__name__)


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

    The rows of a streamed feed hold two more, of the steps since the row before: `input_wait` is
    the share of the time in which the devices of this process had ended a step and the next batch
    had not come, and `images_read_per_second` counts those of the global batch.

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
    train_step = None
    started, compiling, beside = time.perf_counter(), 0.0, _Beside()
    waiting = None if feed.spec is None else _InputWait(len(feed.rows_at(step)), beside)
    place = parallel.put_batch if waiting is None else parallel.put_local_batch

    while step < plan.steps:
        renewed: Mapping[str, float] = {}
        if refresh is not None and step > 0 and step % refresh.every == 0:
            with beside(state):
                state, renewed = refresh.renew(state, step)
        with jax.transfer_guard("disallow"):
            asked = time.perf_counter()
            read = feed.batch_at(step)
            came = time.perf_counter()
            sent = place(read, mesh)
            if train_step is None:  # compiled ahead, so that a second compilation is an error
                began = time.perf_counter()
                lowered = make_train_step(objective, optimizer, feed, mesh)
                train_step = lowered.lower(state, resident, sent, key).compile()
                compiling = time.perf_counter() - began
            state, metrics = train_step(state, resident, sent, key)
        step += 1
        if waiting is not None:
            waiting.count(asked, came, metrics)
        log.flush()
        on_step(step)
        done = step == plan.steps
        last = done or stop()
        due = [e for e in evaluators if done or step % e.every == 0]
        if due or done or renewed or step == 1 or step % plan.log_every == 0:
            with beside(state) if due else nullcontext():
                measured = {k: v for e in due for k, v in e.measure(state, step).items()}
            waited = {} if waiting is None else waiting.row()
            log.hold(step, {**metrics, **renewed, **measured, **waited})
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


class _InputWait:
    """Measures for how long the devices wait for streamed batches.

    These are large: one in use and one on its way are enough, so each step is waited for once the
    next one is on its way.
    """

    def __init__(self, batch_size: int, beside: _Beside):
        self._batch_size, self._beside = batch_size, beside
        self._watch = ThreadPoolExecutor(1)  # this thread is held up by reading
        self._ended: Future[float] | None = None
        self._steps, self._waited = 0, 0.0
        self._start = self._last = (0, 0.0, 0.0)  # steps, waited, clock

    def count(self, asked: float, came: float, metrics: Mapping[str, jax.Array]) -> None:
        """Count a step that is on its way, whose batch came; the one before has ended after this.

        Args:
          asked, came: when its batch was asked for and when it was there, in seconds.
          metrics: what it returns.
        """
        before, self._ended = self._ended, self._watch.submit(_end_of, metrics)
        if before is None:  # the first, which was compiled: it says nothing about speed
            self._start = self._last = self._now()
            return
        self._steps += 1
        self._waited += max(0.0, came - max(asked, before.result()))
        if self._steps == _JUDGED_STEPS:
            wait, _ = self._since(self._start)
            if wait > _LONG_WAIT:
                _log.warning(_SLOW_INPUT, 100 * wait, _JUDGED_STEPS)

    def row(self) -> dict[str, float]:
        """The metrics of the steps since the last call; none where there was no step."""
        last, self._last = self._last, self._now()
        if self._steps == last[0]:
            return {}
        wait, rate = self._since(last)
        return {"input_wait": wait, "images_read_per_second": rate}

    def _now(self) -> tuple[int, float, float]:
        return self._steps, self._waited, time.perf_counter() - self._beside.seconds

    def _since(self, then: tuple[int, float, float]) -> tuple[float, float]:
        """The share of the time that was waited, and examples a second."""
        steps, waited, seconds = (b - a for a, b in zip(then, self._now(), strict=True))
        return waited / seconds, steps * self._batch_size / seconds


def _end_of(metrics: Mapping[str, jax.Array]) -> float:
    jax.block_until_ready(metrics)
    return time.perf_counter()


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
