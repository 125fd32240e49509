"""Score a finished run again: kNN and linear probes on its frozen features; retrieval of texts.

python -m experiments.linear_probe runs/digits
python -m experiments.linear_probe runs/digits --step best --config.eval.draws=20

RUN                            the folder of a run, of any method; its config is in it
--step STEP|latest|best        which of its checkpoints (default: latest)
--config.eval.key=value        change how it is scored
--data_dir DIR                 where its data is now, if it has moved
--config FILE --workdir DIR    the older way to name the run; the config must be the run's
"""

import sys
from collections.abc import Sequence

from experiments.run import command_line, console, lifecycle, provenance, restore
from experiments.run.command_line import Command
from experiments.run.restore import OpenedRun


def main(argv: Sequence[str]) -> int:
    """Restore, score, write results/linear_probe.json."""
    return score_again(*restore.parse(argv, __doc__ or ""), "linear_probe")


def score_again(command: Command, opened: OpenedRun, name: str) -> int:
    """Score a run as after its training, and write results/NAME.json."""
    lifecycle.set_up_jax()
    with restore.place_for_results(opened.folder) as place:
        run, step, trained = opened.load(command.strings["step"] or "latest")
        origin = provenance.of_scores(run, opened.description, step)
        summary = run.experiment.kind.score(run, trained, place, origin, name=name)
        print(console.table(summary["evaluations"]))
    return 0


if __name__ == "__main__":
    with command_line.exit_codes():
        sys.exit(main(sys.argv))
