"""The tables of scores in a report: each number with its interval, baselines and protocol."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from contrastive_jax.evaluation.intervals import compare
from contrastive_jax.evaluation.protocols import is_quoted, label
from contrastive_jax.evaluation.results import value_of
from experiments.reporting.folders import Run

Row = Mapping[str, Any]


def measure(row: Row) -> str:
    """Name what `value` measures."""
    return row.get("measure") or row["protocol"].get("measure", "accuracy")


def tables(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Make a table for each kind of result file, the summary first, with a column for each run."""
    names = {name for run in runs for name in run.results}
    return [
        _table(name, [run for run in runs if name in run.results])
        for name in sorted(names, key=lambda name: (name != "summary", name))
    ]


def _table(name: str, runs: Sequence[Run]) -> dict[str, Any]:
    """Make a line of the rows that have the same protocol and representation in each run."""
    found: dict[tuple[str, str, int], dict[str, Row]] = {}
    for run in runs:
        seen: Counter[tuple[str, str]] = Counter()  # protocols of one label may still differ
        for row in run.results[name]["evaluations"]:
            if is_quoted(row["protocol"]):
                line = label(row["protocol"]), _representation(row)
                found.setdefault((*line, seen[line]), {})[run.name] = row
                seen[line] += 1
    protocols = list(dict.fromkeys(protocol for protocol, *_ in found))
    return {
        "name": name,
        "steps": {run.name: run.results[name].get("step") for run in runs},
        "lines": [
            {"protocol": line[0], "representation": line[1], "cells": _cells(found[line], runs)}
            for line in sorted(found, key=lambda line: protocols.index(line[0]))
        ],
    }


def _representation(row: Row) -> str:
    return " ".join(dict.fromkeys((row["representation"], row["layer"])))


def _cells(row_of: Mapping[str, Row], runs: Sequence[Run]) -> list[dict[str, Any] | None]:
    return [_cell(row_of[run.name]) if run.name in row_of else None for run in runs]


def _cell(row: Row) -> dict[str, Any]:
    """Scale a score and its interval to percent."""
    named = measure(row)
    return {
        "value": 100 * value_of(row),
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


def paired_tests(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Test each run against the first, on the test images that both evaluations kept."""
    kept = {run.name: _predictions(run) for run in runs}
    found = []
    for run in runs[1:]:
        ours, theirs = kept[run.name], kept[runs[0].name]
        if ours and theirs and np.array_equal(ours["label"], theirs["label"]):
            found.append({"name": run.name, "other": runs[0].name, "tests": compare(ours, theirs)})
    return found


def _predictions(run: Run) -> dict[str, np.ndarray]:
    """Load those of the rows that the table shows, and the labels; {} without an evaluation."""
    path = run.folder / "results" / "evaluation.npz"
    if "evaluation" not in run.results or not path.is_file():
        return {}
    rows = run.results["evaluation"]["evaluations"]
    shown = {row.get("predictions") for row in rows if is_quoted(row["protocol"])}
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files if name in shown or name == "label"}
