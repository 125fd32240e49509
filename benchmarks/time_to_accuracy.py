"""Seconds of training until kNN reaches a given accuracy on the test set, for several seeds.

    python benchmarks/time_to_accuracy.py --target 0.48 --data_dir DIR       # two CPU cores
    python benchmarks/time_to_accuracy.py --config configs/cifar.py:fast --target 0.90 \\
        --out benchmarks/results/time_to_accuracy_gpu.json                   # one GPU
    python benchmarks/time_to_accuracy.py --smoke                              # a try

Ours, a plain PyTorch loop of the same recipe, and ours with Muon in place of the recipe's optimiser
take turns, each seed in a process of its own.
Every --every steps the training pauses, and the pooled features of the test set are classified by
their k = 10 nearest neighbours (cosine, equal votes) among those of the whole training set, by one
function for both. The clock stands still meanwhile, and it starts when the step has been compiled;
compiling is reported beside it. Two answers: the first look at which the target was reached, and
the last step of the schedule with its accuracy. Nothing is chosen by these looks at the test set.
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

import harness

MUON = {"name": "muon", "learning_rate": 0.02, "scaling": "none", "decay_norm_and_bias": False}
OURS = {"contrastive_jax": {}, "contrastive_jax, Muon": MUON}  # and its changes of the optimiser
CONTENDERS = (*OURS, "torch")
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch")


class Look(NamedTuple):
    """One evaluation: when the clock was stopped and when it went on."""

    step: int
    stopped: float
    resumed: float
    accuracy: float


class Looks:
    """The evaluations of one training, for a contender that gives features of images.

    Neighbours are found when the training is over: JAX at work between two steps of PyTorch would
    leave its threads in the way of the next ones.
    """

    def __init__(self, dataset: Any):
        from contrastive_jax import data

        self.bank, self.test = data.labeled(dataset.train), dataset.test
        self._held: list[tuple[int, float, float, tuple[Any, Any]]] = []

    def take(self, features: Callable[[Any], Any], step: int) -> None:
        """`features` of [N,H,W,C] uint8 is [N,F]; the device has nothing left to do."""
        stopped = time.perf_counter()
        bank, queries = features(self.bank["image"]), features(self.test["image"])
        self._held.append((step, stopped, time.perf_counter(), (bank, queries)))
        print(f"  step {step}", file=sys.stderr)

    def judged(self) -> list[Look]:
        return [Look(*when, self._accuracy(*features)) for *when, features in self._held]

    def _accuracy(self, bank: Any, queries: Any) -> float:
        from contrastive_jax.evaluation import knn

        protocol = knn.KnnProtocol(10)
        near, index = knn.knn_neighbors(bank, queries, k=protocol.k)
        predicted = knn.knn_predict(near, self.bank["label"][index], protocol)
        return float((predicted == self.test["label"]).mean())


def ours(run: Any, every: int, looks: Looks) -> tuple[float, float]:
    """Train as the command does; when the clock began, and the seconds of compiling before."""
    import jax

    from contrastive_jax import training
    from experiments.run import lifecycle
    from experiments.scoring import summary

    def look(state: Any, step: int) -> dict[str, float]:
        jax.block_until_ready(state)
        looks.take(lambda image: summary.extract(run, state, image)["features"], step)
        return {}

    finished = training.run(
        run.objective,
        run.optimizer,
        run.feed,
        lifecycle.fresh_state(run),
        plan=run.plan,
        mesh=run.mesh,
        write=lambda step, row: None,
        evaluators=[training.Evaluator(every, look)],
    )
    return time.perf_counter() - finished.train_seconds, finished.compile_seconds


def peer(config: Any, run: Any, every: int, looks: Looks) -> tuple[float, float]:
    """The same in PyTorch."""
    import accuracy_torch
    import simclr_torch

    def look(features: Callable[..., Any], step: int) -> None:
        if step % every == 0 or step == run.plan.steps:
            simclr_torch.wait()
            looks.take(features, step)

    return accuracy_torch.train(config, run.dataset, run.plan.steps, look)


def train_once(contender: str, config: Any, every: int | None) -> dict[str, Any]:
    """One seed of a contender: the accuracies and the seconds of training until each."""
    from experiments import simclr
    from experiments.run import lifecycle

    lifecycle.set_up_jax()
    config.optimizer.update(OURS.get(contender, {}))
    run = lifecycle.build(simclr.EXPERIMENT, config)
    looks, every = Looks(run.dataset), every or run.plan.steps
    if contender in OURS:
        began, compiling = ours(run, every, looks)
    else:
        began, compiling = peer(config, run, every, looks)
    taken = looks.judged()
    return {
        "seed": run.plan.seed,
        "compile_seconds": compiling,
        "evaluation_seconds": sum(look.resumed - look.stopped for look in taken),
        "steps_per_epoch": run.dataset.n_train // run.dataset.batch_size,
        "curve": curve(taken, began),
        "resolved_config": json.loads(config.to_json()),
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


def load_config(args: argparse.Namespace, seed: int) -> Any:
    from experiments.run import command_line

    config = command_line.parse(["time_to_accuracy", f"--config={args.config}"], "").config
    config.train.seed = seed
    if args.smoke:
        config.train.steps = 4
    if "data_dir" in config.data and args.data_dir:
        config.data.data_dir = args.data_dir
    return config


def run(args: argparse.Namespace) -> dict[str, Any]:
    """All seeds of all contenders, in turn."""
    seeds: dict[str, list[dict[str, Any]]] = {name: [] for name in args.contenders}
    resolved = None
    for seed in range(args.seeds):
        for contender in args.contenders:
            print(f"{contender}, seed {seed}", file=sys.stderr)
            turn = ["--turn", contender, "--seed", seed, *sys.argv[1:]]
            found = json.loads(harness.in_own_process(__file__, *turn))
            config, last = found.pop("resolved_config"), found["curve"][-1]
            config["data"]["data_dir"] = None  # where a machine keeps its data is nobody else's
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
    parser.add_argument("--every", type=int, default=164, help="steps between two looks")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--contenders", nargs="+", default=CONTENDERS, choices=CONTENDERS)
    parser.add_argument("--data_dir", help="of prepared sets; default: TFDS_DATA_DIR")
    parser.add_argument("--out", type=Path, default=harness.RESULTS / "time_to_accuracy_cpu.json")
    parser.add_argument("--turn", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    ours = CONTENDERS[:1]  # the digits have one channel, the peer's jitter takes three
    smoke = {"config": "configs/digits.py:smoke", "every": 2, "seeds": 1, "contenders": ours}
    args = harness.parse(parser, **smoke)
    sys.path.insert(0, str(harness.ROOT))
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the peer needs the GPU too
    if args.turn:
        print(json.dumps(train_once(args.turn, load_config(args, args.seed), args.every)))
    else:
        harness.write(args.out, run(args))


if __name__ == "__main__":
    main()
