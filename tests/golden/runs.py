"""Run the smoke configs and keep their numbers: what a change that only moves code must not alter.

    python -m tests.golden.runs            # writes tests/golden/golden.json
    git diff --stat tests/golden           # empty: no bit has changed

The file holds, of each run, the loss and gradient norm of every step, its scores and a digest of
its last state. Another processor or version of XLA may round differently, so the test compares the
numbers within a tolerance; the digest is for comparison on one machine. The tests compile quickly,
but for the first run: that the optimized program has the same numbers is seen on one.
"""

import contextlib
import io
import json
import platform
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
from sklearn.datasets import load_sample_images

from benchmarks.shared import photos
from contrastive_jax.training import compiler_options
from experiments import moco, simclr
from experiments.run import lifecycle
from tests.compiled import AS_IN_TRAINING

ROOT = Path(__file__).parents[2]
FILE = Path(__file__).with_name("golden.json")
COMMON = (
    "--config.train.steps=3",
    "--config.train.log_every=1",
    "--config.eval.figures=False",
    "--config.eval.labels_per_class=0",
)
ALONE = (*COMMON, "--config.eval.baselines=False")  # their probes have 3,072 features
ON_CIFAR = (*ALONE, "--config.data.batch_size=32", "--config.data.name=photographs")


def squares(path: Path) -> None:
    """Write an .npz of 32x32 squares of two photographs: the class is the photograph."""
    rng, sets = np.random.default_rng(0), {}
    for prefix, n in (("", 64), ("test_", 24)):
        label = np.arange(n, dtype=np.int32) % 2
        corners = [(rng.integers(395), rng.integers(608)) for _ in range(n)]
        pictures = [load_sample_images().images[k] for k in label]
        image = [p[t : t + 32, s : s + 32] for p, (t, s) in zip(pictures, corners, strict=True)]
        sets |= {f"{prefix}image": np.stack(image), f"{prefix}label": label}
    np.savez(path, **sets)


def streamed_set(root: Path) -> None:
    """Write a prepared set of JPEGs of several sizes."""
    made = {split: photos.photos(n, (24, 64), (24, 64), n) for split, n in SPLITS.items()}
    photos.write_set(root, made)


SPLITS = {"train": 48, "validation": 16}


def measure(scratch: Path) -> dict[str, Any]:
    """Measure every run, in folders of `scratch`."""
    squares(scratch / "photographs.npz")
    streamed_set(scratch / "sets")
    arrays = ("--config.data.source=arrays", f"--config.data.data_dir={scratch}/photographs.npz")
    on_disk = (f"--config.data.data_dir={scratch}/sets", "--config.data.name=snapshots")
    on_disk += ("--config.data.streaming=True", "--config.data.test_split=validation")
    on_disk += ("--config.data.image_size=32", "--config.data.batch_size=16")
    on_disk += ("--config.data.limit_train=None", "--config.data.limit_test=None")
    runs = {
        "digits": (simclr, "configs/digits.py:smoke", COMMON),
        "arrays": (simclr, "configs/cifar.py:smoke", (*ON_CIFAR, *arrays)),
        "moco": (moco, "configs/ablations/moco.py:smoke", COMMON),
        "streamed": (simclr, "configs/cifar.py:smoke", (*ALONE, *on_disk)),
    }
    options = compiler_options.for_steps
    for_steps = lambda mesh: {**(options(mesh) or {}), **AS_IN_TRAINING}  # noqa: E731
    with mock.patch.object(compiler_options, "for_steps", for_steps):
        optimized = {name: _run(scratch / name, *runs.pop(name)) for name in ("digits",)}
    return optimized | {name: _run(scratch / name, *run) for name, run in runs.items()}


def _run(folder: Path, module: Any, config: str, words: tuple[str, ...]) -> Mapping[str, Any]:
    argv = [f"{module.__name__}.py", f"--config={config}", *words, f"--workdir={folder}"]
    with mock.patch.object(lifecycle, "set_up_jax"), contextlib.redirect_stdout(io.StringIO()):
        assert lifecycle.main(module.EXPERIMENT, argv) == 0
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((folder / "results" / "summary.json").read_text())
    scores = {
        "/".join((row["representation"], row["layer"], row["protocol"]["name"])): row["value"]
        for row in summary["evaluations"]
    }
    return {
        "loss": [row["loss"] for row in rows],
        "grad_norm": [row["grad_norm"] for row in rows],
        "scores": scores,
        "state_sha256": summary["state_sha256"],
    }


def main() -> None:
    """Write the file anew."""
    jax.config.update("jax_num_cpu_devices", 8)
    with tempfile.TemporaryDirectory() as scratch:
        measured = measure(Path(scratch))
    about = {"jax": jax.__version__, "machine": platform.machine(), "devices": jax.device_count()}
    FILE.write_text(json.dumps({"about": about, "runs": measured}, indent=1) + "\n")


if __name__ == "__main__":
    main()
