"""The page about faults, made from the promises, the tests and the record of their last run.

python -m tests.faults.table > tests/faults/README.md
"""

import ast
import json
from pathlib import Path
from typing import NamedTuple

from tests.faults.rows import ROWS

HERE = Path(__file__).parent
RECORDS = HERE.parents[1] / "benchmarks" / "results"
HEAD = """# What can go wrong, and what happens then

Each row is a fault, what a run promises for it, and the tests that strike a real process with it.
"passed" is the last recorded run of all tests, before a release the slow ones too; "failed when
broken" the last run of `python -m pytest tests/faults --sabotaged`, in which the house is broken in
the way that each test names and the test has to fail by its own assertion. Made by
`python -m tests.faults.table`.
"""


class Proof(NamedTuple):
    """A test of some rows."""

    rows: tuple[int, ...]
    name: str
    broken: str


def proofs() -> list[Proof]:
    """Every test function under tests/faults that is marked with a row."""
    found = []
    for path in sorted(HERE.glob("test_*.py")):
        functions = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.FunctionDef)]
        for function in functions:
            for mark in function.decorator_list:
                if isinstance(mark, ast.Call) and getattr(mark.func, "id", "") == "row":
                    numbers = tuple(ast.literal_eval(number) for number in mark.args)
                    broken = ast.literal_eval(mark.keywords[0].value)
                    found.append(Proof(numbers, f"{path.stem}.{function.name}", broken))
    return found


def page() -> str:
    """The page as Markdown."""
    lines = [HEAD]
    lines += ["| # | fault | exit code | says | afterwards | passed | failed when broken |"]
    lines += ["|---|---|---|---|---|---|---|"]
    record, broken = _record("faults"), _record("faults_sabotaged")
    for number, row in ROWS.items():
        counts = f"{_count(record, number)} | {_count(broken, number)}"
        lines.append(f"| {number} | {' | '.join(row)} | {counts} |")
    lines += ["", *_where(record), "## How each test has been seen to fail", ""]
    for proof in proofs():
        numbers = ", ".join(map(str, proof.rows))
        lines.append(f"- {numbers}: `{proof.name}`: {proof.broken}")
    return "\n".join(lines) + "\n"


def _count(record: dict, number: int) -> str:
    result = record.get("rows", {}).get(str(number))
    return f"{result['passed']} of {result['tests']}" if result else "not here"


def _where(record: dict) -> list[str]:
    if not record:
        return []
    machine = record["machine"]
    text = (
        f"Ran on {machine['system']}, {machine['cpus']} CPU cores, Python {machine['python']}, "
        f"jax {machine['jax']}; no GPU, no TPU."
    )
    return [text, ""]


def _record(name: str) -> dict:
    path = RECORDS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


if __name__ == "__main__":
    print(page(), end="")
