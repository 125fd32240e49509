"""Write the encoder of a run as safetensors with torch's names, a card and a SHA-256.

python -m experiments.export runs/digits --to exported/digits

Of a run on texts with encoder.name=bert it is a folder that sentence-transformers loads.

RUN                            the folder of a run, of any method; its data is not needed
--to DIR                       where to write: a new folder; of a run on images, a newer export
                               replaces an older one
--step STEP|latest|best        which of its checkpoints (default: latest)
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from contrastive_jax import export, sentence_folder
from contrastive_jax.errors import ConfigError
from contrastive_jax.storage import workdir
from experiments.reporting import sentence_card
from experiments.reporting.folders import SCORED_FILES
from experiments.run import command_line, lifecycle, provenance, restore, sentence_run
from experiments.run.restore import OpenedRun
from experiments.run.sections import as_kwargs
from experiments.scoring.kinds import TEXT


def main(argv: Sequence[str]) -> int:
    """Restore, write, say where."""
    command, opened = restore.parse(argv, __doc__ or "", {"to": "where to write"})
    if command.strings["to"] is None:
        raise ConfigError("Say where to write: --to DIR.")
    target = Path(command.strings["to"]).expanduser()
    _check_target(target, opened)
    lifecycle.set_up_jax()
    if _is_of_texts(opened):
        return _export_texts(opened, command.strings["step"] or "latest", target)
    config = command_line.plain(opened.config)
    if "encoder" in opened.config:  # the file that training began with may be gone
        opened.config.encoder.init = ""
    run, step, state = opened.load_without_data(command.strings["step"] or "latest")
    if "encoder" not in state.params:
        raise ConfigError(f"A run of {run.experiment.name!r} has no encoder to export.")
    variables = {"params": state.params["encoder"], "batch_stats": state.model_state["encoder"]}
    with command_line.bad_values():
        card = export.save(
            target,
            variables,
            encoder=as_kwargs(opened.config, "encoder"),
            size=opened.config.augment.size,
            image_shape=run.dataset.train["image"].shape[1:],
            about=_about(opened, step, config),
            steps=step,
        )
    if card["scores"] is None:
        print(
            f"warning: no scores of step {step}; `python -m experiments.linear_probe "
            f"{opened.folder} --step {step}` makes them. The card has none.",
            file=sys.stderr,
        )
    print(f"{card['tensors']['tensors']} tensors of step {step} in {target}")
    print(f"sha256 {card['tensors']['sha256']}")
    return 0


def _check_target(target: Path, opened: OpenedRun) -> None:
    """Refuse to write over what is no export of such a run.

    Raises:
      ConfigError: the target is a file, a run, the folder that training started from, or has files
        of something else.
    """
    start = opened.config.get("encoder", {}).get("folder", "")
    is_start = bool(start) and Path(start).expanduser().resolve() == target.resolve()
    if target.is_file() or (target / "checkpoints").exists() or is_start:
        what = "the folder that training started from" if is_start else "a file, or a run"
        raise ConfigError(f"--to is {target}, which is {what}; give another folder.")
    replaced = () if _is_of_texts(opened) else (export.TENSORS, export.CARD, export.SUMS)
    there = sorted(path.name for path in target.iterdir()) if target.is_dir() else []
    others = [name for name in there if name not in replaced]
    if others:
        raise ConfigError(
            f"--to is {target}, which has files already: {', '.join(others[:3])}.\n"
            "Give a new folder, so that those of two models are not mixed."
        )


def _is_of_texts(opened: OpenedRun) -> bool:
    return opened.experiment.kind.unit == TEXT.unit


def _export_texts(opened: OpenedRun, wanted: str, target: Path) -> int:
    """Write the folder of a sentence encoder."""
    sentence_run.check(opened)
    loaded = opened.load_without_data(wanted)
    model = sentence_run.as_folder(opened, loaded)
    scores = _scores(opened.folder, loaded.step)
    card = sentence_card.text(target.name, opened.description, loaded.step, model, scores)
    with workdir.new_folder(target) as folder:
        sentence_folder.write(folder, model, card)
    print(f"step {loaded.step} in {target}, with its tokenizer and prompts")
    return 0


def _about(opened: OpenedRun, step: int, config: dict[str, Any]) -> dict[str, Any]:
    """What the card says of the run: its method, data, config and scores."""
    config["data"].pop("data_dir", None)  # a path of the machine that trained it
    config["encoder"]["init"] = Path(config["encoder"]["init"]).name
    return {
        "step": step,
        "method": opened.experiment.name,
        "data": opened.description.get("data"),
        "code": opened.description.get("code"),
        "config": config,
        "scores": _scores(opened.folder, step),
        "versions": {
            "trained": opened.description.get("versions"),
            "exported": provenance.versions(),
        },
    }


def _scores(folder: Path, step: int) -> Mapping[str, Any] | None:
    """The evaluations of this very step, each with its protocol; None where there are none."""
    for name in SCORED_FILES:
        path = folder / "results" / f"{name}.json"
        scores = workdir.read_json(path) if path.is_file() else None
        if isinstance(scores, dict) and scores.get("step") == step and "evaluations" in scores:
            return {key: scores.get(key) for key in ("step", "evaluations", "diagnostics")}
    return None


if __name__ == "__main__":
    with command_line.exit_codes():
        sys.exit(main(sys.argv))
