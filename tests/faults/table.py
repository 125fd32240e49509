"""Make docs/faults.md from the promises, the tests and the record of their last run."""

import ast
import json
from pathlib import Path
from typing import NamedTuple

from tests.faults.rows import ROWS

HERE = Path(__file__).parent
RECORDS = HERE.parents[1] / "benchmarks" / "results"
PAGE = HERE.parents[1] / "docs" / "faults.md"
HEAD = """# Faults, and what a run does

Each row is a fault, what a run promises for it, and the tests that inject it into a real process.
"passed" is the last recorded run of all tests, before a release the slow ones too; "failed when
broken" is the last run of `python -m pytest tests/faults --sabotaged`, in which the code is broken
in the way that each test names, and the test has to fail by its own assertion.

Beside these tests `benchmarks/kill_test.py` killed a run of the digits 50 times, 29 of them while a
checkpoint was being written ([kill_test.json](../benchmarks/results/kill_test.json)), and
`benchmarks/soak.py` injected 109 random faults into two runs within 36 minutes
([soak.json](../benchmarks/results/soak.json)): all ended bit-equal to the uninterrupted run, with
every step once in metrics.jsonl.

Two faults can be skipped on request, and are then counted: `optimizer.skip_nonfinite=3` leaves out
steps whose gradient is not finite, up to three in a row, and `data.on_corrupt="skip"` leaves out
training images that cannot be read.
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
