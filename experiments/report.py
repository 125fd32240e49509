"""One self-contained HTML file on runs and ablations: configs, curves, scores, pictures, verdicts.

python -m experiments.report runs/digits
python -m experiments.report runs/a runs/b --to comparison.html
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from contrastive_jax.errors import ConfigError
from contrastive_jax.storage import workdir
from experiments.reporting import content, features, folders, render
from experiments.run import command_line, lifecycle


def main(argv: Sequence[str]) -> int:
    """Read the folders, write the report, print its path."""
    arguments = _parser().parse_args(argv[1:])
    runs, ablations = folders.read(arguments.folders)
    target = (arguments.to or arguments.folders[0] / "report.html").expanduser().absolute()
    if target.is_dir():
        raise ConfigError(f"--to {target} is a folder; give a file: --to {target}/report.html")
    workdir.prepare(target.parent, "--to")
    with tempfile.TemporaryDirectory() as scratch:
        findings = {} if arguments.quick else _findings(runs, Path(scratch))
        text = render.page(content.of(runs, ablations, findings, Path(scratch)))
    workdir.write_text(target, text)
    print(f"{target}: {len(text.encode()) / 1e6:.1f} MB, nothing else is needed to read it")
    return 0


def _findings(runs: Sequence[folders.Run], scratch: Path) -> dict[str, features.Findings]:
    lifecycle.set_up_jax()
    found = {}
    for i, run in enumerate(runs):
        print(f"computing pairs and confusion of {run.name}", flush=True)
        out = scratch / str(i)
        out.mkdir()
        found[run.name] = features.draw(run, out)
        for reason in dict.fromkeys(f for f in found[run.name].values() if isinstance(f, str)):
            print(f"warning: {run.name}: {reason}", file=sys.stderr)
    return found


def _parser() -> argparse.ArgumentParser:
    parser = command_line.described("report", __doc__)
    text = "folders of runs or of ablations"
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR", help=text)
    text = "(default: report.html in the first DIR)"
    parser.add_argument("--to", type=Path, metavar="FILE.html", help=text)
    text = "leave out what needs the checkpoint and the data: pairs and confusion matrix"
    parser.add_argument("--quick", action="store_true", help=text)
    return parser


if __name__ == "__main__":
    with command_line.exit_codes():
        sys.exit(main(sys.argv))
