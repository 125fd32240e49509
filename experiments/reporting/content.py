"""What a report says of runs and ablations, as the plain data that page.html shows."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from contrastive_jax import figures
from experiments.reporting import render, scores
from experiments.reporting.features import Findings
from experiments.reporting.folders import Ablation, Run, state

_CAPTIONS = {
    "views": "Training images above their random views: what the loss calls the same.",
    "map_features": "Test images by their features h, which evaluation uses; PCA and t-SNE.",
    "map_embedding": "Test images by their embedding z, which the loss sees; PCA and t-SNE.",
    "neighbors": "Test images beside the training images whose features are nearest.",
    "neighbours": "Test images beside the training images whose features are nearest.",
    "cosines": "Cosines of z: two views of one image against views of different images.",
    "nearest_captions": "Test images beside the captions that are nearest to them.",
    "nearest_images": "Captions beside the test images that are nearest to them.",
    "modalities": "Test images and their captions in one map of the space that they share.",
    "styles": "Held-out characters in all styles: is the own name the nearest one?",
    "marks": "Letters against marks; those that training never showed together are judged.",
    "queries": "Captions that were typed, beside the test images that are nearest to them.",
    "gains": "What each test query gained and lost, in falling order.",
    "cosines_trained": "Cosines of test queries and documents, by the trained encoder.",
    "cosines_untrained": "The same before the first step.",
    "scores": "The scores of the table, with their 95 % intervals.",
}
_CURVES = (
    "Metrics of the training batches against the step; long ones faint, under their moving "
    "average. The test set has no part in them."
)
_PLACES: dict[str, Sequence[str]] = {  # section -> names of pictures in the folders
    "Augmented views": ("views",),
    "Embedding maps": ("map_features", "map_embedding"),
    "Nearest neighbors": ("neighbors", "neighbours"),
}
Pictures = list[dict[str, Any]]


def of(
    runs: Sequence[Run],
    ablations: Sequence[Ablation],
    findings: Mapping[str, Findings],
    scratch: Path,
) -> dict[str, Any]:
    """Collect the content of a report."""
    config = by_run(runs, _config)
    return {
        "ablations": [_ablation(ablation) for ablation in ablations],
        "runs": [run._asdict() for run in runs],
        "overview": by_run(runs, _overview),
        "config": config,
        "differing": {key: row for key, row in config.items() if len(set(row)) > 1},
        "unscored": {run.name: state(run) for run in runs if run.summary is None},
        "scores": scores.tables(runs),
        "paired": scores.paired_tests(runs),
        "curves": _curves(runs, scratch),
        "pictures": _saved(runs),
        "findings": _computed(runs, findings),
        "diagnostics": by_run(runs, lambda run: dict(_diagnostics(run))),
    }


def by_run(
    runs: Sequence[Run], describe: Callable[[Run], Mapping[str, str]]
) -> dict[str, list[str]]:
    """Describe every run under the same keys; what a run lacks is a dash."""
    columns = [describe(run) for run in runs]
    keys = dict.fromkeys(key for column in columns for key in column)
    return {key: [column.get(key, "–") for column in columns] for key in keys}


def _ablation(ablation: Ablation) -> dict[str, Any]:
    caption = f"{len(ablation.results.splitlines()):,} results."
    drawn = [render.picture(ablation.name, (ablation.figure, caption))] if ablation.figure else []
    start = ablation.table.find("\n|") if ablation.verdict else 0  # the verdict is shown already
    return {**ablation._asdict(), "pictures": drawn, "table": ablation.table[max(start, 0) :]}


def _overview(run: Run) -> dict[str, str]:
    """Describe a run in a few lines; what is not known is left out."""
    summary, code = run.summary or {}, run.description.get("code") or {}
    data = run.description.get("data") or {}
    seconds = (summary.get("seconds") or {}).get("training")
    losses = (compact(run, section) for section in dict.fromkeys(("loss", run.method)))
    lines = {
        "state": state(run),
        "method": run.method,
        "data": _data(run, data),
        "classes": ", ".join(data.get("class_names", [])[:20]),
        "encoder": compact(run, "encoder"),
        "loss": ", ".join(filter(None, losses)),
        "optimizer": compact(run, "optimizer"),
        "seed": str(run.config.get("train.seed", "")),
        "device": str(summary.get("device", "")),
        "training": "" if seconds is None else f"{seconds:,.0f} s",
        "code": f"{code.get('commit') or ''}{' and changes' if code.get('dirty') else ''}",
    }
    return {key: line for key, line in lines.items() if line}


def _data(run: Run, data: Mapping[str, Any]) -> str:
    """Name the data, with its size and shape where the run recorded them."""
    name = data.get("name") or run.config.get("data.name") or run.config.get("data.source", "")
    sizes = [f"{data[part]:,} {part}" for part in ("train", "test") if data.get(part) is not None]
    shape = ["x".join(map(str, data["image_shape"]))] if data.get("image_shape") else []
    count = [f"{len(data['class_names'])} classes"] if data.get("class_names") else []
    return ", ".join([str(name), *sizes, *shape, *count])


def compact(run: Run, section: str) -> str:
    """Write a section of the config on a line: "nt_xent, temperature=0.2"."""
    start = f"{section}."
    given = {key.removeprefix(start): v for key, v in run.config.items() if key.startswith(start)}
    names = [str(given.pop(key)) for key in ("kind", "name") if given.get(key) is not None]
    return ", ".join([*names, *(f"{key}={v}" for key, v in given.items() if v is not None)])


def _config(run: Run) -> dict[str, str]:
    return {key: json.dumps(value) for key, value in run.config.items() if value is not None}


def _curves(runs: Sequence[Run], scratch: Path) -> Pictures:
    histories = {run.name: run.history for run in runs if run.history}
    path = scratch / "curves.png"
    drawn = render.attempt(lambda: (figures.curves(path, histories), _CURVES))
    return [render.picture("", drawn)] if histories else []


def _saved(runs: Sequence[Run]) -> dict[str, Pictures]:
    """Embed the pictures that the runs drew themselves, by section."""
    placed = {"curves", *(name for names in _PLACES.values() for name in names)}
    others = sorted({name for run in runs for name in run.figures} - placed)
    captions = {**{name: name.replace("_", " ") for name in others}, **_CAPTIONS}
    return {
        title: [
            render.picture(run.name, (run.figures[name], captions[name]))
            for name in names
            for run in runs
            if name in run.figures
        ]
        for title, names in {**_PLACES, "More pictures": others}.items()
    }


def _computed(runs: Sequence[Run], findings: Mapping[str, Findings]) -> dict[str, Pictures]:
    """Embed what was computed from the checkpoints, by section; a reason is given once."""
    sections: dict[str, Pictures] = {"Hardest pairs": [], "Confusion": []}
    for run in runs:
        for name, found in findings.get(run.name, {}).items():
            pictures = sections["Confusion" if name == "confusion" else "Hardest pairs"]
            picture = render.picture(run.name, found)
            pictures += [picture] if picture not in pictures else []
    return sections


def _diagnostics(run: Run) -> Iterator[tuple[str, str]]:
    """Give the diagnostics of a run's results; a spectrum is not a number."""
    for result in (run.results.get(name, {}) for name in ("summary", "evaluation")):
        for layer, values in (result.get("diagnostics") or result.get("health") or {}).items():
            for name, number in values.items() if isinstance(values, Mapping) else ():
                if isinstance(number, float | int):
                    yield f"{name.replace('_', ' ')}, {layer}", f"{number:.4g}"
