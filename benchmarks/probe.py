"""Time of the logistic probes over 45 strengths against scikit-learn's, on the same features.

    python benchmarks/probe.py                                    # 50,000 x 512: minutes
    python benchmarks/probe.py --rows 2000 --dim 64 --out /tmp/probe.json     # a try

Features: ten Gaussian classes in 512 dimensions, deterministic: within a class the covariance is
the same, its spectrum falls as 1 / k under a random rotation (as that of learned features falls),
and the class means are drawn from the same spectrum, scaled by --separation. `--features FILE.npz`
(x, y, test_x, test_y) puts real ones in their place.

Ours is `logistic.fit_grid`: all strengths in one call, its standardisation included, without the
compilation, which is recorded apart. scikit-learn's LogisticRegression(solver="lbfgs") fits one
strength after another on float32 features that were standardised before the clock started; "cold"
starts each from zero, "warm" from the one before, from the strongest down, and the ratio is taken
against the faster. Its criterion, max |gradient| <= tol, and ours are different: what both reached
is recorded, the objective in float64 and the test accuracy. Ours have to be within --agree of
theirs, or lower in the objective, or the command fails.
"""

import argparse
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import harness
import numpy as np

GRID = np.logspace(-6, 5, 45)
CLASSES = 10
PACKAGES = ("jax", "jaxlib", "numpy", "scipy", "scikit-learn", "optax")
Sets = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # x, y, test_x, test_y


def mixture(rows: int, dim: int, separation: float, seed: int = 0) -> Sets:
    """Training and test sets (a fifth as many) of the mixture that the module's head describes."""
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    scale = np.arange(1, dim + 1) ** -0.5
    means = separation * scale * rng.normal(size=(CLASSES, dim))
    y = rng.integers(CLASSES, size=rows + rows // 5)
    x = (means[y] + scale * rng.normal(size=(len(y), dim))) @ rotation
    x = x.astype(np.float32)
    return x[:rows], y[:rows], x[rows:], y[rows:]


def reached(weight_FC: np.ndarray, bias_C: np.ndarray, sets: Sets, l2: float) -> dict[str, float]:
    """Objective on (standardised) train and accuracy on test, in float64 for everyone."""
    x, y, test_x, test_y = sets
    weight_FC = weight_FC.astype(np.float64)
    logits = x @ weight_FC + bias_C
    top = logits.max(axis=1)
    normaliser = np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top
    loss = np.mean(normaliser - logits[np.arange(len(y)), y])
    accuracy = np.mean((test_x @ weight_FC + bias_C).argmax(axis=1) == test_y)
    objective = loss + l2 / 2 * np.sum(weight_FC**2)
    return {"objective": float(objective), "accuracy": float(accuracy)}


def ours(sets: Sets, standardised: Sets, rounds: int) -> dict[str, Any]:
    """All strengths together."""
    from contrastive_jax import logistic

    def fit() -> logistic.LinearProbe:
        return logistic.fit_grid(sets[0], sets[1], CLASSES, tuple(GRID), max_steps=5000)

    start = time.perf_counter()
    probes = fit()
    first = time.perf_counter() - start
    seconds = harness.take_turns({"ours": fit}, rounds)["ours"] if rounds else []
    found = [
        reached(probes.weight[i], probes.bias[i], standardised, l2) for i, l2 in enumerate(GRID)
    ]
    return {
        "first_call_seconds": first,  # with its compilation
        **(harness.timing(seconds) if seconds else {"seconds": first, "rounds": []}),
        "steps": probes.steps.tolist(),
        "converged": bool(probes.converged.all()),
        "reached": found,
    }


def theirs(sets: Sets, strengths: np.ndarray, tol: float, warm: bool) -> dict[str, Any]:
    """One strength after another, from the strongest down."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(solver="lbfgs", tol=tol, max_iter=5000, warm_start=warm)
    seconds, steps, found, converged = [], [], [], True
    for l2 in strengths[::-1]:
        model.set_params(C=1 / (len(sets[1]) * l2))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            start = time.perf_counter()
            model.fit(sets[0], sets[1])
            seconds.append(time.perf_counter() - start)
        converged &= not caught
        steps.append(int(model.n_iter_[0]))
        found.append(reached(model.coef_.T, model.intercept_, sets, l2))
        print(f"scikit-learn, {'warm' if warm else 'cold'}, l2 {l2:.2g}: {seconds[-1]:.2f} s")
    return {
        "seconds": sum(seconds),
        "each": seconds[::-1],
        "steps": steps[::-1],
        "converged": converged,
        "reached": found[::-1],
    }


def disagreement(ours: list[dict], theirs: list[dict]) -> dict[str, float]:
    """Ours minus theirs at its worst: objective relative to theirs, accuracy either way."""
    pairs = list(zip(ours, theirs, strict=True))
    excess = [a["objective"] / b["objective"] - 1 for a, b in pairs]
    return {
        "objective_highest": max(excess),
        "objective_lowest": min(excess),
        "accuracy": max(abs(a["accuracy"] - b["accuracy"]) for a, b in pairs),
    }


def load(args: argparse.Namespace) -> tuple[Sets, str]:
    if args.features is None:
        what = f"mixture, {args.rows} x {args.dim}, separation {args.separation}"
        return mixture(args.rows, args.dim, args.separation), what
    with np.load(args.features, allow_pickle=False) as file:
        x, y, test_x, test_y = (file[name] for name in ("x", "y", "test_x", "test_y"))
    return (x, y, test_x, test_y), args.features.name


def run(args: argparse.Namespace) -> dict[str, Any]:
    sets, what = load(args)
    mean, std = sets[0].mean(axis=0, dtype=np.float64), sets[0].std(axis=0, dtype=np.float64)
    std = np.where(std > 0, std, 1.0)
    x, test_x = (((part - mean) / std).astype(np.float32) for part in (sets[0], sets[2]))
    standardised = x, sets[1], test_x, sets[3]
    result: dict[str, Any] = {
        "features": what,
        "rows": len(x),
        "dim": x.shape[1],
        "strengths": GRID.tolist(),
        "ours": ours(sets, standardised, args.rounds),
    }
    print(f"ours, {len(GRID)} strengths: {result['ours']['seconds']:.2f} s")
    chosen = np.arange(len(GRID))[:: args.every]
    result["peer_strengths"] = GRID[chosen].tolist()
    found = [result["ours"]["reached"][i] for i in chosen]
    for name in args.peers:
        peer = theirs(standardised, GRID[chosen], args.tol, name == "warm")
        result[name] = {"tol": args.tol, **peer, "ours_minus": disagreement(found, peer["reached"])}
    if args.peers:
        fastest = min(result[name]["seconds"] for name in args.peers)
        # Where only every n-th strength was timed, the others are taken to cost as much.
        result["estimated"] = args.every > 1
        result["ratio"] = fastest * len(GRID) / len(chosen) / result["ours"]["seconds"]
    return result | harness.circumstances(PACKAGES)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--separation", type=float, default=0.25)
    parser.add_argument("--features", type=Path, help="an .npz of x, y, test_x, test_y")
    parser.add_argument("--rounds", type=int, default=3, help="of ours; 0 times the first call")
    parser.add_argument("--peers", nargs="*", choices=("cold", "warm"), default=["cold", "warm"])
    parser.add_argument("--every", type=int, default=1, help="time the peer on every n-th strength")
    parser.add_argument("--tol", type=float, default=1e-4, help="of scikit-learn; its default")
    parser.add_argument("--agree", type=float, default=1e-3)
    parser.add_argument("--out", type=Path, default=harness.RESULTS / "probe.json")
    return parser.parse_args()


def main() -> int:
    args = parse()
    sys.path.insert(0, str(harness.ROOT))
    result = run(args)
    harness.write(args.out, result)
    worst = [result[name]["ours_minus"] for name in args.peers]
    if worst:
        print(f"ratio {result['ratio']:.1f}{' (estimated)' if result['estimated'] else ''}")
    agree = all(max(w["objective_highest"], w["accuracy"]) <= args.agree for w in worst)
    return 0 if agree else 1


if __name__ == "__main__":
    raise SystemExit(main())
