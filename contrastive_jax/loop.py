"""The one training loop, for a run alone or for several whose states are stacked."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from contrastive_jax import metrics as metrics_lib
from contrastive_jax.checkpoint import Checkpointer
from contrastive_jax.types import Batch, Metrics, TrainState


class Finished(NamedTuple):
    """What a call of `train.run` leaves behind."""

    state: TrainState
    step: int
    compile_seconds: float
    train_seconds: float


class Evaluator(NamedTuple):
    """`measure(state, step)` is called every `every` steps and adds its metrics to the row."""

    every: int
    measure: Callable[[TrainState, int], Mapping[str, Any]]


class Record(NamedTuple):
    """What training leaves of one run on its way, as `train.run` explains it."""

    write: Callable[[int, Mapping[str, Any]], None]
    checkpointer: Checkpointer | None = None
    meta: Mapping[str, Any] | None = None
    evaluators: Sequence[Evaluator] = ()
    name: str = ""  # whose metrics are not finite


class Stage(NamedTuple):
    """From which step on a program trains."""

    start: int
    train_step: Callable[..., Any]  # under jax.jit: `train.compiled`


class Trainee(NamedTuple):
    """What the loop trains: one run, or several whose state and metrics are stacked."""

    stages: Sequence[Stage]  # in order, the first from step 0 on
    batch_at: Callable[[int], Batch]  # what is sent for a step, on the devices
    resident: Batch
    key: jax.Array  # of augmentation
    records: Sequence[Record]  # one for each run
    states: Callable[[TrainState], Sequence[TrainState]]  # that of each run
    rows: Callable[[Mapping[str, Any]], Sequence[Mapping[str, Any]]]  # of metrics on the host


def loop(
    trainee: Trainee,
    state: TrainState,
    step: int,
    steps: int,
    log_every: int,
    *,
    on_step: Callable[[int], None],
    stop: Callable[[], bool],
) -> Finished:
    """Train from `state` at `step` to the last of `steps`, or until `stop()`: see `train.run`."""
    resident, key, records = trainee.resident, trainee.key, trainee.records
    log = _LateLog(trainee, step)
    started, compiling = time.perf_counter(), 0.0
    stage = running = None
    train_step: Any = None

    while step < steps:
        with jax.transfer_guard("disallow"):
            sent = trainee.batch_at(step)
            due = [each for each in trainee.stages if each.start <= step][-1]
            if due is not stage:  # compiled ahead, so that a second compilation is an error
                jax.block_until_ready(state)
                began, stage = time.perf_counter(), due
                train_step = due.train_step.lower(state, resident, sent, key).compile()  # type: ignore
                compiling += time.perf_counter() - began
            state, metrics = train_step(state, resident, sent, key)
        if not resident:  # streamed batches are large: one in use and one on its way are enough
            jax.block_until_ready(running)
            running = metrics
        step += 1
        log.flush()
        on_step(step)
        last = step == steps or stop()
        done = step == steps
        looks = any(done or step % e.every == 0 for record in records for e in record.evaluators)
        if looks or done or step == 1 or step % log_every == 0:
            log.hold(step, metrics, _measured(trainee, state, step, done) if looks else None)
        _save(trainee, state, metrics, step, log, last)
        if last:
            break

    log.flush()
    jax.block_until_ready(state)
    seconds = time.perf_counter() - started
    return Finished(state, step, compiling, seconds - compiling)


def _measured(trainee: Trainee, state: TrainState, step: int, done: bool) -> list[dict[str, Any]]:
    """What each run's evaluators that are due say of it."""
    measured = []
    for record, own in zip(trainee.records, trainee.states(state), strict=True):
        due = [e for e in record.evaluators if done or step % e.every == 0]
        measured.append({k: v for e in due for k, v in e.measure(own, step).items()})
    return measured


def _save(
    trainee: Trainee,
    state: TrainState,
    metrics: Metrics,
    step: int,
    log: "_LateLog",
    last: bool,
) -> None:
    """A checkpoint of each run for which one is due, once its metrics are known to be finite."""
    savers = [record.checkpointer for record in trainee.records]
    if not any(saver is not None and (last or saver.due(step)) for saver in savers):
        return
    log.flush()
    rows = trainee.rows(jax.device_get(dict(metrics)))
    states, logged = trainee.states(state), log.rows_of(step)
    for record, own, row, logged_row in zip(trainee.records, states, rows, logged, strict=True):
        metrics_lib.require_finite(_of_the_state(row), step, log.last_finite, record.name)
        if record.checkpointer is not None:
            record.checkpointer.save(step, own, meta=dict(record.meta or {}), metrics=logged_row)


def _of_the_state(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """What has to be finite: of a step that was left out, its update only, which is zero.

    When too many in a row were not finite the optimizer applies one: its update is not.
    """
    left_out = "skipped_in_a_row" in row and float(row["skipped_in_a_row"]) > 0
    return {"update_norm": row["update_norm"]} if left_out else row


class _LateLog:
    """Holds the metrics of one step until the next one runs, then checks and writes them."""

    def __init__(self, trainee: Trainee, step: int):
        self._records, self._split = trainee.records, trainee.rows
        self._held: tuple[int, Mapping[str, Any], Sequence[Mapping[str, Any]]] | None = None
        self.last_finite: int | None = step or None
        self._last_rows: list[dict[str, float]] = []

    def hold(
        self,
        step: int,
        metrics: Mapping[str, Any],
        measured: Sequence[Mapping[str, Any]] | None,
    ) -> None:
        """Metrics of all runs, and what was measured beside them of each."""
        self._held = (step, metrics, measured or [{} for _ in self._records])

    def flush(self) -> None:
        if self._held is None:
            return
        step, metrics, measured = self._held
        self._held = None
        metrics, measured = jax.device_get((dict(metrics), measured))
        rows = [
            {name: float(value) for name, value in {**row, **own}.items()}
            for row, own in zip(self._split(metrics), measured, strict=True)
        ]
        for record, row in zip(self._records, rows, strict=True):
            record.write(step, row)
        for record, row in zip(self._records, rows, strict=True):
            metrics_lib.require_finite(_of_the_state(row), step, self.last_finite, record.name)
        self.last_finite, self._last_rows = step, rows

    def rows_of(self, step: int) -> Sequence[dict[str, float] | None]:
        """What is finite in each run's row of this very step, None if it was not logged."""
        if self.last_finite != step:
            return [None] * len(self._records)
        return [{k: v for k, v in row.items() if math.isfinite(v)} for row in self._last_rows]
