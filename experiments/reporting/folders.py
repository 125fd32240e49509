"""Run and ablation folders, read for a report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from contrastive_jax.errors import ConfigError
from contrastive_jax.storage import jsonl, workdir
from experiments.run import restore
from experiments.run.sections import leaves

SCORED_FILES = ("summary", "linear_probe", "evaluation")  # results/*.json on the run's data
ABLATION_FILES = ("results.jsonl", "table.md", "figure.png", "verdict.json")


class Run(NamedTuple):
    """One run's folder."""

    name: str
    folder: Path
    method: str
    config: dict[str, Any]  # "section.key" -> value
    description: dict[str, Any]  # the rest of config.json: "command", "versions", "code", "data"
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
    """One ablation's folder; what is not there is empty."""

    name: str
    results: str  # a JSON object a line
    table: str  # Markdown
    figure: Path | None
    verdict: dict[str, Any]


def read(folders: Sequence[Path]) -> tuple[list[Run], list[Ablation]]:
    """Read the runs and the ablations among the folders, in order.

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


def state(run: Run) -> str:
    """Say how far a run has come."""
    if (run.folder / ".unfinished").exists():
        return f"stopped at step {run.step:,} while it was scored or drawn: run its command again"
    if run.summary is None:
        return f"not finished: step {run.step:,}, not scored"
    scored = run.summary.get("step", run.step)
    if run.step > scored:
        return f"scored at step {scored:,}, trained on to {run.step:,} since"
    return f"finished, {scored:,} steps"


def _names(folders: Sequence[Path]) -> list[str]:
    """Find the shortest ends of the paths that are all different."""
    for depth in range(1, max(len(folder.parts) for folder in folders) + 1):
        names = ["/".join(folder.parts[-depth:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def _read(folder: Path, name: str) -> Run | Ablation:
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder; give the folder of a run or of an ablation.")
    if any((folder / file).is_file() for file in ABLATION_FILES):
        return _read_ablation(folder, name)
    return _read_run(folder, name)


def _read_run(folder: Path, name: str) -> Run:
    description = restore.description(folder)
    config, log = description.pop("config"), folder / "metrics.jsonl"
    results = {p.stem: workdir.read_json(p) for p in sorted((folder / "results").glob("*.json"))}
    scored = {key: value for key, value in results.items() if _has_evaluations(value)}
    run = Run(
        name=name,
        folder=folder,
        method=restore.method_of({**description, "config": config}),
        config=dict(leaves(config)),
        description=description,
        history=jsonl.read_jsonl(log) if log.is_file() else [],
        results=scored,
        other_results={key: value for key, value in results.items() if key not in scored},
        figures={path.stem: path for path in sorted((folder / "figures").glob("*.png"))},
    )
    if not run.history and not results:
        raise ConfigError(f"{folder} is a run that has logged nothing yet; wait, or leave it out.")
    return run


def _has_evaluations(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("evaluations"), list)


def _read_ablation(folder: Path, name: str) -> Ablation:
    results, table, figure, verdict = (folder / file for file in ABLATION_FILES)
    return Ablation(
        name,
        results.read_text(encoding="utf-8") if results.is_file() else "",
        table.read_text(encoding="utf-8") if table.is_file() else "",
        figure if figure.is_file() else None,
        workdir.read_json(verdict) if verdict.is_file() else {},
    )
