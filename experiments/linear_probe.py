"""Score a finished run again: kNN and linear probes on its frozen features.

python -m experiments.linear_probe --config configs/digits.py --workdir runs/digits

--config FILE[:preset]         the config that the run was trained with
--workdir DIR                  the run (default: runs/NAME)
--step STEP|latest|best        which of its checkpoints (default: latest)
--config.eval.key=value        change how it is scored
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from contrastive_jax import train, workdir
from contrastive_jax.checkpoint import Checkpointer, Restored
from contrastive_jax.errors import CheckpointError, ConfigError
from experiments import command_line, console, launch, scoring
from experiments.simclr import EXPERIMENT


def main(argv: Sequence[str]) -> int:
    """Restore, score, write results/linear_probe.json."""
    flags = {"step": "which checkpoint: a number, latest or best"}
    command = command_line.parse(argv, __doc__ or "", flags)
    command_line.check(command.config, {**launch.SHARED_SECTIONS, **EXPERIMENT.sections})
    folder = Path(command.workdir or os.path.join("runs", command.name)).expanduser().absolute()
    if not (folder / "checkpoints").is_dir():
        raise CheckpointError(f"{folder} holds no run; pass --workdir with the folder of one.")
    launch.set_up_jax()
    run = launch.build(EXPERIMENT, command.config)
    with workdir.lock(folder):
        restored = _restore(run, command, folder)
        origin = launch.provenance(command.config, restored.step, {})
        untrained = launch.fresh_state(run)
        name = "linear_probe"
        summary = scoring.score(run, restored.state, untrained, folder, origin, name=name)
    print(console.table(summary["evaluations"]))
    return 0


def _restore(run: launch.Run, command: command_line.Command, folder: Path) -> Restored:
    settings = command_line.as_kwargs(command.config, "checkpoint")
    abstract = train.abstract_state(run.objective, run.optimizer, run.feed, run.mesh)
    with Checkpointer(folder / "checkpoints", **settings) as checkpointer:
        step = _step(command.strings["step"] or "latest", checkpointer)
        restored = checkpointer.restore(abstract, step=step)
    if restored is None:
        raise CheckpointError(f"{folder} has no checkpoint yet; train it first.")
    for line in restored.skipped:
        print(f"warning: {line}", file=sys.stderr)
    return restored


def _step(wanted: str, checkpointer: Checkpointer) -> int | None:
    if wanted == "latest":
        return None
    step = checkpointer.best_step() if wanted == "best" else None
    step = int(wanted) if wanted.isdecimal() else step
    if step not in checkpointer.steps():
        raise ConfigError(f"--step {wanted}: the checkpoints are {checkpointer.steps()}.")
    return step


if __name__ == "__main__":
    command_line.exit_with(main)
