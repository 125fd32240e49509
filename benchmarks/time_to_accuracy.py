"""Seconds of training until kNN reaches a given accuracy on the test set, for several seeds.

    python benchmarks/time_to_accuracy.py --target 0.48 --data_dir DIR       # two CPU cores
    python benchmarks/time_to_accuracy.py --config configs/cifar.py:fast --target 0.90 \\
        --out benchmarks/results/time_to_accuracy_gpu.json                   # one GPU
    python benchmarks/time_to_accuracy.py --smoke --out /tmp/accuracy.json   # a try

Every --every steps the training pauses, and the pooled features of the test set are classified by
their k = 10 nearest neighbours (cosine, equal votes) among those of the whole training set. The
clock stands still meanwhile, and it starts when the step has been compiled; compiling is reported
beside it. Two answers: the first look at which the target was reached, and the last step of the
schedule with its accuracy. Nothing is chosen by these looks at the test set.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import harness

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")


class Look(NamedTuple):
    """One evaluation: when the clock was stopped and when it went on."""

    step: int
    stopped: float
    resumed: float
    accuracy: float


def train_once(config: Any, every: int | None) -> dict[str, Any]:
    """One seed: the accuracies and the seconds of training until each."""
    import jax

    from contrastive_jax import data, evaluate, train
    from experiments import launch, scoring, simclr

    run = launch.build(simclr.EXPERIMENT, config)
    bank, test = data.labelled(run.dataset.train), run.dataset.test
    protocol = evaluate.KnnProtocol(10)
    looks: list[Look] = []

    def look(state: Any, step: int) -> dict[str, float]:
        jax.block_until_ready(state)
        stopped = time.perf_counter()
        h = [scoring.extract(run, state, images)["features"] for images in (bank.image, test.image)]
        near, index = evaluate.knn_neighbours(*h, k=protocol.k)
        predicted = evaluate.knn_predict(near, bank.label[index], protocol)
        accuracy = float((predicted == test.label).mean())
        looks.append(Look(step, stopped, time.perf_counter(), accuracy))
        return {}

    finished = train.run(
        run.objective,
        run.optimizer,
        run.feed,
        launch.fresh_state(run),
        plan=run.plan,
        mesh=run.mesh,
        write=lambda step, row: None,
        evaluators=[train.Evaluator(every or run.plan.steps, look)],
    )
    began = time.perf_counter() - finished.train_seconds  # when the step had been compiled
    epoch = len(run.dataset.train.image) // run.dataset.batch_size
    return {
        "seed": run.plan.seed,
        "compile_seconds": finished.compile_seconds,
        "evaluation_seconds": sum(look.resumed - look.stopped for look in looks),
        "steps_per_epoch": epoch,
        "curve": curve(looks, began),
    }


def curve(looks: list[Look], began: float) -> list[dict[str, float]]:
    """Step, seconds of training and accuracy of each look; the looks themselves take no time.

    >>> curve([Look(10, 5.0, 7.0, 0.4), Look(20, 9.5, 12.0, 0.5)], 1.0)
    [{'step': 10, 'seconds': 4.0, 'accuracy': 0.4}, {'step': 20, 'seconds': 6.5, 'accuracy': 0.5}]
    """
    points, looked = [], 0.0
    for look in looks:
        seconds = look.stopped - began - looked
        points.append({"step": look.step, "seconds": seconds, "accuracy": look.accuracy})
        looked += look.resumed - look.stopped
    return points


def reached(points: list[dict[str, float]], target: float) -> float | None:
    """Seconds of training at the first look that found the target, None where none did.

    >>> reached([{"seconds": 4.0, "accuracy": 0.4}, {"seconds": 6.5, "accuracy": 0.5}], 0.45)
    6.5
    """
    return next((p["seconds"] for p in points if p["accuracy"] >= target), None)


def load_config(path: str, smoke: bool) -> Any:
    from experiments import command_line

    config = command_line.parse(["time_to_accuracy", f"--config={path}"], "").config
    if smoke:
        config.train.steps = 4
    return config


def run(args: argparse.Namespace) -> dict[str, Any]:
    from experiments import launch

    launch.set_up_jax()
    seeds, first = [], None
    for seed in range(args.seeds):
        config = load_config(args.config, args.smoke)
        config.train.seed = seed
        if "data_dir" in config.data and args.data_dir:
            config.data.data_dir = args.data_dir
        first = first or json.loads(config.to_json())
        found = train_once(config, args.every)
        last = found["curve"][-1]
        found |= {"seconds_to_target": reached(found["curve"], args.target), "last": last}
        print(
            f"seed {seed}: target after {found['seconds_to_target']} s; "
            f"last step {last['accuracy']:.4f} after {last['seconds']:.1f} s"
        )
        seeds.append(found)
    return {
        **harness.circumstances(PACKAGES),
        "protocol": {
            "config": args.config,
            "target": args.target,
            "every": args.every,
            "seeds": args.seeds,
            "accuracy": "kNN k=10, cosine, equal votes, pooled features, all of train against test",
            "seconds": "of training after the step was compiled, evaluation excluded",
        },
        "resolved_config": first,
        **summary(seeds),
        "runs": seeds,
    }


def summary(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    times = [s["seconds_to_target"] for s in seeds if s["seconds_to_target"] is not None]
    return {
        "seeds_that_reached": len(times),
        "median_seconds_to_target": statistics.median(times) if len(times) == len(seeds) else None,
        "median_last_accuracy": statistics.median(s["last"]["accuracy"] for s in seeds),
        "median_last_seconds": statistics.median(s["last"]["seconds"] for s in seeds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/cifar.py:cpu", help="FILE[:preset]")
    parser.add_argument("--target", type=float, default=0.48, help="accuracy from 0 to 1")
    parser.add_argument("--every", type=int, default=100, help="steps between two looks")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data_dir", help="of prepared sets; default: TFDS_DATA_DIR")
    parser.add_argument("--smoke", action="store_true", help="the digits, 4 steps, one seed")
    parser.add_argument("--out", type=Path, default=harness.RESULTS / "time_to_accuracy_cpu.json")
    args = parser.parse_args()
    if args.smoke:
        args.config, args.every, args.seeds = "configs/digits.py:smoke", 2, 1
    sys.path.insert(0, str(harness.ROOT))
    harness.write(args.out, run(args))


if __name__ == "__main__":
    main()
