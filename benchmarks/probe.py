"""Seconds of scoring features: a linear probe and kNN, against scikit-learn and PyTorch.

    python benchmarks/probe.py
    python benchmarks/probe.py --smoke --out /tmp/probe.json    # a try

The features are drawn from ten overlapping normal distributions, as many and as wide as those of
the CPU preset on CIFAR-10. The probe: every contender minimises the same strictly convex function
on the same standardised features until its own criterion stops it; the value that it reached is
reported, in float64. kNN: the ten most similar rows by cosine, exactly; the share of neighbours
that are also ours is reported. All contenders run in one process, in turn; memory is how far the
resident set rises in a process of its own, compilation included.
"""

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import harness
import numpy as np

PACKAGES = ("jax", "jaxlib", "numpy", "scikit-learn", "torch")
CLASSES = 10
L2 = 1e-3
K = 10


def features(n: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows [N,F] float32 of mean 0 and variance 1 in each column, and their classes [N]."""
    centres = np.random.default_rng(0).normal(size=(CLASSES, width))
    rng = np.random.default_rng(seed)
    label = rng.integers(0, CLASSES, n)
    x = 0.4 * centres[label] + rng.normal(size=(n, width))
    return ((x - x.mean(0)) / x.std(0)).astype(np.float32), label


def our_probe(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from contrastive_jax.logistic import fit_logistic

    fitted = fit_logistic(x, y, n_classes=CLASSES, l2=L2)
    weight = np.asarray(fitted.weight) / np.asarray(fitted.std)[:, None]
    return weight, np.asarray(fitted.bias) - np.asarray(fitted.mean) @ weight


def sklearn_probe(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=1 / (len(x) * L2), max_iter=1000).fit(x, y)
    return fitted.coef_.T, fitted.intercept_


def torch_probe(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import torch

    inputs, target = torch.from_numpy(x), torch.from_numpy(y)
    weight = torch.zeros(x.shape[1], CLASSES, requires_grad=True)
    bias = torch.zeros(CLASSES, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=1000, tolerance_grad=1e-5, line_search_fn="strong_wolfe"
    )

    def closure() -> Any:
        solver.zero_grad()
        loss = torch.nn.functional.cross_entropy(inputs @ weight + bias, target)
        total = loss + L2 / 2 * (weight**2).sum()
        total.backward()
        return total

    solver.step(closure)
    return weight.detach().numpy(), bias.detach().numpy()


def objective(x: np.ndarray, y: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> float:
    """Mean cross-entropy plus the penalty, in float64."""
    logits = x.astype(np.float64) @ weight + bias
    top = logits.max(1, keepdims=True)
    log_sum = np.log(np.exp(logits - top).sum(1)) + top[:, 0]
    loss = np.mean(log_sum - logits[np.arange(len(y)), y])
    return float(loss + L2 / 2 * np.sum(np.asarray(weight, np.float64) ** 2))


def our_neighbours(bank: np.ndarray, query: np.ndarray) -> np.ndarray:
    from contrastive_jax.evaluate import knn_neighbours

    return knn_neighbours(bank, query, k=K)[1]


def sklearn_neighbours(bank: np.ndarray, query: np.ndarray) -> np.ndarray:
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=K, metric="cosine", algorithm="brute").fit(bank)
    return search.kneighbors(query, return_distance=False)


def torch_neighbours(bank: np.ndarray, query: np.ndarray) -> np.ndarray:
    """A product of unit vectors and a top-k, for 512 queries at a time."""
    import torch
    from torch.nn.functional import normalize

    bank_MD, query_ND = (normalize(torch.from_numpy(x), dim=1) for x in (bank, query))
    found = [(rows @ bank_MD.T).topk(K).indices for rows in query_ND.split(512)]
    return torch.cat(found).numpy()


TASKS: dict[str, dict[str, Callable]] = {
    "linear probe": {
        "contrastive_jax": our_probe,
        "scikit-learn": sklearn_probe,
        "torch LBFGS": torch_probe,
    },
    "kNN": {
        "contrastive_jax": our_neighbours,
        "scikit-learn": sklearn_neighbours,
        "torch by hand": torch_neighbours,
    },
}
MODULES = {"contrastive_jax": "jax", "scikit-learn": "sklearn"}


def calls(task: str, args: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    """What each contender that is installed does, without arguments."""
    x, y = features(args.bank, args.width, seed=1)
    second = y if task == "linear probe" else features(args.queries, args.width, seed=2)[0]
    if task == "linear probe":
        x, second = x[: args.labelled], y[: args.labelled]
    return {
        name: partial(function, x, second)
        for name, function in TASKS[task].items()
        if importlib.util.find_spec(MODULES.get(name, "torch"))
    }


def agreement(task: str, found: dict[str, Any], made: dict[str, Callable]) -> dict[str, float]:
    """How good each answer is: the value reached, or the share of neighbours that are ours."""
    if task == "linear probe":
        return {name: objective(*made[name].args, *answer) for name, answer in found.items()}
    own = found["contrastive_jax"]
    same = {
        n: [len(set(a) & set(b)) for a, b in zip(i, own, strict=True)] for n, i in found.items()
    }
    return {name: float(np.mean(counts)) / K for name, counts in same.items()}


def rows(task: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    made = calls(task, args)
    answers = agreement(task, {name: call() for name, call in made.items()}, made)
    seconds = harness.take_turns(made, args.rounds)
    made_rows = []
    for name in made:
        memory = harness.in_own_process(
            __file__, "--memory", json.dumps([task, name]), *sizes(args)
        )
        found = {"task": task, "contender": name, **harness.timing(seconds[name])}
        what = "objective" if task == "linear probe" else "same_neighbours"
        made_rows.append({**found, what: answers[name], "megabytes": float(memory)})
        print(f"{task:13s} {name:16s} {found['seconds']:8.3f} s  {what} {answers[name]:.6f}")
    return made_rows


def sizes(args: argparse.Namespace) -> list[str]:
    names = ("bank", "queries", "labelled", "width")
    return [word for name in names for word in (f"--{name}", str(getattr(args, name)))]


def run(args: argparse.Namespace) -> dict[str, Any]:
    protocol = {name: getattr(args, name) for name in ("bank", "queries", "labelled", "width")}
    return {
        **harness.circumstances(PACKAGES),
        "matmul_gigaflops": harness.matmul_gigaflops(),
        "protocol": {**protocol, "l2": L2, "k": K, "classes": CLASSES, "rounds": args.rounds},
        "rows": [row for task in TASKS for row in rows(task, args)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bank", type=int, default=50_000)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--labelled", type=int, default=10_000, help="rows that the probe fits")
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="less than a minute")
    parser.add_argument("--out", type=Path, default=harness.RESULTS / "probe_cpu.json")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.smoke:
        args.bank, args.queries, args.labelled, args.rounds = 2000, 500, 500, 1
    sys.path.insert(0, str(harness.ROOT))
    if args.memory:
        task, name = json.loads(args.memory)
        call = calls(task, args)[name]
        tiny = argparse.Namespace(bank=64, queries=64, labelled=64, width=args.width)
        calls(task, tiny)[name]()  # libraries load and thread pools start
        print(harness.risen_megabytes(call))
    else:
        harness.write(args.out, run(args))


if __name__ == "__main__":
    main()
