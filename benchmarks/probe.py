"""Time the logistic probes over 45 strengths against scikit-learn's, on the same features.

    python -m benchmarks.probe                                    # 50,000 x 512: minutes
    python -m benchmarks.probe --rows 2000 --dim 64 --out /tmp/probe.json     # a try

Features: ten Gaussian classes in 512 dimensions, deterministic: within a class the covariance is
the same, its spectrum falls as 1 / k under a random rotation (as that of learned features does),
and the class means are sampled from the same spectrum, scaled by --separation. `--features
FILE.npz` (x, y, test_x, test_y) puts real ones in their place.

Ours is `logistic.fit_grid`: all strengths in one call, its standardization included, without the
compilation, which is recorded beside it. scikit-learn's LogisticRegression(solver="lbfgs") fits
one strength after another, each from zero (warm_start off), on float32 features standardized before
its clock started. Where classes are nearly separable and the strength is weak it cannot
reach the optimum in float32 with any `tol`, and is given float64.

The two stop by different criteria, so they are compared at an equal objective, in float64: for each
strength scikit-learn is fitted with ever smaller `tol` (TRIES), and the time that counts is that
of the first fit alone whose objective is within --agree (relative) of ours. Ours is fitted once, by
its own criterion. The command fails where no `tol` gets there, or where ours is higher than theirs
by more than --agree.

That errs in scikit-learn's favor: at strong strengths the objective is near log 10 whatever the
weights, so it may stop there after a step, its accuracy still another one. `ours_minus_theirs`
records by how much.

It is timed on every --every-th strength of the grid only, the middle one of as many neighbors, all
of which it represents: the time of the whole grid is extrapolated, and the record says so.
`--every 1` times every one of them.
"""

import argparse
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.shared import harness

GRID = np.logspace(-6, 5, 45)
CLASSES = 10
TRIES = (  # of scikit-learn: dtype of the features and tol, whose default is 1e-4
    *((np.float32, tol) for tol in (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)),
    *((np.float64, tol) for tol in (1e-5, 1e-6, 1e-7)),
)
PACKAGES = ("jax", "jaxlib", "numpy", "scipy", "scikit-learn", "optax")
Sets = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # x, y, test_x, test_y


def mixture(rows: int, dim: int, separation: float, seed: int = 0) -> Sets:
    """Sample training and test sets (a fifth as many) of the mixture described above."""
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    scale = np.arange(1, dim + 1) ** -0.5
    means = separation * scale * rng.normal(size=(CLASSES, dim))
    y = rng.integers(CLASSES, size=rows + rows // 5)
    x = (means[y] + scale * rng.normal(size=(len(y), dim))) @ rotation
    x = x.astype(np.float32)
    return x[:rows], y[:rows], x[rows:], y[rows:]


def reached(weight_FC: np.ndarray, bias_C: np.ndarray, sets: Sets, l2: float) -> dict[str, float]:
    """Compute the objective on standardized train and the accuracy on test, in float64."""
    x, y, test_x, test_y = sets
    weight_FC = weight_FC.astype(np.float64)
    logits = x @ weight_FC + bias_C
    top = logits.max(axis=1)
    normalizer = np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top
    loss = np.mean(normalizer - logits[np.arange(len(y)), y])
    accuracy = np.mean((test_x @ weight_FC + bias_C).argmax(axis=1) == test_y)
    objective = loss + l2 / 2 * np.sum(weight_FC**2)
    return {"objective": float(objective), "accuracy": float(accuracy)}


def ours(sets: Sets, standardized: Sets, rounds: int) -> dict[str, Any]:
    """Fit all strengths in one call."""
    from contrastive_jax.evaluation import logistic

    seconds = []
    for _ in range(1 + rounds):
        start = time.perf_counter()
        probes = logistic.fit_grid(sets[0], sets[1], CLASSES, tuple(GRID), max_steps=5000)
        seconds.append(time.perf_counter() - start)
    found = [
        reached(probes.weight[i], probes.bias[i], standardized, l2) for i, l2 in enumerate(GRID)
    ]
    return {
        "first_call_seconds": seconds[0],  # with its compilation
        **harness.timing(seconds[1:]),
        "steps": probes.steps.tolist(),
        "converged": bool(probes.converged.all()),
        "reached": found,
    }


def theirs(sets: Sets, l2: float, goal: float) -> dict[str, Any]:
    """Fit by each of TRIES until the objective is at most the goal."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    fit: dict[str, Any] = {}
    for dtype, tol in TRIES:
        x = sets[0].astype(dtype)
        model = LogisticRegression(C=1 / (len(sets[1]) * l2), tol=tol, max_iter=5000)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the objective is judged instead
            time.sleep(harness.REST)
            start = time.perf_counter()
            model.fit(x, sets[1])
            seconds = time.perf_counter() - start
        found = reached(model.coef_.T, model.intercept_, sets, l2)
        how = {"l2": l2, "dtype": np.dtype(dtype).name, "tol": tol}
        fit = {**how, "seconds": seconds, "steps": int(model.n_iter_[0]), **found}
        if found["objective"] <= goal:
            break
    return fit | {"at_goal": fit["objective"] <= goal}


def peer(sets: Sets, ours: list[dict[str, float]], every: int, agree: float) -> dict[str, Any]:
    """Fit scikit-learn at every n-th strength, and extrapolate to all of them."""
    fits = []
    for i in range(every // 2, len(GRID), every):
        fit = theirs(sets, float(GRID[i]), ours[i]["objective"] * (1 + agree))
        fit["ours_minus_theirs"] = {name: ours[i][name] - fit[name] for name in ours[i]}
        fits.append(fit)
        shown = f"{fit['seconds']:.2f} s, {fit['steps']} steps, {fit['dtype']}, tol {fit['tol']:g}"
        print(f"scikit-learn, l2 {fit['l2']:.2g}: {shown}", flush=True)
    measured = sum(fit["seconds"] for fit in fits)
    return {
        "warm_start": False,
        "tries": [[np.dtype(dtype).name, tol] for dtype, tol in TRIES],
        "fits": fits,
        "seconds_measured": measured,
        "seconds": measured * len(GRID) / len(fits),
        "extrapolated": len(fits) < len(GRID),
        "extrapolation": f"{len(fits)} of {len(GRID)} strengths were timed, every {every}th of the "
        f"grid; seconds = seconds_measured x {len(GRID)} / {len(fits)}",
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
    standardized = x, sets[1], test_x, sets[3]
    mine = ours(sets, standardized, args.rounds)
    print(f"ours, {len(GRID)} strengths: {mine['seconds']:.2f} s", flush=True)
    sklearn = peer(standardized, mine["reached"], args.every, args.agree)
    return {
        "features": what,
        "rows": len(x),
        "dim": x.shape[1],
        "strengths": GRID.tolist(),
        "agree": args.agree,
        "ratio": sklearn["seconds"] / mine["seconds"],
        "ours": mine,
        "scikit-learn": sklearn,
        **harness.circumstances(PACKAGES),
    }


def agrees(result: dict[str, Any]) -> bool:
    """Say whether both reached the same objective at every strength that was compared."""
    fits = result["scikit-learn"]["fits"]
    excess = [fit["ours_minus_theirs"]["objective"] / fit["objective"] for fit in fits]
    return all(fit["at_goal"] for fit in fits) and max(excess) <= result["agree"]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--separation", type=float, default=0.25)
    parser.add_argument("--features", type=Path, help="an .npz of x, y, test_x, test_y")
    parser.add_argument("--rounds", type=int, default=3, help="of ours, after its first call")
    parser.add_argument("--every", type=int, default=5, help="time the peer on every n-th strength")
    parser.add_argument("--agree", type=float, default=1e-3, help="of the objectives, relative")
    parser.add_argument("--out", type=Path, default=harness.RESULTS / "probe_cpu.json")
    return harness.parse(parser, rows=2000, dim=32, rounds=1, every=15)


def main() -> int:
    args = parse()
    result = run(args)
    harness.write(args.out, result)
    extrapolated = "extrapolated" if result["scikit-learn"]["extrapolated"] else "measured"
    print(f"scikit-learn takes {result['ratio']:.1f} times as long ({extrapolated})")
    if not agrees(result):
        print("the objectives disagree: the ratio means nothing", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
