"""Train SimCLR on the digits with a learned temperature from two starts, and compare where it ends.

    python -m benchmarks.learned_temperature    # minutes on two cores
    python -m benchmarks.learned_temperature --smoke    # a try

The embedding has a batch norm, and the temperature a learning rate of its own. Without the norm the
temperature has no single best value: embeddings in a narrower cone have the same loss at a
lower temperature. A run that is complete in the folder is not trained again.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.shared import harness

STARTS = (0.1, 0.5)
CONFIG = "configs/digits.py"
SETTINGS = {
    "loss.temperature": "learned",
    "optimizer.loss_rate": 30,
    "head.output_batch_norm": True,
    "eval.figures": False,
    "eval.every_steps": 0,
    "eval.baselines": False,
}


def train(folder: Path, start: float, epochs: int) -> dict[str, Any]:
    """Train from a start: the last row, and what made it."""
    values = {**SETTINGS, "loss.temperature_start": start, "train.epochs": epochs}
    given = [f"--config.{key}={value}" for key, value in values.items()]
    command = ["-m", "experiments.simclr", "--config", CONFIG, *given, "--workdir", str(folder)]
    subprocess.run([sys.executable, *command], check=True, cwd=harness.ROOT)
    last = history(folder)[-1]
    code = json.loads((folder / "config.json").read_text())["code"]
    kept = ("step", "temperature", "loss", "uniformity", "alignment")
    return {"start": start, **{key: last[key] for key in kept}, "code": code}


def history(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def main() -> None:
    from contrastive_jax import figures

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/learned_temperature"))
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--out", type=Path, default=harness.RESULTS / "learned_temperature.json")
    args = harness.parse(parser, epochs=1, runs=Path(tempfile.mkdtemp()))
    folders = {start: (args.runs / str(start)).resolve() for start in STARTS}
    rows = [train(folder, start, args.epochs) for start, folder in folders.items()]
    ends = [row["temperature"] for row in rows]
    print(f"from {STARTS}: {ends}, ratio {max(ends) / min(ends):.3f}")
    protocol = {"config": CONFIG, "epochs": args.epochs, "settings": SETTINGS, "seed": 0}
    record = {**harness.circumstances(("jax", "flax", "optax")), "protocol": protocol}
    harness.write(args.out, {**record, "rows": rows, "ratio": max(ends) / min(ends)})
    shown = {f"from {start}": history(folder) for start, folder in folders.items()}
    figures.curves(args.out.with_suffix(".png"), shown)


if __name__ == "__main__":
    main()
