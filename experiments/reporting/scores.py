"""The tables of scores in a report: each number with its interval, baselines and protocol."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments import evaluate
from experiments.reporting import html as page
from experiments.reporting.folders import Run, state
from experiments.reporting.html import Html

Row = Mapping[str, Any]


class _Line(NamedTuple):
    """What one line of a table compares between runs."""

    protocol: str
    representation: str
    layer: str


def scores(runs: Sequence[Run]) -> Html:
    """A table for each kind of result file, a column for each run."""
    unscored = [run for run in runs if run.summary is None]
    pieces = [page.note(f"{run.name} has no scores: {state(run)}.") for run in unscored]
    names = dict.fromkeys(name for run in runs for name in run.results)
    for name in sorted(names, key=lambda name: (name != "summary", name)):
        scored = [run for run in runs if name in run.results]
        pieces += [] if name == "summary" else [page.element("h3", f"{name}.json")]
        pieces += [_table(name, scored), _protocols(name, scored)]
    return page.join(pieces)


def _table(name: str, runs: Sequence[Run]) -> Html:
    protocols: dict[str, dict[tuple[_Line, int], dict[str, Row]]] = {}
    for run in runs:
        seen: Counter[_Line] = Counter()  # protocols may differ in what their short names leave out
        for row in run.results[name]["evaluations"]:
            if "accuracy" in row and evaluate.is_shown(row["protocol"]):
                line = _line(row)
                place = protocols.setdefault(line.protocol, {}).setdefault((line, seen[line]), {})
                place[run.name] = row
                seen[line] += 1
    head = ["protocol", "representation", *(_column(run, name) for run in runs)]
    body = [row for protocol, lines in protocols.items() for row in _group(protocol, lines, runs)]
    lead = "Percent of test images, or the measure named, times 100, with its 95 % interval where "
    lead += "there is one; hover over a number for its protocol. Baselines are gray."
    return page.join([page.element("p", lead, class_="muted"), page.wide_table(head, body)])


def _group(
    protocol: str, lines: Mapping[tuple[_Line, int], Mapping[str, Row]], runs: Sequence[Run]
) -> Iterator[Html]:
    """The rows of one protocol, its name beside all of them."""
    for i, ((line, _), row_of) in enumerate(lines.items()):
        name = page.element("th", protocol, rowspan=len(lines)) if i == 0 else None
        cells = [_score(row_of.get(run.name)) for run in runs]
        style = None if line.representation == "trained" else "baseline"
        yield page.element("tr", name, page.element("th", _kind(line)), *cells, class_=style)


def _line(row: Row) -> _Line:
    return _Line(evaluate.short_name(row["protocol"]), row["representation"], row["layer"])


def _kind(line: _Line) -> str:
    return " ".join(dict.fromkeys((line.representation, line.layer)))


def _column(run: Run, name: str) -> str:
    step = run.results[name].get("step")
    return run.name if step is None else f"{run.name}, step {step:,}"


def _score(row: Row | None) -> Html:
    """A number, its interval in figures and as a bar from 0 to 100."""
    if row is None:
        return page.element("td", "–")
    value = 100 * row["accuracy"]
    words = [page.element("b", f"{value:.1f}")]
    if row.get("ci95"):
        low, high = (100 * bound for bound in row["ci95"])
        place = f"left:{low:.2f}%;width:{high - low:.2f}%"
        bar = page.element("span", page.element("i", style=place), class_="bar")
        words += [page.element("small", f"{low:.1f} to {high:.1f}"), bar]
    return page.element("td", *words, class_="score", title=_protocol(row))


def _protocol(row: Row) -> str:
    """All that a row says of how it was measured, in one line a fact."""
    facts = {**row["protocol"]}
    facts |= {k: row[k] for k in ("split", "n", "ci95_method", "std") if k in row}
    return "\n".join(f"{k}: {v if isinstance(v, str) else json.dumps(v)}" for k, v in facts.items())


def paired_tests(runs: Sequence[Run]) -> Html:
    """Each run against the first, on the test images that `experiments.evaluate` kept for both."""
    kept = {run.name: _predictions(run) for run in runs}
    first, *others = runs
    pieces = [
        _against(first.name, kept[first.name], run.name, kept[run.name])
        for run in others
        if _same_images(kept[first.name], kept[run.name])
    ]
    return page.join(pieces)


def _predictions(run: Run) -> dict[str, np.ndarray]:
    """Those of the rows that the table shows, and the labels; {} without an evaluation."""
    path = run.folder / "results" / "evaluation.npz"
    if "evaluation" not in run.results or not path.is_file():
        return {}
    rows = run.results["evaluation"]["evaluations"]
    shown = {row.get("predictions") for row in rows if evaluate.is_shown(row["protocol"])}
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files if name in shown or name == "label"}


def _same_images(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    return bool(one and other) and np.array_equal(one["label"], other["label"])


def _against(
    first: str, first_kept: Mapping[str, np.ndarray], name: str, kept: Mapping[str, np.ndarray]
) -> Html:
    rows = []
    for key, test in evaluate.paired(kept, first_kept).items():
        low, high = (100 * test["interval"][end] for end in ("low", "high"))
        points = f"{100 * test['difference']:+.1f}"
        p_value = f"{test['mcnemar']['p_value']:.2g}"
        rows.append([key, points, f"{low:+.1f} to {high:+.1f}", f"{test['n']:,}", p_value])
    head = ["protocol", "points", "95 % interval", "test images", "McNemar p"]
    lead = f"{name} minus {first}, on the same test images; the interval is a paired bootstrap's."
    lead += " It speaks of the choice of test images, not of training seeds."
    return page.join([page.element("p", lead, class_="muted"), page.table(head, rows)])


def _protocols(name: str, runs: Sequence[Run]) -> Html:
    rows = [
        [
            run.name,
            _kind(_line(row)),
            f"{100 * row['accuracy']:.2f}",
            _protocol(row).replace("\n", "; "),
        ]
        for run in runs
        for row in run.results[name]["evaluations"]
        if "accuracy" in row
    ]
    head = ["run", "representation", "%", "protocol"]
    return page.details("Protocols in full", page.table(head, rows))
