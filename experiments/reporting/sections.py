"""The sections of a report, each from what runs or ablations left."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from contrastive_jax import figures
from experiments.reporting import folders, scores
from experiments.reporting import html as page
from experiments.reporting.features import Pictures
from experiments.reporting.folders import Ablation, Run
from experiments.reporting.html import Html

Section = tuple[str, Html]
_CAPTIONS = {
    "views": "Training images above their random views: what the loss calls the same.",
    "map_features": "Test images by their features h, which evaluation uses; PCA and t-SNE.",
    "map_embedding": "Test images by their embedding z, which the loss sees; PCA and t-SNE.",
    "neighbours": "Test images beside the training images whose features are nearest.",
    "cosines": "Cosines of z: two views of one image against views of different images.",
    "scores": "The scores of the table, with their 95 % intervals.",
}
_ELSEWHERE = {"curves"}  # drawn again, for all runs over one another


def of_ablations(ablations: Sequence[Ablation]) -> list[Section]:
    """A section for each ablation: its verdict, figure and table."""
    return [(f"Ablation {a.name}", _ablation(a)) for a in ablations]


def of_runs(
    runs: Sequence[Run], findings: Mapping[str, Pictures | str], scratch: Path
) -> list[Section]:
    """The sections on runs, in the order of the page; those with nothing to show are left out."""
    made = [
        ("Runs", _overview(runs)),
        ("What differs", _difference(runs)),
        ("Scores", scores.scores(runs)),
        ("Paired tests", scores.paired_tests(runs)),
        ("Curves", _curves(runs, scratch)),
        ("Augmented views", _left_by_runs(runs, ["views"])),
        ("Embedding maps", _left_by_runs(runs, ["map_features", "map_embedding"])),
        ("Nearest neighbours", _left_by_runs(runs, ["neighbours"])),
        ("Hardest pairs", _found(runs, findings, lambda p: [p.negatives, p.false_negatives])),
        ("Confusion", _found(runs, findings, lambda p: [p.confusion] if p.confusion else [])),
        ("Health", _health(runs)),
        ("More pictures", _left_by_runs(runs, _others(runs))),
        ("Configs", _configs(runs)),
    ]
    return [(title, page.section(title, body)) for title, body in made if body]


def _ablation(ablation: Ablation) -> Html:
    verdict = ablation.verdict or {}
    pieces = [_verdict(verdict)]
    if ablation.figure:
        caption = f"{len(ablation.rows):,} results." if ablation.rows else ""
        pieces.append(page.figures([page.figure(ablation.figure, caption, ablation.name)]))
    if ablation.table:
        repeated = ablation.table.find("|") if verdict else 0  # the verdict stands above already
        pieces.append(page.markdown(ablation.table[max(repeated, 0) :]))
    if not (ablation.table or ablation.figure or verdict):
        pieces.append(page.note("Not finished: there is no table, figure or verdict yet."))
    if verdict:
        pieces.append(page.details("The verdict in full", _json(verdict)))
    if ablation.rows:
        pieces.append(page.details("Every result", _json(ablation.rows)))
    return page.section(f"Ablation {ablation.name}", *pieces)


def _verdict(verdict: Mapping[str, Any]) -> Html:
    """The claim, what became of it, and why."""
    outcome = str(verdict.get("outcome", "no verdict yet"))
    kind = {"reproduced": "reproduced", "not reproduced": "not", "undecided": "undecided"}
    style = f"verdict {kind.get(outcome, '')}".strip()
    claim = [page.element("p", str(verdict["claim"]))] if "claim" in verdict else []
    seeds = verdict.get("seeds")
    count = f", seeds run: {len(seeds)}" if isinstance(seeds, list) else ""
    reasons = verdict.get("reasons") or []
    lines = [page.element("li", str(reason)) for reason in reasons]
    return page.join(
        [
            *claim,
            page.element("p", page.element("span", outcome, class_=style), count),
            *([page.element("ul", *lines)] if lines else []),
        ]
    )


def _overview(runs: Sequence[Run]) -> Html:
    head = ["run", "state", "data", "encoder", "loss", "seed", "device", "training"]
    return page.table(head, [_facts(run) for run in runs])


def _facts(run: Run) -> list[str]:
    def value(*keys: str) -> str:
        found = (run.config.get(key) for key in keys)
        return next((str(v) for v in found if v is not None), "")

    summary = run.summary or {}
    seconds = summary.get("seconds", {}).get("training")
    return [
        run.name,
        folders.state(run),
        value("data.name", "data.source"),
        f"ResNet-{value('encoder.depth')}, width {value('encoder.width') or '1.0'}",
        f"{value('loss.kind')}, temperature {value('loss.temperature')}",
        value("train.seed"),
        str(summary.get("device", "")),
        "" if seconds is None else f"{seconds:,.0f} s",
    ]


def _difference(runs: Sequence[Run]) -> Html:
    if len(runs) < 2:
        return Html()
    keys = folders.differing(runs)
    if not keys:
        return page.element("p", "The configs of these runs are the same.")
    rows = [[key, *(_value(run.config, key) for run in runs)] for key in keys]
    return page.table(["key", *(run.name for run in runs)], rows)


def _value(config: Mapping[str, Any], key: str) -> str:
    return json.dumps(config[key]) if key in config else "–"


def _curves(runs: Sequence[Run], scratch: Path) -> Html:
    histories = {run.name: run.history for run in runs if run.history}
    if not histories:
        return Html()
    path = figures.curves(scratch / "curves.png", histories)
    caption = "Metrics of the training batches against the step; long ones faint, under their "
    caption += "moving average. The test set has no part in them."
    return page.figures([page.figure(path, caption)])


def _left_by_runs(runs: Sequence[Run], names: Sequence[str]) -> Html:
    """The pictures that the runs drew themselves, runs beside one another."""
    made = [
        page.figure(run.figures[name], _CAPTIONS.get(name, name.replace("_", " ")), run.name)
        for name in names
        for run in runs
        if name in run.figures
    ]
    return page.figures(made) if made else Html()


def _others(runs: Sequence[Run]) -> list[str]:
    named = {"views", "map_features", "map_embedding", "neighbours", *_ELSEWHERE}
    return sorted({name for run in runs for name in run.figures} - named)


def _found(
    runs: Sequence[Run],
    findings: Mapping[str, Pictures | str],
    pick: Callable[[Pictures], Sequence[tuple[Path, str]]],
) -> Html:
    """What was computed from the checkpoints, or why it was not."""
    notes, made = [], []
    for run in runs:
        found = findings.get(run.name)
        if isinstance(found, str):
            notes.append(page.note(f"{run.name}: could not be computed. {found}"))
        elif found is not None and not pick(found):
            notes.append(page.note(f"{run.name}: its checkpoint has no scored linear probe."))
        elif found is not None:
            made += [page.figure(path, caption, run.name) for path, caption in pick(found)]
    return page.join([*notes, *([page.figures(made)] if made else [])])


def _health(runs: Sequence[Run]) -> Html:
    gauges: dict[tuple[str, str], dict[str, float]] = {}
    for run in runs:
        for layer, values in _gauges(run):
            for gauge, number in values.items():
                if isinstance(number, float | int):  # a spectrum is not
                    gauges.setdefault((layer, gauge), {})[run.name] = number
    if not gauges:
        return Html()
    rows = [
        [f"{gauge.replace('_', ' ')}, {layer}"]
        + [f"{by_run[run.name]:.4g}" if run.name in by_run else "–" for run in runs]
        for (layer, gauge), by_run in gauges.items()
    ]
    lead = "On test images, at most 2,000 of them: has the representation collapsed?"
    table = page.table(["gauge", *(run.name for run in runs)], rows)
    return page.join([page.element("p", lead, class_="muted"), table])


def _gauges(run: Run) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name in ("summary", "evaluation"):
        yield from (run.results.get(name, {}).get("health") or {}).items()


def _configs(runs: Sequence[Run]) -> Html:
    pieces = []
    for run in runs:
        rows = [[key, _value(run.config, key)] for key in run.config]
        versions = ", ".join(f"{name} {number}" for name, number in run.versions.items())
        pieces.append(
            page.details(
                run.name,
                page.element("pre", page.element("code", run.command)),
                page.element("p", versions, class_="muted"),
                page.table(["key", "value"], rows),
                *(page.details(name, _json(value)) for name, value in run.other_results.items()),
            )
        )
    return page.join(pieces)


def _json(value: Any) -> Html:
    return page.element("pre", page.element("code", json.dumps(value, indent=1)))
