"""Keep the outcome of an ablation: what the README's table of paper claims is made from.

    python benchmarks/claims.py runs/temperature temperature_cpu

copies table.md, figure.png, results.jsonl and verdict.json of a finished ablation, the last with
the commit, to benchmarks/results/ablations/temperature_cpu/. `--table` prints the README's rows
from all such folders.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

import harness
from harness import RESULTS

ABLATIONS = RESULTS / "ablations"
COPIED = ("table.md", "figure.png", "results.jsonl")
COLUMNS = ("claim", "source", "verdict", "seeds", "effect ± 2 standard errors", "config", "run on")
SHOWN = 3  # differences in a row of the table, those that decide; table.md has all of them


def record(run: Path, folder: Path) -> Path:
    """Copy what a finished ablation left into a folder of benchmarks/results/ablations.

    Raises:
      SystemExit: some of its runs are missing.
    """
    verdict = json.loads((run / "verdict.json").read_text())
    if verdict["finished"] < verdict["runs"]:
        raise SystemExit(
            f"{run} has {verdict['finished']} of {verdict['runs']} runs; finish it first."
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        shutil.copy(run / name, folder / name)
    recorded = json.dumps({"commit": harness.commit(), **verdict}, indent=2, ensure_ascii=False)
    (folder / "verdict.json").write_text(recorded + "\n")
    return folder


def table(ablations: Path = ABLATIONS) -> str:
    """The README's rows, a folder each, in the order of their names."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    for path in sorted(ablations.glob("*/verdict.json")):
        lines.append("| " + " | ".join(_cells(path.parent)) + " |")
    return "\n".join(lines)


def _cells(folder: Path) -> list[str]:
    verdict = json.loads((folder / "verdict.json").read_text())
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    where = f"benchmarks/results/ablations/{folder.name}"
    return [
        verdict["claim"].rstrip("."),
        verdict["source"].partition(": ")[2].rstrip("."),
        f"**{verdict['outcome']}**",
        str(len(verdict["seeds"])),
        effect(verdict["reasons"], verdict["outcome"]),
        f"[{verdict['title']}]({where}/table.md), [figure]({where}/figure.png)",
        f"{_machines(rows)}, commit {verdict['commit'][:7]}",
    ]


def effect(reasons: list[str], outcome: str) -> str:
    """The differences that decide: of a claim of several parts, those with its outcome.

    >>> effect(["a - b = +1.0 ± 0.4 points: reproduced", "a - c = +0.1 ± 0.4 points: undecided"],
    ...        "undecided")
    'a - c = +0.1 ± 0.4 points'
    """
    ends = f": {outcome}"
    deciding = [reason.removesuffix(ends) for reason in reasons if reason.endswith(ends)] or reasons
    more = [f"and {len(deciding) - SHOWN} more"] if len(deciding) > SHOWN else []
    return "<br>".join(deciding[:SHOWN] + more)


def _machines(rows: list[dict]) -> str:
    """Every device and version of jax that the runs had."""
    threads = [f"{row['cpus']} threads, " if "cpus" in row else "" for row in rows]
    kinds = [
        f"{row['device']}, {its_threads}jax {row['versions']['jax']}"
        for row, its_threads in zip(rows, threads, strict=True)
    ]
    return "; ".join(dict.fromkeys(kinds))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, nargs="?", help="the workdir of a finished ablation")
    parser.add_argument("name", nargs="?", help="of the folder")
    parser.add_argument("--table", action="store_true", help="print the README's rows")
    arguments = parser.parse_args()
    if arguments.table:
        print(table())
    elif arguments.run and arguments.name:
        print(record(arguments.run, ABLATIONS / arguments.name))
    else:
        parser.error("give a run and a name, or --table")
    return 0


if __name__ == "__main__":
    sys.exit(main())
