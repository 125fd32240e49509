"""The tables of scores in a report: each number with its interval, baselines and protocol."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.evaluate import is_shown, paired
from experiments.evaluate import short_name as label  # the one name of a protocol in the report
from experiments.reporting.folders import Run, state

Row = Mapping[str, Any]
Block = dict[str, Any]
_LEAD = (
    "Percent of the test set, or the measure named, times 100, with its 95 % interval where there "
    "is one. Hover over a number for its protocol; baselines are gray."
)
_PAIRED = (
    "on the same test images; the interval is a paired bootstrap's. It speaks of the choice of "
    "test images, not of training seeds."
)


def value(row: Row) -> float | None:
    """Read the number of a row of results, of schema 2 or of schema 1."""
    return row.get("value", row.get("accuracy"))


def measure(row: Row) -> str:
    """Name what `value` measures."""
    return row.get("measure") or row["protocol"].get("measure", "accuracy")


def scores(runs: Sequence[Run]) -> list[Block]:
    """Make a table for each kind of result file, with a column for each run."""
    unscored = [run for run in runs if run.summary is None]
    blocks: list[Block] = [{"note": f"{run.name} has no scores: {state(run)}."} for run in unscored]
    names = dict.fromkeys(name for run in runs for name in run.results)
    for name in sorted(names, key=lambda name: (name != "summary", name)):
        scored = [run for run in runs if name in run.results]
        blocks += [{"heading": f"{name}.json"}] if name != "summary" else [{"text": _LEAD}]
        blocks.append({"scores": _table(name, scored)})
        blocks += [_every_row(run, name) for run in scored]
    return blocks


def _table(name: str, runs: Sequence[Run]) -> dict[str, Any]:
    """Make a line of the rows that have the same protocol and representation in each run."""
    found: dict[tuple[str, str, int], dict[str, Row]] = {}
    for run in runs:
        seen: Counter[tuple[str, str]] = Counter()  # protocols of one label may still differ
        for row in run.results[name]["evaluations"]:
            if value(row) is not None and is_shown(row["protocol"]):
                line = label(row["protocol"]), _representation(row)
                found.setdefault((*line, seen[line]), {})[run.name] = row
                seen[line] += 1
    protocols = list(dict.fromkeys(protocol for protocol, *_ in found))
    return {
        "columns": [_column(run, name) for run in runs],
        "lines": [
            {"protocol": line[0], "representation": line[1], "cells": _cells(found[line], runs)}
            for line in sorted(found, key=lambda line: protocols.index(line[0]))
        ],
    }


def _representation(row: Row) -> str:
    return " ".join(dict.fromkeys((row["representation"], row["layer"])))


def _column(run: Run, name: str) -> str:
    step = run.results[name].get("step")
    return run.name if step is None else f"{run.name}, step {step:,}"


def _cells(row_of: Mapping[str, Row], runs: Sequence[Run]) -> list[dict[str, Any] | None]:
    return [_cell(row_of[run.name]) if run.name in row_of else None for run in runs]


def _cell(row: Row) -> dict[str, Any]:
    """Scale a score and its interval to percent."""
    named = measure(row)
    return {
        "value": 100 * (value(row) or 0.0),
        "interval": [100 * bound for bound in row.get("ci95") or ()],
        "measure": "" if named == "accuracy" or named in label(row["protocol"]) else named,
        "protocol": _protocol(row),
    }


def _protocol(row: Row) -> str:
    """Write all that a row says of how it was measured, one entry a line."""
    entries = {**row["protocol"], "measure": measure(row)}
    entries |= {k: row[k] for k in ("split", "n", "ci95_method", "std") if k in row}
    return "\n".join(
        f"{k}: {v if isinstance(v, str) else json.dumps(v)}" for k, v in entries.items()
    )


def _every_row(run: Run, name: str) -> Block:
    rows = "\n".join(json.dumps(row) for row in run.results[name]["evaluations"])
    return {"details": f"{run.name}: every score with its protocol", "blocks": [{"code": rows}]}


def paired_tests(runs: Sequence[Run]) -> list[Block]:
    """Test each run against the first, on the test images that both evaluations kept."""
    first, *others = runs
    kept = {run.name: _predictions(run) for run in runs}
    blocks: list[Block] = []
    for run in others:
        ours, theirs = kept[run.name], kept[first.name]
        same = np.array_equal(ours.get("label", ()), theirs.get("label", ()))
        tests = paired(ours, theirs) if ours and theirs and same else {}
        if tests:
            blocks.append({"text": f"{run.name} minus {first.name}, {_PAIRED}"})
            blocks.append({"table": _test_table(tests)})
    return blocks


def _predictions(run: Run) -> dict[str, np.ndarray]:
    """Load those of the rows that the table shows, and the labels; {} without an evaluation."""
    path = run.folder / "results" / "evaluation.npz"
    if "evaluation" not in run.results or not path.is_file():
        return {}
    rows = run.results["evaluation"]["evaluations"]
    shown = {row.get("predictions") for row in rows if is_shown(row["protocol"])}
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files if name in shown or name == "label"}


def _test_table(tests: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    rows = []
    for key, test in tests.items():
        low, high = (100 * test["interval"][end] for end in ("low", "high"))
        p_value = f"{test['mcnemar']['p_value']:.2g}" if test["mcnemar"] else "–"
        points = f"{100 * test['difference']:+.1f}"
        rows.append([key, points, f"{low:+.1f} to {high:+.1f}", f"{test['n']:,}", p_value])
    head = ["protocol", "points", "95 % interval", "test images", "McNemar p"]
    return {"head": head, "rows": rows, "numbers": True}
