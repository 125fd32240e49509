"""Seeds of one config trained at once, each in its own folder as if it had been alone."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from ml_collections import ConfigDict

from contrastive_jax import together, train
from contrastive_jax.loop import Record
from experiments import console, launch, scoring
from experiments.stopping import StopSignal

Member = tuple[launch.Run, ConfigDict, Path]


def train_and_score(
    members: Sequence[Member], signals: StopSignal, *, name: str, command: str
) -> bool:
    """`launch.train_and_score` for seeds of one config; those at the same step train at once.

    Args:
      members: runs that share all but the seed, each with its config and a folder that this process
        holds.
      signals: asked after each step.
      name: of the runs, for their banners.
      command: what a person typed.

    Returns:
      False if they were stopped on request and saved.
    """
    words = {"name": name, "command": command}
    with ExitStack() as stack:
        begun = [launch.begin(*member, stack, **words) for member in members]
        for group in standing_together(begun):
            for own, finished in zip(group, _trained(group, signals), strict=True):
                if launch.conclude(own, finished, at_once=len(group)) is None:
                    return False
    return True


def standing_together(begun: Sequence[launch.Begun]) -> list[list[launch.Begun]]:
    """Those at the same step, in the order in which their first one came."""
    groups: dict[int, list[launch.Begun]] = {}
    for run in begun:
        groups.setdefault(run.step, []).append(run)
    return list(groups.values())


def _trained(group: Sequence[launch.Begun], signals: StopSignal) -> list[train.Finished]:
    with ExitStack() as stack:
        if len(group) == 1:
            finished = [launch.train_alone(group[0], signals, stack)]
        else:
            finished = _train_together(group, signals, stack)
    for own in group:
        own.checkpointer.wait()
    return finished


def _train_together(
    group: Sequence[launch.Begun], signals: StopSignal, stack: ExitStack
) -> list[train.Finished]:
    run, seeds = group[0].run, [own.run.plan.seed for own in group]
    print(f"{len(group)} at once, of seeds {seeds}; shown are the rows of the first", flush=True)
    images = run.dataset.batch_size * len(group)
    progress = console.Progress(group[0].step, run.plan.steps, images)
    stack.callback(progress.close)

    def on_step(step: int) -> None:
        finish_first()
        progress.on_step(step)

    shown = [progress.on_row, *[_nowhere] * (len(group) - 1)]
    records = [_record(own, stack, show) for own, show in zip(group, shown, strict=True)]
    with signals.deferred() as finish_first:
        return together.run(
            run.objective,
            run.optimizer,
            [own.run.feed for own in group],
            [own.state for own in group],
            plans=[own.run.plan for own in group],
            mesh=run.mesh,
            records=records,
            on_step=on_step,
            stop=lambda: signals.requested,
        )


def _record(
    own: launch.Begun, stack: ExitStack, show: Callable[[int, Mapping[str, float]], None]
) -> Record:
    write = launch.row_writer(own, stack, show)
    looks, name = scoring.evaluators(own.run), f"seed {own.run.plan.seed}"
    return Record(write, own.checkpointer, launch.meta(own), looks, name)


def _nowhere(step: int, row: Mapping[str, float]) -> None:
    del step, row
