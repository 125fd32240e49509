"""Score a finished run again: kNN and linear probes on its frozen features.

python -m experiments.linear_probe --config configs/digits.py --workdir runs/digits

--config FILE[:preset]         the config that the run was trained with
--workdir DIR                  the run (default: runs/NAME)
--step STEP|latest|best        which of its checkpoints (default: latest)
--config.eval.key=value        change how it is scored
"""

import os
from collections.abc import Sequence
from pathlib import Path

from contrastive_jax import workdir
from contrastive_jax.errors import CheckpointError
from experiments import command_line, console, launch, restore, scoring
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
        wanted = command.strings["step"] or "latest"
        restored = restore.checkpoint(run, command.config, folder, wanted)
        origin = launch.provenance(command.config, restored.step, {})
        untrained = launch.fresh_state(run)
        name = "linear_probe"
        summary = scoring.score(run, restored.state, untrained, folder, origin, name=name)
    print(console.table(summary["evaluations"]))
    return 0


if __name__ == "__main__":
    command_line.exit_with(main)
