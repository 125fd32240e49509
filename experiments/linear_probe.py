"""Score a finished run again: kNN and linear probes on its frozen features.

python -m experiments.linear_probe --config configs/digits.py --workdir runs/digits

--config FILE[:preset]         the config that the run was trained with
--workdir DIR                  the run (default: runs/NAME)
--step STEP|latest|best        which of its checkpoints (default: latest)
--config.eval.key=value        change how it is scored
"""

from collections.abc import Sequence

from contrastive_jax import workdir
from experiments import command_line, console, finished, launch, provenance, scoring
from experiments.simclr import EXPERIMENT


def main(argv: Sequence[str]) -> int:
    """Restore, score, write results/linear_probe.json."""
    command = command_line.parse(argv, __doc__ or "", finished.STEP_FLAG)
    command_line.check(command.config, {**launch.SHARED_SECTIONS, **EXPERIMENT.sections})
    folder = finished.folder_of(command)
    launch.set_up_jax()
    with workdir.lock(folder):
        run, step, trained, untrained = finished.restore(EXPERIMENT, command, folder)
        origin = provenance.of_run(command.config, step, {})
        name = "linear_probe"
        summary = scoring.score(run, trained, untrained, folder, origin, name=name)
    print(console.table(summary["evaluations"]))
    return 0


if __name__ == "__main__":
    command_line.exit_with(main)
