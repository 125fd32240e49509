"""A run opened by its folder: method and config from its config.json, a state of its steps."""

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from contrastive_jax import data
from contrastive_jax.errors import CheckpointError, ConfigError
from contrastive_jax.storage import workdir
from contrastive_jax.training.checkpoint import Checkpointer
from contrastive_jax.types import TrainState
from experiments.run import build, command_line, methods
from experiments.run.build import Experiment, Run
from experiments.run.command_line import Command
from experiments.run.sections import PLACES, Sections, as_kwargs, complete, leaves

FLAGS = {
    "step": "which checkpoint: a number, latest or best",
    "data_dir": "where the data is now, if it has moved",
}
FREE = (  # how a run is watched, scored and read
    "eval.",
    "log.",
    "checkpoint.",
    "train.log_every",
    "parallel.",
    "data.data_dir",
    "data.path",
    "data.test_path",
    "data.tokenizer",
    "data.negatives_path",
    "data.workers",
    "data.bank",
)
START = {"init", "folder", "folder_sha256"}  # of an encoder: weights that training starts from
SCHEMA = 2  # of config.json and of the files in results/
# Keys of older versions by their present names; None: the value that is left out did nothing.
RENAMED = {"loss.views_apart": "loss.views_separately", "encoder.whiten": None}


class OpenedRun(NamedTuple):
    """A run by its folder; neither data nor checkpoint has been read."""

    folder: Path
    description: dict[str, Any]  # its config.json
    experiment: Experiment
    config: ConfigDict  # with what the command changes of `eval`

    def load(self, step: str = "latest") -> "LoadedRun":
        """Read the data and the checkpoint "latest", "best" or of a step.

        Raises:
          ConfigError: no such step. CheckpointError: none can be trusted. DataError: no such data.
        """
        run = build.build(self.experiment, self.experiment.to_score(self.config))
        run = run._replace(config=self.config)
        refuse_other_data(self.folder, self.description.get("data"), data.identity(run.dataset))
        return _at(run, self.folder, step)

    def load_without_data(self, step: str = "latest") -> "LoadedRun":
        """Read the checkpoint alone, where config.json describes the data; raises as `load`.

        The weights that training started from are not needed either.
        """
        identity = self.description.get("data")
        if identity is None:  # of a version that did not record it
            return self.load(step)
        stand_in, config = self.experiment.kind.stand_in, _without_start(self.config)
        run = build.build(self.experiment, config, lambda config: stand_in(config, identity))
        return _at(run, self.folder, step)


class LoadedRun(NamedTuple):
    """A run with the state of one of its checkpoints."""

    run: Run
    step: int
    trained: TrainState


def _without_start(config: ConfigDict) -> ConfigDict:
    config = config.copy_and_resolve_references()
    for section in ("encoder", "text", "towers"):
        for key in START.intersection(config.get(section, {})):
            config[section][key] = ""
    return config


def _at(run: Run, folder: Path, wanted: str) -> LoadedRun:
    """Restore the checkpoint "latest", "best" or of a step; skip damaged ones with a warning."""
    if not (folder / "checkpoints").is_dir():
        raise CheckpointError(f"{folder} holds no checkpoints; train the run first.")
    settings = as_kwargs(run.config, "checkpoint")
    with Checkpointer(folder / "checkpoints", **settings) as checkpointer:
        restored = checkpointer.restore(run.abstract_state(), step=_step(wanted, checkpointer))
    if restored is None:
        raise CheckpointError(f"{folder} has no checkpoint yet; train it first.")
    for line in restored.skipped:
        print(f"warning: {line}", file=sys.stderr)
    return LoadedRun(run, restored.step, restored.state)


def _step(wanted: str, checkpointer: Checkpointer) -> int | None:
    if wanted == "latest":
        return None
    step = checkpointer.best_step() if wanted == "best" else None
    step = int(wanted) if wanted.isdecimal() else step
    if step not in checkpointer.steps():
        raise ConfigError(f"--step {wanted}: the checkpoints are {checkpointer.steps()}.")
    return step


def description(folder: Path) -> dict[str, Any]:
    """Read the config.json of a run.

    Raises:
      ConfigError: the folder holds no run.
    """
    path = folder / "config.json"
    found = workdir.read_json(path) if path.is_file() else None
    config = found.get("config") if isinstance(found, dict) else None
    if not isinstance(config, dict) or not all(isinstance(part, dict) for part in config.values()):
        raise ConfigError(f"{folder} holds no run: it has no config.json of one.")
    if found.get("schema", 1) > SCHEMA:
        raise ConfigError(f"{folder} was written by a newer version; use that version to read it.")
    return found


def refuse_other_data(
    folder: Path, before: Mapping[str, Any] | None, now: Mapping[str, Any]
) -> None:
    """Refuse data that is not what a run was trained on; older runs do not say what that was.

    Raises:
      ConfigError: naming what differs.
    """
    if before is None or before["sha256"] == now["sha256"]:
        return
    names = ("name", "train", "test", "image_shape")
    changed = [f"{k}: {before[k]} -> {now[k]}" for k in names if before.get(k) != now.get(k)]
    raise ConfigError(
        f"{folder} was trained on other data: {'; '.join(changed) or 'its content differs'}.\n"
        "Give the data that it was trained on, or another --workdir for another run."
    )


def method_of(description: Mapping[str, Any]) -> str:
    """Read the method of a run; an older one, which does not name it, is known by its sections.

    >>> method_of({"config": {"moco": {}}})
    'moco'
    """
    by_section = (name for name in methods.METHODS if name in description["config"])
    return description.get("method") or next(by_section, "simclr")


def config_of(description: Mapping[str, Any], experiment: Experiment) -> ConfigDict:
    """Read the config of a run, completed by the keys that came after it."""
    config = ConfigDict(description["config"])
    for old, new in RENAMED.items():
        section, _, key = old.partition(".")
        if key in config.get(section, {}):
            value = config[section][key]
            del config[section][key]
            if new is not None:
                config[section][new.partition(".")[2]] = value
    return complete(config, experiment.all_sections())


def differences(
    before: Mapping[str, Any], experiment: Experiment, config: ConfigDict, free: Sequence[str]
) -> tuple[list[str], list[str]]:
    """List the keys of a config that make it another run than `before`, and those free to change.

    `before` has a "config"; `free` are keys, or the beginnings of keys.
    """
    plain = command_line.plain
    old, new = dict(leaves(plain(config_of(before, experiment)))), dict(leaves(plain(config)))
    refused: list[str] = []
    allowed: list[str] = []
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            kind = allowed if key.startswith(tuple(free)) else refused
            kind.append(f"{key}: {old.get(key)!r} -> {new.get(key)!r}")
    return refused, allowed


def open_run(
    folder: str | os.PathLike[str], data_dir: str | tuple[str, ...] | None = None
) -> OpenedRun:
    """Open a run by its folder, with the method and the config that it was trained with.

    Args:
      folder: of the run.
      data_dir: where its data is now, several places as a tuple or divided by commas.

    Raises:
      ConfigError: the folder holds no run, or one of a method that this version lacks.
    """
    path = Path(folder).expanduser().absolute()
    found = description(path)
    method = method_of(found)
    if method not in methods.METHODS:
        known = ", ".join(methods.METHODS)
        raise ConfigError(f"{path} is a run of {method!r}; this version has {known}.")
    experiment = methods.METHODS[method]
    try:
        config = config_of(found, experiment)
    except ConfigError as error:
        raise ConfigError(f"{path / 'config.json'}: {error}") from error
    if data_dir is not None:
        with config.unlocked():
            places = [key for key in PLACES if key in config.data]
            place = next((key for key in places if config.data[key]), places[0])
            several = isinstance(config.data[place], tuple) and isinstance(data_dir, str)
            config.data[place] = tuple(data_dir.split(",")) if several else data_dir
    return OpenedRun(path, found, experiment, config)


@contextmanager
def place_for_results(folder: Path) -> Iterator[Path]:
    """Hold the folder of a run to write scores into; one that is read-only is left as it is.

    Raises:
      CheckpointError: at the end, where the folder is read-only: nothing was kept.
    """
    if os.access(folder, os.W_OK):
        with workdir.lock(folder):
            yield folder
        return
    with tempfile.TemporaryDirectory() as elsewhere:
        yield Path(elsewhere)
    raise CheckpointError(f"{folder} is read-only: the scores above were printed, and not kept.")


def parse(
    argv: Sequence[str], usage: str, strings: Mapping[str, str] | None = None
) -> tuple[Command, OpenedRun]:
    """Read the command line of a command on a finished run, and open the run.

    Raises:
      ConfigError: no run, or the command changes more than how it is scored.
    """
    flags = {**FLAGS, **(strings or {})}
    command = command_line.parse(argv, usage, _sections_of, flags, takes_run=True)
    data_dir = command.strings["data_dir"]
    if command.config is None:
        opened = open_run(command.run or "", data_dir)
        for key in command.overrides:
            if not key.startswith("eval."):
                raise ConfigError(
                    f"--config.{key} would make it another run; a finished one keeps its config.\n"
                    "Only --config.eval.KEY=VALUE may change."
                )
        sections = opened.experiment.all_sections()
        config = command_line.override(opened.config, command.overrides, sections)
        return command, opened._replace(config=config)
    folder = Path(command.workdir or os.path.join("runs", command.name))
    given = next(filter(None, map(command.config.data.get, PLACES)), None)
    opened = open_run(folder, data_dir or given)
    with command_line.bad_values():
        config = opened.experiment.resolve(command.config)
    changed, _ = differences(opened.description, opened.experiment, config, FREE)
    if changed:
        raise ConfigError(
            f"{opened.folder} was trained with another config: {'; '.join(changed[:3])}.\n"
            f"Name the run by its folder, which has its config: ... {opened.folder}"
        )
    with opened.config.unlocked():
        opened.config.eval = command.config.eval
    return command, opened


def _sections_of(path: str) -> Sections:
    return methods.of_sections(command_line.read(path)).all_sections()
