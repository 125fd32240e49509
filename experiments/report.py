"""One self-contained HTML page of runs and ablations: configs, curves, scores, pictures, verdicts.

python -m experiments.report runs/digits
python -m experiments.report runs/a runs/b --to comparison.html
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import contrastive_jax
from contrastive_jax.errors import RunError
from contrastive_jax.storage import workdir
from experiments.reporting import features, folders, html, sections
from experiments.reporting.folders import Ablation, Run
from experiments.run import command_line, lifecycle

Findings = dict[str, features.Pictures | str]  # by run; a str says why there are none


def main(argv: Sequence[str]) -> int:
    """Read the folders, write the page, say where."""
    arguments = _parser().parse_args(argv[1:])
    runs, ablations = folders.read(arguments.folders)
    target = (arguments.to or arguments.folders[0] / "report.html").expanduser().absolute()
    workdir.prepare(target.parent)
    with tempfile.TemporaryDirectory() as scratch:
        findings = {} if arguments.quick else _findings(runs, Path(scratch))
        page = render(runs, ablations, findings, Path(scratch))
    workdir.write_text(target, page)
    print(f"{target}: {len(page.encode()) / 1e6:.1f} MB, nothing else is needed to read it")
    return 0


def render(
    runs: Sequence[Run], ablations: Sequence[Ablation], findings: Findings, scratch: Path
) -> str:
    """The page.

    Args:
      runs, ablations: as `report_runs.read` gives them.
      findings: of the runs that were looked into.
      scratch: an existing folder to draw in.
    """
    parts = sections.of_ablations(ablations)
    parts += sections.of_runs(runs, findings, scratch) if runs else []
    names = ", ".join(item.name for item in [*runs, *ablations])
    counts = [(len(runs), "run"), (len(ablations), "ablation")]
    lead = " and ".join(f"{n} {word}{'s' if n > 1 else ''}" for n, word in counts if n)
    footer = (
        f"Written by `python -m experiments.report`, contrastive_jax {contrastive_jax.__version__}."
    )
    return html.page(names, lead, parts, html.inline(footer))


def _findings(runs: Sequence[Run], scratch: Path) -> Findings:
    lifecycle.set_up_jax()
    found: Findings = {}
    for i, run in enumerate(runs):
        print(f"looking into the latest checkpoint of {run.name}", flush=True)
        out = scratch / str(i)
        out.mkdir()
        try:
            found[run.name] = features.draw(run, out)
        except (RunError, ValueError, OSError, KeyError) as error:
            reason = " ".join(str(error).split())
            found[run.name] = f"{type(error).__name__}: {reason}" if reason else repr(error)
            print(f"warning: {run.name}: no pairs and no confusion: {reason}", file=sys.stderr)
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "folders", type=Path, nargs="+", metavar="DIR", help="workdirs of runs or of ablations"
    )
    parser.add_argument(
        "--to", type=Path, metavar="FILE.html", help="(default: report.html in the first DIR)"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="leave out what needs the checkpoint and the data: pairs and confusion matrix",
    )
    return parser


if __name__ == "__main__":
    with command_line.exit_codes():
        sys.exit(main(sys.argv))
