"""Write every table of README and docs from the files that hold the evidence.

    python -m benchmarks.publish                   # check: exit 1, naming the stale pages
    python -m benchmarks.publish --write           # bring them up to date
    python -m benchmarks.publish record RUN NAME   # first keep the scores of a finished run
    python -m benchmarks.publish claims DIR NAME   # first keep the outcome of an ablation

A table stands between `<!-- table: NAME -->` and `<!-- end of table -->`. Links are written from
the root of the repository and made relative to the page.
"""

import argparse
import json
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import tables
from benchmarks.shared import harness

ROOT, RESULTS = harness.ROOT, harness.RESULTS
COPIED = ("table.md", "figure.png", "results.jsonl")


def record(run: Path, name: str, results: Path = RESULTS) -> Path:
    """Copy the summary of a finished run, with the commit that it was made by."""
    summary = json.loads((run / "results" / "summary.json").read_text())
    path = results / f"{name}.json"
    path.write_text(json.dumps({**summary, **made_by(run)}, indent=2) + "\n")
    return path


def keep_claim(ablation: Path, name: str, ablations: Path = tables.ABLATIONS) -> Path:
    """Copy what an ablation left, its verdict with the commits that its runs were made by.

    One with missing runs stands in no list of claims; a copy of the folder as --workdir goes on.
    """
    verdict = json.loads((ablation / "verdict.json").read_text())
    folder = ablations / name
    folder.mkdir(parents=True, exist_ok=True)
    for file in COPIED:
        shutil.copy(ablation / file, folder / file)
    lines = (ablation / "results.jsonl").read_text().splitlines()
    codes = [json.loads(line)["code"] for line in lines]
    text = json.dumps({**verdict, **of_codes(codes)}, indent=2, ensure_ascii=False)
    (folder / "verdict.json").write_text(text + "\n")
    return folder


def made_by(folder: Path) -> dict[str, Any]:
    """The code that the runs in a folder say they were made by.

    Runs of older versions do not say it; then it is the commit that is checked out now.
    """
    configs = [json.loads(path.read_text()) for path in sorted(folder.rglob("config.json"))]
    return of_codes([config.get("code") for config in configs])


def of_codes(codes: Sequence[Any]) -> dict[str, Any]:
    """The distinct codes among those of some runs, or the commit that is checked out."""
    if not codes or None in codes:
        return {"commit": harness.commit()}
    return {"code": [code for i, code in enumerate(codes) if code not in codes[:i]]}


def filled(page: Path, text: str, made: Mapping[str, str]) -> str:
    """The text of a page with its tables replaced.

    Raises:
      KeyError: a table that is not made here.
    """
    up = os.path.relpath(ROOT, (ROOT / page).parent)

    def table(match: re.Match) -> str:
        linked = made[match[1]]
        if up != ".":
            linked = linked.replace("](benchmarks/", f"]({up}/benchmarks/")
        return f"<!-- table: {match[1]} -->\n\n{linked}\n\n<!-- end of table -->"

    return re.sub(r"<!-- table: (.*?) -->\n.*?<!-- end of table -->", table, text, flags=re.DOTALL)


def pages() -> dict[Path, str]:
    """Every page that holds something made here, as it should be."""
    from tests.faults import table as faults

    made = tables.all_tables()
    found = [Path("README.md"), *sorted(p.relative_to(ROOT) for p in ROOT.glob("docs/*.md"))]
    written = {page: filled(page, (ROOT / page).read_text(), made) for page in found}
    return {**written, faults.PAGE.relative_to(ROOT): faults.page()}


def stale() -> dict[Path, str]:
    """The pages that differ from what they should be."""
    return {
        page: text
        for page, text in pages().items()
        if not (ROOT / page).exists() or (ROOT / page).read_text() != text
    }


def main(argv: Sequence[str]) -> int:
    """Keep what is asked for, then write or check the pages; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="bring the pages up to date")
    parser.add_argument("what", nargs="?", choices=("record", "claims"))
    parser.add_argument("folder", nargs="?", type=Path, help="a finished run or ablation")
    parser.add_argument("name", nargs="?", help="under benchmarks/results")
    arguments = parser.parse_args(argv)
    if arguments.what:
        if not arguments.name:
            parser.error("give a folder and a name")
        keep = {"record": record, "claims": keep_claim}[arguments.what]
        print(keep(arguments.folder, arguments.name))
    changed = stale()
    for page, text in changed.items():
        if arguments.write:
            (ROOT / page).write_text(text)
        print(f"{page} {'written' if arguments.write else 'is stale'}")
    if changed and not arguments.write:
        print("Run: python -m benchmarks.publish --write", file=sys.stderr)
    return int(bool(changed) and not arguments.write)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
