"""The sections of a report as plain data: {"id", "title", "blocks"}, rendered by page.html."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from contrastive_jax import figures
from experiments.reporting import folders, render, scores
from experiments.reporting.features import Findings
from experiments.reporting.folders import Ablation, Run

Block = dict[str, Any]  # one key names its kind: "text", "note", "table", "pictures", ...
_CAPTIONS = {
    "views": "Training images above their random views: what the loss calls the same.",
    "map_features": "Test images by their features h, which evaluation uses; PCA and t-SNE.",
    "map_embedding": "Test images by their embedding z, which the loss sees; PCA and t-SNE.",
    "neighbors": "Test images beside the training images whose features are nearest.",
    "cosines": "Cosines of z: two views of one image against views of different images.",
    "scores": "The scores of the table, with their 95 % intervals.",
    "curves": "Metrics of the training batches against the step; long ones faint, under their "
    "moving average. The test set has no part in them.",
}
_CAPTIONS["neighbours"] = _CAPTIONS["neighbors"]  # the file's name in older runs
_PLACED = ("views", "map_features", "map_embedding", "neighbors", "neighbours")
_COLLAPSE = "On test images, at most 2,000 of them: has the representation collapsed?"


def of_ablation(ablation: Ablation, number: int) -> dict[str, Any]:
    """Show an ablation's verdict, figure, table and results."""
    verdict, blocks = ablation.verdict, []
    if verdict:
        blocks.append({"verdict": {"outcome": "no verdict yet", **verdict}})
    if ablation.figure:
        caption = f"{len(ablation.results.splitlines()):,} results."
        blocks += _pictures([(ablation.name, (ablation.figure, caption))])
    if ablation.table:
        start = ablation.table.find("\n|") if verdict else 0  # the verdict is above already
        blocks.append({"markdown": ablation.table[max(start, 0) :]})
    if not blocks:
        blocks.append({"note": "Not finished: there is no table, figure or verdict yet."})
    if verdict:
        blocks.append(_details("The verdict in full", json.dumps(verdict, indent=1)))
    if ablation.results:
        blocks.append(_details("Every result", ablation.results))
    return {"id": f"ablation-{number}", "title": f"Ablation {ablation.name}", "blocks": blocks}


def of_runs(
    runs: Sequence[Run], findings: Mapping[str, Findings], scratch: Path
) -> list[dict[str, Any]]:
    """Make the sections on runs, in order; those with nothing to show are left out.

    Args:
      runs: at least one.
      findings: by the name of a run, what was computed from its checkpoint.
      scratch: an existing folder to draw in.
    """
    others = sorted({name for run in runs for name in run.figures} - {*_PLACED, "curves"})
    made = {
        "Runs": [{"table": _overview(runs)}],
        "What differs": _difference(runs),
        "Scores": scores.scores(runs),
        "Paired tests": scores.paired_tests(runs),
        "Curves": _curves(runs, scratch),
        "Augmented views": _saved(runs, _PLACED[:1]),
        "Embedding maps": _saved(runs, _PLACED[1:3]),
        "Nearest neighbors": _saved(runs, _PLACED[3:]),
        "Hardest pairs": _found(runs, findings, ("negatives", "false negatives")),
        "Confusion": _found(runs, findings, ("confusion",)),
        "Diagnostics": _diagnostics(runs),
        "More pictures": _saved(runs, others),
        "Configs": [_config(run) for run in runs],
    }
    return [
        {"id": title.lower().replace(" ", "-"), "title": title, "blocks": blocks}
        for title, blocks in made.items()
        if blocks
    ]


def _overview(runs: Sequence[Run]) -> dict[str, Any]:
    columns = [_summary(run) for run in runs]
    rows = [[key, *(column[key] for column in columns)] for key in columns[0]]
    return {"head": ["", *(run.name for run in runs)], "rows": [r for r in rows if any(r[1:])]}


def _summary(run: Run) -> dict[str, str]:
    """Describe a run in a few lines; an empty one is not known."""
    summary, code = run.summary or {}, run.description.get("code") or {}
    seconds = (summary.get("seconds") or {}).get("training")
    losses = (_compact(run, section) for section in dict.fromkeys(("loss", run.method)))
    return {
        "state": folders.state(run),
        "method": run.method,
        "data": _data(run),
        "classes": ", ".join((run.description.get("data") or {}).get("class_names", [])[:20]),
        "encoder": _compact(run, "encoder"),
        "loss": ", ".join(filter(None, losses)),
        "optimizer": _compact(run, "optimizer"),
        "seed": str(run.config.get("train.seed", "")),
        "device": str(summary.get("device", "")),
        "training": "" if seconds is None else f"{seconds:,.0f} s",
        "code": f"{code.get('commit') or ''}{' and changes' if code.get('dirty') else ''}",
    }


def _data(run: Run) -> str:
    """Name the data, with its shape and size where the run recorded them."""
    known = run.description.get("data") or {}
    name = known.get("name") or run.config.get("data.name") or run.config.get("data.source", "")
    sizes = [f"{known[part]:,} {part}" for part in ("train", "test") if known.get(part) is not None]
    shape = ["x".join(map(str, known["image_shape"]))] if known.get("image_shape") else []
    count = [f"{len(known['class_names'])} classes"] if known.get("class_names") else []
    return ", ".join([str(name), *sizes, *shape, *count])


def _compact(run: Run, section: str) -> str:
    """Write a section of the config in a line: "nt_xent, temperature=0.2"."""
    start = f"{section}."
    given = {key.removeprefix(start): v for key, v in run.config.items() if key.startswith(start)}
    names = [str(given.pop(key)) for key in ("kind", "name") if given.get(key) is not None]
    return ", ".join([*names, *(f"{key}={v}" for key, v in given.items() if v is not None)])


def _difference(runs: Sequence[Run]) -> list[Block]:
    if len(runs) < 2:
        return []
    rows = [[key, *(_value(run, key) for run in runs)] for key in folders.differing(runs)]
    if not rows:
        return [{"text": "The configs of these runs are the same."}]
    return [{"table": {"head": ["key", *(run.name for run in runs)], "rows": rows}}]


def _value(run: Run, key: str) -> str:
    return json.dumps(run.config[key]) if key in run.config else "–"


def _curves(runs: Sequence[Run], scratch: Path) -> list[Block]:
    histories, path = {run.name: run.history for run in runs if run.history}, scratch / "curves.png"
    drawn = render.attempt(lambda: (figures.overlaid_curves(path, histories), _CAPTIONS["curves"]))
    return _pictures([("", drawn)]) if histories else []


def _saved(runs: Sequence[Run], names: Sequence[str]) -> list[Block]:
    """Show the pictures that the runs drew themselves, runs side by side."""
    captions = {name: _CAPTIONS.get(name, name.replace("_", " ")) for name in names}
    return _pictures(
        (run.name, (run.figures[name], caption))
        for name, caption in captions.items()
        for run in runs
        if name in run.figures
    )


def _found(
    runs: Sequence[Run], findings: Mapping[str, Findings], names: Sequence[str]
) -> list[Block]:
    """Show what was computed from the checkpoints."""
    found = [(run.name, findings[run.name]) for run in runs if run.name in findings]
    return _pictures((run_name, pictures[name]) for run_name, pictures in found for name in names)


def _pictures(drawn: Iterable[tuple[str, render.Drawn | str]]) -> list[Block]:
    """Show the pictures of (run, picture), and a note for each that is absent, saying why."""
    notes, pictures = {}, []
    for name, found in drawn:
        if isinstance(found, str):
            notes[f"{name}: {found}"] = None
        else:
            pictures.append(render.picture(*found, name))
    return [{"note": note} for note in notes] + ([{"pictures": pictures}] if pictures else [])


def _diagnostics(runs: Sequence[Run]) -> list[Block]:
    values: dict[str, dict[str, str]] = {}
    for run in runs:
        for layer, name, number in _measured(run):
            values.setdefault(f"{name.replace('_', ' ')}, {layer}", {})[run.name] = f"{number:.4g}"
    names = [run.name for run in runs]
    rows = [[key, *(by_run.get(name, "–") for name in names)] for key, by_run in values.items()]
    table = {"head": ["diagnostic", *names], "rows": rows, "numbers": True}
    return [{"text": _COLLAPSE}, {"table": table}] if rows else []


def _measured(run: Run) -> Iterator[tuple[str, str, float]]:
    """Give (layer, diagnostic, number) of the results; a spectrum is not a number."""
    for result in (run.results.get(name, {}) for name in ("summary", "evaluation")):
        layers = result.get("diagnostics") or result.get("health") or {}
        for layer, values in layers.items():
            for name, number in values.items() if isinstance(values, Mapping) else ():
                if isinstance(number, float | int):
                    yield layer, name, number


def _config(run: Run) -> Block:
    versions = run.description.get("versions") or {}
    rows = [[key, _value(run, key)] for key in run.config]
    others = [_details(name, json.dumps(v, indent=1)) for name, v in run.other_results.items()]
    return {
        "details": run.name,
        "blocks": [
            {"code": str(run.description.get("command", ""))},
            {"text": ", ".join(f"{name} {number}" for name, number in versions.items())},
            {"table": {"head": ["key", "value"], "rows": rows}},
            *others,
        ],
    }


def _details(title: str, text: str) -> Block:
    return {"details": title, "blocks": [{"code": text}]}
