"""Time training until kNN reaches a given accuracy on the test set, for several seeds.

    python -m benchmarks.time_to_accuracy --target 0.48 --data_dir DIR       # two CPU cores
    python -m benchmarks.time_to_accuracy --config configs/cifar.py:fast --target 0.90 \\
        --out benchmarks/results/time_to_accuracy_gpu.json                   # one GPU
    python -m benchmarks.time_to_accuracy --smoke                              # a try

Ours, a plain PyTorch loop of the same recipe, and ours with Muon in place of the recipe's optimizer
take turns, each seed in a process of its own.
Every --every steps the training pauses, and the pooled features of the test set are classified by
their k = 10 nearest neighbors (cosine, equal votes) among those of the whole training set, by one
function for both. The clock is stopped meanwhile, and it starts when the step has been compiled;
compiling is reported beside it. Two answers: the first evaluation at which the target was reached,
and the last step of the schedule with its accuracy. Nothing is chosen by these evaluations.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.shared import harness, work

MUON = {"name": "muon", "learning_rate": 0.02, "scaling": "none", "decay_norm_and_bias": False}
OURS = {"contrastive_jax": {}, "contrastive_jax, Muon": MUON}  # and its changes of the optimizer
CONTENDERS = (*OURS, "torch")
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch")


class Evaluation(NamedTuple):
    """An accuracy, when the clock was stopped to measure it and when it was started again."""

    step: int
    stopped: float
    resumed: float
    accuracy: float


class Evaluations:
    """Keeps features during one training and computes their accuracies after it.

    Neighbors are found when the training is over: the threads of JAX would slow the steps of
    PyTorch that follow.
    """

    def __init__(self, dataset: Any):
        from contrastive_jax import data

        self.bank, self.test = data.labeled(dataset.train), dataset.test
        self._held: list[tuple[int, float, float, tuple[Any, Any]]] = []

    def add(self, features: Callable[[Any], Any], step: int) -> None:
        """Keep what `features`, [N,H,W,C] uint8 to [N,F], gives at a step; the device is idle."""
        stopped = time.perf_counter()
        bank, queries = features(self.bank["image"]), features(self.test["image"])
        self._held.append((step, stopped, time.perf_counter(), (bank, queries)))
        print(f"  step {step}", file=sys.stderr)

    def evaluated(self) -> list[Evaluation]:
        """Classify the test set by the features of each step."""
        return [Evaluation(*when, self._accuracy(*features)) for *when, features in self._held]

    def _accuracy(self, bank: Any, queries: Any) -> float:
        from contrastive_jax.evaluation import knn, neighbors

        protocol = knn.KnnProtocol(10)
        near, index = neighbors.knn_neighbors(bank, queries, k=protocol.k)
        predicted = knn.knn_predict(near, self.bank["label"][index], protocol)
        return float((predicted == self.test["label"]).mean())


def ours(run: Any, every: int, evaluations: Evaluations) -> tuple[float, float]:
    """Train as the command does; returns when the clock started, and the seconds of compiling."""
    import jax

    from contrastive_jax import training
    from experiments.scoring import images

    def evaluate(state: Any, step: int) -> dict[str, float]:
        jax.block_until_ready(state)
        evaluations.add(lambda image: images.extract(run, state, image)["features"], step)
        return {}

    finished = training.run(
        run.objective,
        run.optimizer,
        run.feed,
        run.fresh_state(),
        plan=run.plan,
        mesh=run.mesh,
        write=lambda step, row: None,
        evaluators=[training.Evaluator(every, evaluate)],
    )
    return time.perf_counter() - finished.train_seconds, finished.compile_seconds


def peer(config: Any, run: Any, every: int, evaluations: Evaluations) -> tuple[float, float]:
    """Train the same in PyTorch."""
    from benchmarks.peers import accuracy_torch, simclr_torch

    def evaluate(features: Callable[..., Any], step: int) -> None:
        if step % every == 0 or step == run.plan.steps:
            simclr_torch.wait()
            evaluations.add(features, step)

    return accuracy_torch.train(config, run.dataset, run.plan.steps, evaluate)


def train_once(contender: str, config: Any, every: int | None) -> dict[str, Any]:
    """Train one seed of a contender; returns its accuracies and the seconds until each."""
    from experiments import simclr
    from experiments.run import build, lifecycle

    lifecycle.set_up_jax()
    config.optimizer.update(OURS.get(contender, {}))
    run = build.build(simclr.EXPERIMENT, config)
    evaluations, every = Evaluations(run.dataset), every or run.plan.steps
    if contender in OURS:
        started, compiling = ours(run, every, evaluations)
    else:
        started, compiling = peer(config, run, every, evaluations)
    found = evaluations.evaluated()
    return {
        "seed": run.plan.seed,
        "compile_seconds": compiling,
        "evaluation_seconds": sum(each.resumed - each.stopped for each in found),
        "steps_per_epoch": run.dataset.n_train // run.dataset.batch_size,
        "curve": curve(found, started),
        "resolved_config": json.loads(config.to_json()),
    }


def curve(evaluations: list[Evaluation], started: float) -> list[dict[str, float]]:
    """List step, seconds of training and accuracy; the evaluations themselves take no time.

    >>> curve([Evaluation(10, 5.0, 7.0, 0.4), Evaluation(20, 9.5, 12.0, 0.5)], 1.0)
    [{'step': 10, 'seconds': 4.0, 'accuracy': 0.4}, {'step': 20, 'seconds': 6.5, 'accuracy': 0.5}]
    """
    points, evaluating = [], 0.0
    for each in evaluations:
        seconds = each.stopped - started - evaluating
        points.append({"step": each.step, "seconds": seconds, "accuracy": each.accuracy})
        evaluating += each.resumed - each.stopped
    return points


def reached(points: list[dict[str, float]], target: float) -> float | None:
    """Find the seconds of training at the first evaluation at the target, None for no such one.

    >>> reached([{"seconds": 4.0, "accuracy": 0.4}, {"seconds": 6.5, "accuracy": 0.5}], 0.45)
    6.5
    """
    return next((p["seconds"] for p in points if p["accuracy"] >= target), None)


def load_config(args: argparse.Namespace, seed: int) -> Any:
    """Read the config of a seed."""
    config = work.read_config(args.config)
    config.train.seed = seed
    if args.smoke:
        config.train.steps = 4
    if args.data_dir:
        config.data.data_dir = args.data_dir
    return config


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Train all seeds of all contenders, in turn."""
    names, skipped = harness.split_installed(args.contenders)
    seeds: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    resolved = None
    for seed in range(args.seeds):
        for contender in names:
            print(f"{contender}, seed {seed}", file=sys.stderr)
            turn = ["--turn", contender, "--seed", seed, *sys.argv[1:]]
            found = json.loads(harness.in_own_process("benchmarks.time_to_accuracy", *turn))
            config, last = found.pop("resolved_config"), found["curve"][-1]
            config["data"]["data_dir"] = None  # no path of this machine
            resolved = resolved or config
            found |= {"seconds_to_target": reached(found["curve"], args.target), "last": last}
            print(
                f"{contender}, seed {seed}: target after {found['seconds_to_target']} s; "
                f"last step {last['accuracy']:.4f} after {last['seconds']:.1f} s"
            )
            seeds[contender].append(found)
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
        "resolved_config": resolved,
        "skipped": skipped,
        "rows": [
            {"contender": name, **summary(found), "runs": found} for name, found in seeds.items()
        ],
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
    parser.add_argument("--every", type=int, default=164, help="steps between two evaluations")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--contenders", nargs="+", default=CONTENDERS, choices=CONTENDERS)
    parser.add_argument("--data_dir", help="of prepared sets; default: TFDS_DATA_DIR")
    parser.add_argument("--out", type=Path, default=harness.RESULTS / "time_to_accuracy_cpu.json")
    parser.add_argument("--turn", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    ours = CONTENDERS[:1]  # the digits have one channel, the peer's jitter takes three
    smoke = {"config": "configs/digits.py:smoke", "every": 2, "seeds": 1, "contenders": ours}
    args = harness.parse(parser, **smoke)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the peer needs the GPU too
    if args.turn:
        print(json.dumps(train_once(args.turn, load_config(args, args.seed), args.every)))
    else:
        harness.write(args.out, run(args))


if __name__ == "__main__":
    main()
