"""Score a finished run by every protocol, on its own data or on another set.

python -m experiments.evaluate --config configs/digits.py --workdir runs/digits
python -m experiments.evaluate --config configs/cifar.py --protocols knn,sgd,finetune --epochs 20
python -m experiments.evaluate --config configs/cifar.py --data configs/imagenette.py

--config FILE[:preset]         the config that the run was trained with
--workdir DIR                  the run (default: runs/NAME)
--step STEP|latest|best        which of its checkpoints (default: latest)
--protocols A,B                of knn, linear, ridge, few, retrieval, clusters (default: these),
                               sgd and finetune, which train
--epochs N                     of sgd and finetune (default: 30)
--label_fraction X             of the labels, for finetune (default: 1)
--data FILE[:preset]           transfer: score on the `data` section of this config
--data.data.key=value          change one value of it
--against DIR                  another run that was scored so: paired tests on the same test images
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from contrastive_jax import data, training
from contrastive_jax.encoders import resnet
from contrastive_jax.errors import ConfigError
from contrastive_jax.evaluation import intervals
from contrastive_jax.evaluation.knn import Scored
from contrastive_jax.storage import workdir
from contrastive_jax.training import compiler_options
from experiments.run import command_line, console, lifecycle, provenance, restore
from experiments.scoring import finetune, summary
from experiments.scoring import protocols as suite
from experiments.simclr import EXPERIMENT

TRAINED = ("sgd", "finetune")
GAUGED = 2000  # test images whose representation is gauged
FLAGS = {
    **restore.STEP_FLAG,
    "protocols": "which, by commas",
    "epochs": "of sgd and finetune",
    "label_fraction": "of the labels, for finetune",
    "against": "the workdir of another run",
}


def main(argv: Sequence[str]) -> int:
    """Restore, score, write results/evaluation.json and the predictions beside it."""
    command = command_line.parse(argv, __doc__ or "", FLAGS, pages=("data",))
    command_line.check(command.config, {**lifecycle.SHARED_SECTIONS, **EXPERIMENT.sections})
    protocols = _protocols(command.strings["protocols"])
    recipe = finetune.recipe(
        command.config, _number(command, "epochs", 30.0), _number(command, "label_fraction", 1.0)
    )
    folder = restore.folder_of(command)
    lifecycle.set_up_jax()
    with workdir.lock(folder):
        opened = restore.restore(EXPERIMENT, command, folder)
        opened, name = _target(opened, command)
        label_N = opened.run.dataset.test["label"]
        other = _other(command.strings["against"], f"{name}.npz", label_N)
        encoder = resnet.make(**command_line.as_kwargs(command.config, "encoder"))
        result, kept = _score(opened, protocols, encoder, recipe)
        result |= {"paired": paired(kept, other)} if other else {}
        result["data"] = command_line.as_kwargs(command.pages["data"] or command.config, "data")
        result |= provenance.of_run(command.config, opened.step, {})
        (folder / "results").mkdir(exist_ok=True)
        np.savez_compressed(folder / "results" / f"{name}.npz", **kept)
        workdir.write_json(folder / "results" / f"{name}.json", result)
    shown = [row for row in result["evaluations"] if is_shown(row["protocol"])]
    print(console.table(shown))
    for line in _verdicts(shown, result.get("paired", {})):
        print(line)
    print(f"results {folder}/results/{name}.json   predictions {name}.npz")
    return 0


def _protocols(text: str | None) -> tuple[str, ...]:
    known = (*suite.PROTOCOLS, *TRAINED)
    chosen = tuple(text.split(",")) if text else tuple(suite.PROTOCOLS)
    for name in chosen:
        if name not in known:
            raise ConfigError(f"--protocols: {name!r} is none of {', '.join(known)}.")
    return chosen


def _number(command: command_line.Command, name: str, default: float) -> float:
    text = command.strings[name]
    try:
        return default if text is None else float(text)
    except ValueError:
        raise ConfigError(f"--{name} is {text!r}; give a number.") from None


def _target(
    opened: restore.Finished, command: command_line.Command
) -> tuple[restore.Finished, str]:
    """The run with the data that it is scored on, and the name of its results."""
    page = command.pages["data"]
    if page is None:
        return opened, "evaluation"
    section = ConfigDict({"data": page.data} if "data" in page else {})
    command_line.check(section, {"data": lifecycle.SHARED_SECTIONS["data"]})
    target = data.load(**command_line.as_kwargs(page, "data"))
    ours, theirs = (d.train["image"].shape[-1] for d in (opened.run.dataset, target))
    if ours != theirs:
        raise ConfigError(
            f"{target.name} has images of {theirs} channels, but the run was trained on {ours}; "
            "pass --data with a set of as many."
        )
    run = opened.run._replace(dataset=target)
    return opened._replace(run=run), "evaluation-" + re.sub(r"[^\w.-]+", "_", target.name)


def _score(
    opened: restore.Finished, protocols: Sequence[str], encoder: Any, recipe: finetune.Recipe
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What goes into the JSON file, and what goes into the .npz beside it."""
    health: dict[str, Any] = {}
    scored = list(_feature_scores(opened, protocols, health))
    scored += _trained_scores(opened, protocols, encoder, recipe)
    dataset = opened.run.dataset
    rows, kept = _name_predictions(scored, dataset.name)
    kept["label"] = dataset.test["label"]
    gauged = {
        "split": "test",
        "n": min(GAUGED, len(dataset.test["label"])),
        "alignment": "two views by the run's augmentation, rounded to 8 bits",
    }
    return {"evaluations": rows, "health": health, "health_protocol": gauged}, kept


def _feature_scores(
    opened: restore.Finished, protocols: Sequence[str], health: dict[str, Any]
) -> Iterator[Scored]:
    """Every protocol on every layer of every representation; fills in `health` on the way."""
    run, wanted = opened.run, [name for name in protocols if name in suite.PROTOCOLS]
    if not wanted:
        return
    bank, test, seed = data.labeled(run.dataset.train), run.dataset.test, run.plan.seed
    order = np.random.default_rng(seed).permutation(len(bank["label"]))[: run.eval.probe_train]
    states, images = (
        (opened.trained, opened.untrained),
        (bank["image"], test["image"], _view_pairs(run)),
    )
    for representation, layers in summary.representations(run, *states, *images):
        for layer in layers[0]:
            x, test_x, pair_x = (part[layer] for part in layers)
            sets = suite.Sets(
                bank=(x, bank["label"]),
                probed=(x[order], bank["label"][order]),
                test=(test_x, test["label"]),
                n_classes=len(run.dataset.class_names),
                steps=run.eval.probe_steps,
                draws=run.eval.draws,
                seed=seed,
            )
            names = {"representation": representation, "layer": layer}
            pairs_BVD = pair_x.reshape(-1, 2, pair_x.shape[1])
            gauged = test_x[:GAUGED], test["label"][:GAUGED], pairs_BVD
            health[f"{representation}/{layer}"] = suite.gauges(*gauged)
            for name in wanted:
                print(f"scoring: {representation}, {layer}, {name}", flush=True)
                yield from suite.PROTOCOLS[name](sets, names)


def _view_pairs(run: lifecycle.Run) -> np.ndarray:
    """Two random views of each gauged test image, side by side: [2N, H, W, C] uint8."""
    image, rows = run.dataset.test["image"][:GAUGED], run.eval.batch_size
    root = training.stream_key(run.plan.seed, training.AUGMENT_STREAM)
    keys = [jax.random.fold_in(root, view) for view in range(2)]
    index = np.arange(len(image), dtype=np.int32)
    draw = jax.jit(
        lambda key, image, index: run.views.train(key, image, index)[:, 0],
        compiler_options=compiler_options.of_what_runs_once(run.mesh),
    )
    blocks = [slice(start, start + rows) for start in range(0, len(image), rows)]
    views = [np.concatenate([draw(key, image[b], index[b]) for b in blocks]) for key in keys]
    pairs = np.stack(views, axis=1).reshape(-1, *views[0].shape[1:])
    return np.round(255 * pairs).clip(0, 255).astype(np.uint8)


def _trained_scores(
    opened: restore.Finished, protocols: Sequence[str], encoder: Any, recipe: finetune.Recipe
) -> Iterator[Scored]:
    for name in (name for name in protocols if name in TRAINED):
        for representation in ("trained", "untrained"):
            state = opened.trained if representation == "trained" else opened.untrained
            print(f"scoring: {representation}, {name}", flush=True)
            if name == "sgd":
                yield finetune.sgd_probe(opened.run, state, recipe, representation=representation)
            else:
                yield finetune.finetune(
                    opened.run, encoder, state, recipe, representation=representation
                )


def _name_predictions(
    scored: Sequence[Scored], dataset: str
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """The rows with their data set, and the predictions under the names that their rows hold."""
    rows, kept = [], {}
    for row, predictions in scored:
        row = {"dataset": dataset, **row}
        if predictions is not None:
            key = f"{row['representation']}/{row['layer']}/{short_name(row['protocol'])}"
            row = {**row, "predictions": key}
            kept[key] = predictions.astype(np.int32)
        rows.append(row)
    return rows, kept


def short_name(protocol: Mapping[str, Any]) -> str:
    """The same for two runs whose protocols differ only in what was chosen."""
    chosen = protocol["name"] == "knn" and "selection" in protocol
    return "kNN, chosen" if chosen else console.protocol_name(protocol)


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


def paired(kept: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """This run minus the other, for each protocol of the trained encoder that both have."""
    label_N = kept["label"]
    shared = [key for key in kept if key in other and key.startswith("trained/")]
    tests = {k: intervals.paired(other[k] == label_N, kept[k] == label_N) for k in shared}
    return {
        key: {
            **test._asdict(),
            "interval": test.interval._asdict(),
            "mcnemar": test.mcnemar._asdict() if test.mcnemar else None,
        }
        for key, test in tests.items()
    }


def is_shown(protocol: Mapping[str, Any]) -> bool:
    """Of the kNN grid only what is quoted and what was chosen; the JSON has all of it."""
    quoted = [(10, None), (20, 0.07), (200, 0.1)]
    if protocol["name"] != "knn" or "selection" in protocol:
        return True
    setting = protocol["k_requested"], protocol["temperature"]
    return protocol["metric"] == "cosine" and setting in quoted


def _verdicts(
    shown: Sequence[Mapping[str, Any]], paired: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    for key in (row["predictions"] for row in shown if "predictions" in row):
        if key in paired:
            test = paired[key]
            difference, low, high = (
                100 * x
                for x in (test["difference"], test["interval"]["low"], test["interval"]["high"])
            )
            p_value = test["mcnemar"]["p_value"]
            yield (
                f"{key}: {difference:+.1f} points against the other run "
                f"({low:+.1f} to {high:+.1f}), McNemar p = {p_value:.3g}"
            )


if __name__ == "__main__":
    command_line.exit_with(main)
