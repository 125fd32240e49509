"""What runs and ablations left in their folders, read for a report."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from contrastive_jax.errors import ConfigError
from contrastive_jax.storage import jsonl, workdir
from experiments.run import command_line, restore

OF_OWN_DATA = ("summary", "linear_probe", "evaluation")  # results/*.json, first choice first
ABLATION_FILES = ("results.jsonl", "table.md", "figure.png", "verdict.json")


class Run(NamedTuple):
    """One run's folder."""

    name: str
    folder: Path
    config: dict[str, Any]  # "section.key" -> value
    command: str
    versions: dict[str, str]
    history: list[dict[str, Any]]  # of metrics.jsonl
    results: dict[str, dict[str, Any]]  # of results/*.json that hold evaluations, by name
    other_results: dict[str, Any]  # the others
    figures: dict[str, Path]  # by name, without ".png"

    @property
    def step(self) -> int:
        """The last one that was logged."""
        return max((row["step"] for row in self.history), default=0)

    @property
    def summary(self) -> dict[str, Any] | None:
        return self.results.get("summary")


class Ablation(NamedTuple):
    """One ablation's folder; a file that is not there is None."""

    name: str
    folder: Path
    rows: list[dict[str, Any]]
    table: str | None
    figure: Path | None
    verdict: dict[str, Any] | None


def read(folders: Sequence[Path]) -> tuple[list[Run], list[Ablation]]:
    """The runs and the ablations among the folders, in order.

    Raises:
      ConfigError: a folder is neither, has nothing to show yet, or is given twice.
    """
    absolute = [folder.expanduser().absolute() for folder in folders]
    for i, folder in enumerate(absolute):
        if folder in absolute[:i]:
            raise ConfigError(f"{folder} is given twice.")
    names = _names(absolute)
    found = [_read(folder, name) for folder, name in zip(absolute, names, strict=True)]
    runs = [item for item in found if isinstance(item, Run)]
    return runs, [item for item in found if isinstance(item, Ablation)]


def differing(runs: Sequence[Run]) -> list[str]:
    """The keys of the configs that are not the same in all runs."""
    keys = list(dict.fromkeys(key for run in runs for key in run.config))
    return [key for key in keys if len({json.dumps(run.config.get(key)) for run in runs}) > 1]


def state(run: Run) -> str:
    """A few words on how far a run has come."""
    if run.summary is None:
        return f"not finished: step {run.step:,}, not scored"
    scored = run.summary.get("step", run.step)
    if run.step > scored:
        return f"scored at step {scored:,}, trained on to {run.step:,} since"
    return f"finished, {scored:,} steps"


def _names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""
    for depth in range(1, max(len(folder.parts) for folder in folders) + 1):
        names = ["/".join(folder.parts[-depth:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def _read(folder: Path, name: str) -> Run | Ablation:
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder; give the workdir of a run or of an ablation.")
    if any((folder / file).is_file() for file in ABLATION_FILES):
        return _read_ablation(folder, name)
    return _read_run(folder, name)


def _read_run(folder: Path, name: str) -> Run:
    description = restore.description(folder)
    log = folder / "metrics.jsonl"
    results = {p.stem: workdir.read_json(p) for p in sorted((folder / "results").glob("*.json"))}
    run = Run(
        name=name,
        folder=folder,
        config={k: v for k, v in command_line.leaves(description["config"]) if "[" not in k},
        command=str(description.get("command", "")),
        versions=description.get("versions", {}),
        history=jsonl.read_jsonl(log) if log.is_file() else [],
        results={key: value for key, value in results.items() if _has_evaluations(value)},
        other_results={key: v for key, v in results.items() if not _has_evaluations(v)},
        figures={path.stem: path for path in sorted((folder / "figures").glob("*.png"))},
    )
    if not run.history and not results:
        raise ConfigError(f"{folder} is a run that has logged nothing yet; wait, or leave it out.")
    return run


def _has_evaluations(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("evaluations"), list)


def _read_ablation(folder: Path, name: str) -> Ablation:
    rows, table, figure, verdict = (folder / file for file in ABLATION_FILES)
    lines = rows.read_text(encoding="utf-8").splitlines() if rows.is_file() else []
    try:
        read_rows = [json.loads(line) for line in lines if line.strip()]
    except ValueError as error:
        raise ConfigError(f"{rows} is not one JSON object a line ({error}).") from error
    return Ablation(
        name,
        folder,
        read_rows,
        table.read_text(encoding="utf-8") if table.is_file() else None,
        figure if figure.is_file() else None,
        _mapping(verdict) if verdict.is_file() else None,
    )


def _mapping(path: Path) -> dict[str, Any]:
    found = workdir.read_json(path)
    if not isinstance(found, dict):
        raise ConfigError(f"{path} is not a JSON object: repair or remove it.")
    return found
