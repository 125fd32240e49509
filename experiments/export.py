"""Write the encoder of a run as safetensors with torchvision's names, a card and a SHA-256.

python -m experiments.export runs/digits --to exported/digits
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from contrastive_jax import export
from contrastive_jax.storage import workdir
from experiments.reporting import folders
from experiments.run import command_line, lifecycle, provenance, restore
from experiments.simclr import EXPERIMENT


def main(argv: Sequence[str]) -> int:
    """Restore, write, say where."""
    arguments = _parser().parse_args(argv[1:])
    folder = arguments.run.expanduser().absolute()
    lifecycle.set_up_jax()
    run, config = restore.rebuild(EXPERIMENT, folder)
    restored = restore.checkpoint(run, config, folder, arguments.step)
    state = restored.state
    variables = {
        "params": state.params["encoder"],
        "batch_stats": state.model_state["encoder"],
    }
    card = export.save(
        arguments.to.expanduser(),
        variables,
        encoder=command_line.as_kwargs(config, "encoder"),
        size=command_line.as_kwargs(config, "augment")["size"],
        image_shape=run.dataset.train["image"].shape[1:],
        about=_about(run, folder, restored.step),
        steps=restored.step,
    )
    if card["scores"] is None:
        print(
            f"warning: no scores of step {restored.step}; `python -m experiments.linear_probe "
            "--step` makes them. The card has none.",
            file=sys.stderr,
        )
    print(f"{card['tensors']['tensors']} tensors of step {restored.step} in {arguments.to}")
    print(f"sha256 {card['tensors']['sha256']}")
    return 0


def _about(run: lifecycle.Run, folder: Path, step: int) -> dict[str, Any]:
    """What the card says of the run: its data, config and scores."""
    description = restore.description(folder)
    config = description["config"]
    config["data"].pop("data_dir", None)  # a path of the machine that trained it
    dataset = run.dataset
    return {
        "step": step,
        "data": {
            "name": dataset.name,
            "train_images": dataset.n_train,
            "test_images": len(dataset.test["image"]),
            "classes": list(dataset.class_names),
        },
        "config": config,
        "scores": _scores(folder, step),
        "versions": {
            "trained": description.get("versions"),
            "exported": provenance.versions(),
        },
    }


def _scores(folder: Path, step: int) -> Mapping[str, Any] | None:
    """The evaluations of this very step, each with its protocol; None where there are none."""
    for name in folders.SCORED_FILES:
        path = folder / "results" / f"{name}.json"
        summary = workdir.read_json(path) if path.is_file() else None
        if isinstance(summary, dict) and summary.get("step") == step and "evaluations" in summary:
            return {name: summary.get(name) for name in ("step", "evaluations", "health")}
    return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the workdir of a run")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="where to write")
    parser.add_argument(
        "--step",
        default="latest",
        metavar="latest|best|N",
        help="which of the run's checkpoints (default: latest)",
    )
    return parser


if __name__ == "__main__":
    command_line.exit_with(main)
