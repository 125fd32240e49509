"""Score a finished run by every protocol, on its own data or on another set.

python -m experiments.evaluate runs/digits
python -m experiments.evaluate runs/r18 --protocols knn,sgd,finetune --epochs 20
python -m experiments.evaluate runs/r18 --data configs/imagenette.py
python -m experiments.evaluate runs/glyphs --prompts prompts.txt --data mine.npz
python -m experiments.evaluate --features mine.npz other.npz

RUN                            the folder of a run, of any method; its config is in it
--step STEP|latest|best        which of its checkpoints (default: latest)
--protocols A,B                of knn, linear, ridge, few, retrieval, clusters (default: these),
                               sgd and finetune, which train
--epochs N                     of sgd and finetune (default: 30)
--label_fraction X             of the labels, for finetune (default: 1)
--data FILE[:preset]           transfer: score on the `data` section of this config, or on the
                               images of an .npz or a folder
--prompts FILE                 zero-shot, of a run on captioned images, by templates such as
                               "a photo of a {}", one a line; {} becomes the name of each class
--data.data.key=value          change one value of it
--against DIR                  another run that was scored so: paired tests on the same test images
--config.eval.key=value        change how it is scored
--data_dir DIR                 where its data is now, if it has moved
--config FILE --workdir DIR    the older way to name the run; the config must be the run's

--features FILE.npz ...        in place of a run: score the features of any program, by the
                               protocols that do not train an encoder; features [N, F] and
                               test_features [M, F], and label [N] and test_label [M] if known
--to FILE.json                 where their scores go (default: beside the first, mine-scores.json)
--seed N                       of what is sampled for them (default: 0)
"""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from contrastive_jax import data, encoders, training
from contrastive_jax.errors import ConfigError
from contrastive_jax.evaluation import intervals, protocols
from contrastive_jax.evaluation.results import Scored
from contrastive_jax.storage import workdir
from contrastive_jax.training import compiler_options
from contrastive_jax.types import TrainState
from experiments import linear_probe
from experiments.run import command_line, lifecycle, provenance, restore
from experiments.run.build import Run
from experiments.run.command_line import Command
from experiments.run.sections import as_kwargs, nearest
from experiments.scoring import feature_files, finetune, images, results, summary, zero_shot
from experiments.scoring.kinds import IMAGES

TRAINED = ("sgd", "finetune")
FLAGS = {
    "protocols": "which, by commas",
    "epochs": "of sgd and finetune",
    "label_fraction": "of the labels, for finetune",
    "against": "the workdir of another run",
    "data": "a config, an .npz or a folder whose data is scored",
    "prompts": "templates for zero-shot classification, one a line",
}


class Request(NamedTuple):
    """What a command asks to be scored."""

    features: tuple[str, ...]  # protocols on frozen features
    trained: tuple[str, ...]  # protocols that train
    recipe: finetune.Recipe
    prompts: tuple[str, ...]  # templates of zero-shot classification


def main(argv: Sequence[str]) -> int:
    """Restore, score, write results/evaluation.json and the predictions beside it."""
    if any(re.match("--features(=|$)", word) for word in argv):
        return feature_files.main(argv, __doc__ or "")
    command, opened = restore.parse(argv, __doc__ or "", FLAGS)
    if opened.experiment.kind.unit != IMAGES.unit:
        return _score_texts(command, opened)
    request = _request(command, opened)
    lifecycle.set_up_jax()
    with restore.place_for_results(opened.folder) as place:
        target, name = _target(command, argv)
        run, step, trained = opened.load(command.strings["step"] or "latest")
        run = run if target is None else _on_other_data(run, target)
        if request.prompts:
            zero_shot.check(run)
        if request.trained:
            finetune.check(run, request.recipe, request.trained)
        other = _other(command.strings["against"], f"{name}.npz", images.labels(run).test)
        origin = provenance.of_scores(run, opened.description, step)
        origin["data"] = data.identity(run.dataset)
        result: dict[str, Any] = {"evaluations": []}
        parts = (
            (_score_features, request.features),
            (_score_by_prompts, request.prompts),
            (_score_by_training, request.trained),
        )
        for score, wanted in parts:  # what training costs hours for cannot cost the others
            if wanted:
                found, predictions = score(run, trained, request)
                result = _write(place / "results", name, found, predictions, origin, other)
        _show(result)
    print(f"results {opened.folder}/results/{name}.json   predictions {name}.npz")
    return 0


def _score_texts(command: Command, opened: restore.OpenedRun) -> int:
    """Score a run on texts again, by the one protocol that it has."""
    for name in FLAGS:
        if command.strings[name] is not None:
            raise ConfigError(
                f"--{name} is of runs on images; a run of {opened.experiment.name!r} is scored on "
                "other texts by experiments.retrieval --data DATA RUN."
            )
    return linear_probe.score_again(command, opened, "evaluation")


def _write(
    folder: Path,
    name: str,
    found: Mapping[str, Any],
    predictions: Mapping[str, np.ndarray],
    origin: Mapping[str, Any],
    other: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    """Write results and predictions; what was scored before of the same step and data is kept."""
    folder.mkdir(exist_ok=True)
    before, kept = _before(folder, name, origin)
    scored = {row["protocol"]["name"] for row in found["evaluations"]}
    rows = [r for r in before.get("evaluations", []) if r["protocol"]["name"] not in scored]
    kept = {row["predictions"]: kept[row["predictions"]] for row in rows if "predictions" in row}
    result = {**before, **found, **origin, "evaluations": [*rows, *found["evaluations"]]}
    predictions = {**kept, **predictions}
    if other:
        result["paired"] = intervals.compare(predictions, other)
    results.write_predictions(folder / f"{name}.npz", predictions)
    workdir.write_json(folder / f"{name}.json", result)
    return result


def _before(
    folder: Path, name: str, origin: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What an earlier command left of the same step, data and config; nothing otherwise."""
    path = folder / f"{name}.json"
    before = workdir.read_json(path) if path.is_file() else {}
    same = [before.get(key) == origin[key] for key in ("step", "data", "config_sha256")]
    if not all(same) or not path.with_suffix(".npz").is_file():
        return {}, {}
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as file:
        return before, dict(file)


def _request(command: Command, opened: restore.OpenedRun) -> Request:
    known = (*protocols.PROTOCOLS, *TRAINED)
    text, file = command.strings["protocols"], command.strings["prompts"]
    prompts = zero_shot.read(file, opened) if file else ()
    default = () if prompts else tuple(protocols.PROTOCOLS)
    chosen = tuple(text.split(",")) if text else default
    for name in chosen:
        if name not in known:
            raise ConfigError(f"--protocols: {name!r} is no protocol; {nearest(name, known)}")
    epochs, fraction = _number(command, "epochs", 30.0), _number(command, "label_fraction", 1.0)
    return Request(
        tuple(name for name in chosen if name in protocols.PROTOCOLS),
        tuple(name for name in chosen if name in TRAINED),
        finetune.recipe(opened.config, epochs, fraction),
        prompts,
    )


def _number(command: Command, name: str, default: float) -> float:
    text = command.strings[name]
    try:
        return default if text is None else float(text)
    except ValueError:
        raise ConfigError(f"--{name} is {text!r}; give a number.") from None


def _target(command: Command, argv: Sequence[str]) -> tuple[data.Dataset | None, str]:
    """The data set of --data, and the name of the results."""
    path = command.strings["data"]
    if path is None:
        return None, "evaluation"
    section = _data_section(path)
    sections = {"data": IMAGES.sections["data"]}
    texts = command_line.override_texts(argv, "data")
    config = command_line.override(section, texts, sections)
    with command_line.bad_values():
        target = data.load(**as_kwargs(config, "data"))
    return target, "evaluation-" + re.sub(r"[^\w.-]+", "_", target.name)


def _data_section(path: str) -> ConfigDict:
    """The data section of a config, or one of a place of images."""
    place = Path(path).expanduser()
    if place.suffix == ".npz" or place.is_dir():
        source = "folder" if place.is_dir() else "arrays"
        return ConfigDict({"data": {"source": source, "data_dir": str(place), "batch_size": 1}})
    file = command_line.read(path)
    return ConfigDict({"data": file.data} if "data" in file else {})


def _on_other_data(run: Run, target: data.Dataset) -> Run:
    ours, theirs = (d.train["image"].shape[-1] for d in (run.dataset, target))
    if ours != theirs:
        raise ConfigError(
            f"{target.name} has images of {theirs} channels, but the run was trained on {ours}; "
            "pass --data with a set of as many."
        )
    known = {"vocabulary": run.dataset.vocabulary, "tokenizer": run.dataset.tokenizer}
    return run._replace(dataset=target._replace(**known))  # what the text encoder knows


def _score_features(
    run: Run, trained: TrainState, request: Request
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What the JSON file and the .npz hold of the protocols on frozen features."""
    if not request.features:
        return {"evaluations": []}, {}
    settings = images.of_run(run).protocols.whole_grids()
    found = summary.score_features(run, trained, request.features, settings, _view_pairs(run))
    for name, why in found.left_out.items():
        print(f"left out: {name} ({why})", file=sys.stderr)
    rows, predictions = results.named(found.scored, run.dataset.name, images.labels(run).test)
    named = {"left_out": found.left_out, "diagnostics": found.diagnostics}
    return {
        "evaluations": rows,
        **named,
        "diagnostics_protocol": _diagnostics_protocol(run),
    }, predictions


def _score_by_prompts(
    run: Run, trained: TrainState, request: Request
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The same of zero-shot classification."""
    scored = list(zero_shot.scores(run, trained, request.prompts))
    rows, predictions = results.named(scored, run.dataset.name, images.labels(run).test)
    return {"evaluations": rows}, predictions


def _score_by_training(
    run: Run, trained: TrainState, request: Request
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The same of the protocols that train."""
    scored = list(_trained_scores(run, trained, request))
    rows, predictions = results.named(scored, run.dataset.name, images.labels(run).test)
    return {"evaluations": rows}, predictions


def _diagnostics_protocol(run: Run) -> dict[str, Any]:
    n = min(summary.DIAGNOSED, len(run.dataset.test["image"]))
    return {"split": "test", "n": n, "alignment": "two views by the run's augmentation"}


def _view_pairs(run: Run) -> np.ndarray:
    """Two random views of each diagnosed test image, side by side: [2N, H, W, C] float32."""
    image, rows = run.dataset.test["image"][: summary.DIAGNOSED], images.of_run(run).batch_size
    root = training.stream_key(run.plan.seed, training.AUGMENT_STREAM)
    keys = [jax.random.fold_in(root, view) for view in range(2)]
    index = np.arange(len(image), dtype=np.int32)
    train = images.views(run.config).train
    augmented = jax.jit(
        lambda key, image, index: train(key, image, index)[:, 0],
        compiler_options=compiler_options.for_single_use(run.mesh),
    )
    blocks = [slice(start, start + rows) for start in range(0, len(image), rows)]
    views = [np.concatenate([augmented(key, image[b], index[b]) for b in blocks]) for key in keys]
    return np.stack(views, axis=1).reshape(-1, *views[0].shape[1:])


def _trained_scores(run: Run, trained: TrainState, request: Request) -> Iterator[Scored]:
    states = {"trained": trained, "untrained": run.fresh_state()} if request.trained else {}
    encoder = encoders.make(**as_kwargs(run.config, "encoder"))
    for name in request.trained:
        for representation, state in states.items():
            print(f"scoring: {representation}, {name}", flush=True)
            named = {"representation": representation}
            if name == "sgd":
                yield finetune.sgd_probe(run, state, request.recipe, **named)
            else:
                yield finetune.finetune(run, encoder, state, request.recipe, **named)


def _other(folder: str | None, name: str, label_N: np.ndarray) -> dict[str, np.ndarray]:
    """The predictions of the run of --against, {} without one."""
    if folder is None:
        return {}
    path = Path(folder).expanduser() / "results" / name
    if not path.is_file():
        raise ConfigError(f"{path} is not there; first run experiments.evaluate on that run.")
    with np.load(path, allow_pickle=False) as file:
        theirs = dict(file)
    if not np.array_equal(theirs["label"], label_N):
        raise ConfigError(f"{path} is of other test images; a paired test needs the same.")
    return theirs


def _show(result: Mapping[str, Any]) -> None:
    shown = [row for row in result["evaluations"] if protocols.is_quoted(row["protocol"])]
    results.show(shown, result.get("diagnostics", {}))
    tests = result.get("paired", {})
    for key in (row["predictions"] for row in shown if row.get("predictions") in tests):
        test = tests[key]
        low, high = (100 * test["interval"][end] for end in ("low", "high"))
        print(
            f"{key}: {100 * test['difference']:+.1f} points against the other run "
            f"({low:+.1f} to {high:+.1f}), McNemar p = {test['mcnemar']['p_value']:.3g}"
        )


if __name__ == "__main__":
    with command_line.exit_codes():
        sys.exit(main(sys.argv))
