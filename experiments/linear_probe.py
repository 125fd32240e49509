"""Score a finished run again: kNN and linear probes on its frozen features.

python -m experiments.linear_probe --config configs/digits.py --workdir runs/digits

--config FILE[:preset]         the config that the run was trained with
--workdir DIR                  the run (default: runs/NAME)
--step STEP|latest|best        which of its checkpoints (default: latest)
--config.eval.key=value        change how it is scored
"""

from collections.abc import Sequence

from contrastive_jax.storage import workdir
from experiments.run import command_line, console, lifecycle, provenance, restore
from experiments.scoring import summary
from experiments.simclr import EXPERIMENT


def main(argv: Sequence[str]) -> int:
    """Restore, score, write results/linear_probe.json."""
    command = command_line.parse(argv, __doc__ or "", restore.STEP_FLAG)
    command_line.check(command.config, {**lifecycle.SHARED_SECTIONS, **EXPERIMENT.sections})
    folder = restore.folder_of(command)
    lifecycle.set_up_jax()
    with workdir.lock(folder):
        run, step, trained, untrained = restore.restore(EXPERIMENT, command, folder)
        origin = provenance.of_run(command.config, step, {})
        name = "linear_probe"
        scored = summary.score(run, trained, untrained, folder, origin, name=name)
    print(console.table(scored["evaluations"]))
    return 0


if __name__ == "__main__":
    command_line.exit_with(main)
