"""Score features of any program, kept in .npz files, by the protocols that need only features."""

import argparse
import hashlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from contrastive_jax import data
from contrastive_jax.data.examples import distinct_labels, number_labels
from contrastive_jax.errors import ConfigError, DataError
from contrastive_jax.evaluation import diagnostics, protocols
from contrastive_jax.evaluation.results import Scored
from contrastive_jax.storage import workdir
from experiments.run import command_line, lifecycle, provenance, restore
from experiments.run.sections import as_kwargs, nearest
from experiments.scoring import images, results
from experiments.scoring.kinds import IMAGES
from experiments.scoring.summary import DIAGNOSED

ARRAYS = ("features", "label", "test_features", "test_label")
_NEEDED = (
    "Save features [N,F] and test_features [M,F], and label [N] and test_label [M] where they are\n"
    "known: np.savez('mine.npz', features=..., label=..., test_features=..., test_label=...)"
)


class Features(NamedTuple):
    """What a file holds, its labels numbered by class."""

    name: str
    sets: protocols.Sets
    sha256: str


def main(argv: Sequence[str], usage: str) -> int:
    """Score each file, write one JSON file and the predictions beside it, print a table."""
    arguments = _parser(usage).parse_args(_own_words(argv[1:]))
    names = _names(arguments.protocols)
    settings = _settings(command_line.override_texts(argv), arguments.seed)
    target = _target(arguments.features, arguments.to)
    files = [read(path) for path in arguments.features]
    lifecycle.set_up_jax()
    found = [_score(file, names, settings) for file in files]
    _write(target, files, found)
    rows = [row for each in found for row in each["evaluations"]]
    results.show(rows, {k: v for each in found for k, v in each["diagnostics"].items()})
    print(f"results {target}   predictions {target.with_suffix('.npz').name}")
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise ConfigError(f"{message}\nSuch as: --features mine.npz --protocols knn,linear")


def _parser(usage: str) -> argparse.ArgumentParser:
    form = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
    parser = _Parser(prog="python -m experiments.evaluate", description=usage, **form)
    parser.add_argument("--features", type=Path, nargs="+", required=True, metavar="FILE.npz")
    parser.add_argument("--to", type=Path, metavar="FILE.json")
    parser.add_argument("--protocols", default=",".join(protocols.PROTOCOLS), metavar="A,B")
    parser.add_argument("--seed", type=int, default=0, help="of what is sampled; of a run its own")
    return parser


def _own_words(words: Sequence[str]) -> list[str]:
    return [word for word in words if not word.startswith("--config.eval.")]


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if name not in protocols.PROTOCOLS:
            hint = nearest(name, tuple(protocols.PROTOCOLS))
            raise ConfigError(f"--protocols: {name!r} cannot score features; {hint}")
    return names


def _settings(texts: Mapping[str, str], seed: int) -> protocols.Settings:
    sections = {"eval": IMAGES.sections["eval"]}
    config = command_line.override(ConfigDict(), texts, sections)
    with command_line.bad_values():
        if seed < 0:
            raise ValueError(f"--seed is {seed}; give 0 or more")
        chosen = images.settings(**as_kwargs(config, "eval"))
    return chosen.protocols._replace(seed=seed).whole_grids()


def _target(files: Sequence[Path], to: Path | None) -> Path:
    """Choose where the results go: beside the first file, and never over one of them."""
    if len({file.stem for file in files}) < len(files):
        raise ConfigError("--features: two files have the same name, by which they are shown.")
    first = files[0].expanduser()
    target = (to or first.with_name(f"{first.stem}-scores.json")).expanduser().absolute()
    if target.suffix != ".json" or not target.parent.is_dir():
        raise ConfigError(f"--to is {target}; give a .json file in a folder that exists.")
    if target.with_suffix(".npz") in [file.expanduser().absolute() for file in files]:
        raise ConfigError(
            f"--to {target.name}: the predictions, {target.stem}.npz, would replace the features."
        )
    return target


def read(path: Path) -> Features:
    """Read a file of features: float16, float32 or float64, and integer labels, -1 for none.

    Raises:
      DataError: naming the array that is missing, unknown, or of another shape or type.
    """
    path = path.expanduser()
    try:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # the file system, zipfile and numpy raise many types
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"cannot read {path}: {reason}\n{_NEEDED}") from error
    unknown, missing = set(arrays) - set(ARRAYS), {"features", "test_features"} - set(arrays)
    if unknown or missing:
        raise DataError(f"{path} holds {', '.join(arrays) or 'nothing'}\n{_NEEDED}")
    splits = [
        _split(f"{path}: {prefix}", arrays[f"{prefix}features"], arrays.get(f"{prefix}label"))
        for prefix in ("", "test_")
    ]
    return Features(path.stem, _numbered(splits[0], splits[1], path), sha256)


def _split(what: str, features: np.ndarray, label: np.ndarray | None) -> dict[str, np.ndarray]:
    shape, dtype = list(features.shape), features.dtype
    if features.ndim != 2 or 0 in shape or not np.issubdtype(dtype, np.floating):
        raise DataError(f"{what}features is {dtype} {shape}, but must be floats [N,F]\n{_NEEDED}")
    with np.errstate(over="ignore"):
        single = features.astype(np.float32)
    if not np.isfinite(single).all():
        row = int(np.flatnonzero(~np.isfinite(single).all(axis=1))[0])
        raise DataError(f"{what}features has a number in row {row} that is not finite in float32")
    if label is None:
        return {"features": single}
    if label.shape != (shape[0],) or not np.issubdtype(label.dtype, np.integer):
        raise DataError(
            f"{what}label is {label.dtype} {list(label.shape)}, but must be integers [{shape[0]}]"
            f"\n{_NEEDED}"
        )
    return {"features": single, "label": label}


def _numbered(
    train: Mapping[str, np.ndarray], test: Mapping[str, np.ndarray], path: Path
) -> protocols.Sets:
    """Number the labels by class: those of training, or of the test where training has none."""
    widths = [split["features"].shape[1] for split in (train, test)]
    if widths[0] != widths[1]:
        raise DataError(f"{path}: features have {widths[0]} columns, test_features {widths[1]}")
    classes = distinct_labels(train)
    classes = classes if len(classes) else distinct_labels(test)
    train = number_labels(train, classes, f"{path}: label", lowest=data.UNLABELED)
    test = number_labels(test, classes, f"{path}: test_label", lowest=0)
    searched = data.labeled(train)
    none = np.zeros(0, np.int32)
    return protocols.Sets(
        (searched["features"], searched["label"]),
        (test["features"], test.get("label", none)),
        len(classes),
    )


def _score(file: Features, names: Sequence[str], settings: protocols.Settings) -> dict[str, Any]:
    """Score one file as `summary.score_features` scores a layer of a run."""
    print(f"scoring: {file.name}", flush=True)
    train, (test, label) = file.sets.train, file.sets.test
    known = protocols.Labels(train[1], label, file.sets.n_classes)
    left_out = protocols.left_out(names, known, settings)
    for name, why in left_out.items():
        print(f"left out: {name} ({why})", file=sys.stderr)
    record = {"representation": file.name, "layer": "features"}
    scored: list[Scored] = list(protocols.score(names, file.sets, settings, **record))
    rows, predictions = results.named(scored, file.name, label)
    labels = label[:DIAGNOSED] if len(label) else None
    measured = diagnostics.of_features(test[:DIAGNOSED], labels)
    return {
        "evaluations": rows,
        "left_out": left_out,
        "diagnostics": {f"{file.name}/features": measured},
        "predictions": predictions,
    }


def _write(target: Path, files: Sequence[Features], found: Sequence[Mapping[str, Any]]) -> None:
    workdir.write_json(
        target,
        {
            "schema": restore.SCHEMA,
            "scored_by": provenance.code(),
            "versions": provenance.versions(),
            "files": {file.name: {"sha256": file.sha256} for file in files},
            "evaluations": [row for each in found for row in each["evaluations"]],
            "left_out": {
                file.name: each["left_out"] for file, each in zip(files, found, strict=True)
            },
            "diagnostics": {k: v for each in found for k, v in each["diagnostics"].items()},
        },
    )
    results.write_predictions(
        target.with_suffix(".npz"),
        {
            (f"{file.name}/label" if key == "label" else key): values
            for file, each in zip(files, found, strict=True)
            for key, values in each["predictions"].items()
        },
    )
