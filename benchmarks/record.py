"""Keep the scores of a finished run: what the README's results table is made from.

    python benchmarks/record.py runs/digits digits

writes benchmarks/results/digits.json: every evaluation with its protocol, the seconds, the config,
device, versions and commit. `--table` prints the README's rows from all such files.
"""

import argparse
import json
import sys
from pathlib import Path

import harness
from harness import RESULTS

RUNS = ("digits", "cifar_cpu")


def record(run: Path, name: str) -> Path:
    """Copy a run's summary, with the commit, under benchmarks/results."""
    summary = json.loads((run / "results" / "summary.json").read_text())
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"commit": harness.commit(), **summary}, indent=2) + "\n")
    return path


def pick(evaluations: list[dict], representation: str, **protocol) -> str:
    """The accuracy of one row in percent, as the table prints it."""
    layer = "pixels" if representation == "pixels" else "features"
    for row in evaluations:
        found = (row["representation"], row["layer"]) == (representation, layer)
        if found and protocol.items() <= row["protocol"].items():
            return f"{100 * row['accuracy']:.1f}"
    raise KeyError(f"no row for {representation} and {protocol}")


def table() -> str:
    """The README's results table."""
    protocols = {
        "kNN k=10": {"name": "knn", "k": 10},
        "kNN k=20, T=0.07": {"name": "knn", "k": 20},
        "kNN k=200, T=0.1": {"name": "knn", "k": 200},
        "linear probe": {"name": "linear"},
        "10 labels a class": {"name": "few-label"},
    }
    head = ["run", "protocol (features, test set)", "trained", "untrained", "pixels", "evidence"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for run in RUNS:
        rows = json.loads((RESULTS / f"{run}.json").read_text())["evaluations"]
        for label, protocol in protocols.items():
            names = ("trained", "untrained", "pixels")
            scores = [pick(rows, name, **protocol) for name in names]
            cells = [run, label, *scores, f"[{run}.json](benchmarks/results/{run}.json)"]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, nargs="?", help="the workdir of a finished run")
    parser.add_argument("name", nargs="?", help="of the JSON file")
    parser.add_argument("--table", action="store_true", help="print the README's rows")
    arguments = parser.parse_args()
    if arguments.table:
        print(table())
    elif arguments.run and arguments.name:
        print(record(arguments.run, arguments.name))
    else:
        parser.error("give a run and a name, or --table")
    return 0


if __name__ == "__main__":
    sys.exit(main())
