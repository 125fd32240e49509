"""Fine-tune all-MiniLM-L6-v2, with and without mined negatives, beside sentence-transformers.

    python -m pip install -r benchmarks/requirements.txt
    python -m benchmarks.minilm --model DIR --covid_qa DIR --keep runs/minilm
    python -m benchmarks.minilm --model DIR --covid_qa DIR --smoke       # a try

On the docstrings of the standard library and on COVID-QA, of each seed:

in batch                experiments.text with configs/docstrings.py:minilm or covid_qa.py:minilm
mined                   the same, with a negative of each query that the first run finds
                        (experiments.mine)
sentence-transformers   its MultipleNegativesRankingLoss on the batches of the first run: the same
                        tokens, steps, temperature, AdamW and schedule

All without dropout, so that first losses can be equal; batches where pairs share a document differ,
as MultipleNegativesRankingLoss takes it for a negative. Every model ends as a folder that
`sentence_folder` searches with: all test queries, documents at 128 tokens. What is finished is kept
below --keep, and the same command does the rest. Each set has a record of its own.
"""

import argparse
import functools
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.shared import harness
from contrastive_jax import sentence_folder
from contrastive_jax.data.examples import batch_rows
from contrastive_jax.data.text.collection import Collection
from contrastive_jax.evaluation import intervals, ranking
from contrastive_jax.storage import jsonl, workdir
from experiments import retrieval
from experiments.scoring import rankings, texts

CONFIGS = {
    "docstrings of the standard library": "docstrings.py:minilm",
    "COVID-QA": "covid_qa.py:minilm",
}
IN_BATCH, MINED, THEIRS = "in batch", "mined", "sentence-transformers"
ZERO_SHOT, WORDS = "zero-shot", "BM25"
MEASURE, SEARCHED = "nDCG@10", 128  # tokens of a document
RANKS, NEGATIVES = "5,50", 1
PACKAGES = ("jax", "flax", "tokenizers", "torch", "transformers", "sentence-transformers")


def config_of(name: str, args: argparse.Namespace) -> tuple[str, ...]:
    """The words of the command line that all runs of a set share."""
    words = [f"--config={harness.ROOT}/configs/{CONFIGS[name]}"]
    words += [f"--config.encoder.folder={args.model.resolve()}"]
    words += ["--config.encoder.dropout=0.0", "--config.encoder.attention_dropout=0.0"]
    words += ["--config.eval.figures=False", "--config.eval.baselines=False"]
    if name == "COVID-QA":
        words += [f"--config.data.path={args.covid_qa.resolve()}"]
    if args.smoke:
        words += ["--config.train.steps=2", "--config.train.log_every=1"]
        words += ["--config.data.batch_size=4", "--config.data.packages=('jinja2',)"]
    return tuple(words)


def command(module: str, *words: str) -> None:
    subprocess.run([sys.executable, "-m", module, *words], cwd=harness.ROOT, check=True)


def train(config: tuple[str, ...], seed: int, run: Path, folder: Path, *words: str) -> list[float]:
    """Train by the command and export; returns the losses that were logged."""
    if not folder.exists():
        command(
            "experiments.text", *config, f"--config.train.seed={seed}", *words, f"--workdir={run}"
        )
        command("experiments.export", str(run), f"--to={folder}")
    return [row["loss"] for row in jsonl.read_jsonl(run / "metrics.jsonl") if "loss" in row]


def mine(run: Path, to: Path) -> tuple[str, ...]:
    """Mine by a run; returns the words that train with what was found."""
    if not to.exists():
        command("experiments.mine", str(run), f"--ranks={RANKS}", f"--to={to}")
    return f"--config.data.negatives_path={to}", f"--config.data.n_negatives={NEGATIVES}"


def train_theirs(run: Path, folder: Path) -> list[float]:
    """Train by sentence-transformers on the batches of a run; returns the loss of each step."""
    losses = folder.with_suffix(".json")
    if losses.exists():
        return json.loads(losses.read_text())
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import losses as their_losses

    config = config_of_run(run)
    examples, batch_size, steps = (
        dataset_of(run).train,
        config["data"]["batch_size"],
        config["train"]["steps"],
    )
    n = len(examples["id"])
    model = SentenceTransformer(config["encoder"]["folder"], device="cpu").eval()  # without dropout
    scale, decay = 1 / config["loss"]["temperature"], config["optimizer"]["weight_decay"]
    loss_fn = their_losses.MultipleNegativesRankingLoss(model, scale=scale)
    optimizer = torch.optim.AdamW(decayed(model, decay), lr=1.0)
    rate = config["optimizer"]["learning_rate"]
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * rate * (1 + math.cos(math.pi * step / steps))
    )
    found = []
    for step in range(steps):
        rows = batch_rows(step, n, batch_size, config["train"]["seed"])
        optimizer.zero_grad()
        loss = loss_fn([features(examples, side, rows) for side in ("query", "document")], None)
        loss.backward()
        optimizer.step()
        schedule.step()
        found.append(float(loss.detach()))
    model.save(str(folder))
    losses.write_text(json.dumps(found))
    return found


def decayed(model: Any, decay: float) -> list[dict[str, Any]]:
    """Decay matrices and word vectors alone, as `training.optim` does."""
    groups: dict[bool, list] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        position = "position_embeddings" in name or "token_type_embeddings" in name
        groups[parameter.ndim > 1 and not position].append(parameter)
    return [{"params": groups[is_], "weight_decay": decay * is_} for is_ in (True, False)]


def features(examples: Mapping[str, np.ndarray], side: str, rows: np.ndarray) -> dict[str, Any]:
    """One side of a batch, cut to its longest text."""
    import torch

    length_B = examples[f"{side}_length"][rows]
    longest = int(length_B.max())
    mask_BL = np.arange(longest) < length_B[:, None]
    ids_BL = examples[side][rows, :longest].astype(np.int64)
    named = {"input_ids": ids_BL, "attention_mask": mask_BL.astype(np.int64)}
    return {name: torch.from_numpy(values) for name, values in named.items()}


def config_of_run(run: Path) -> dict[str, Any]:
    return workdir.read_json(run / "config.json")["config"]


def dataset_of(run: Path) -> Any:
    """Read the texts of a run as its command does."""
    opened = retrieval.open_texts(run)
    return texts.load(opened.config)


def values_of(folder: Path, target: Collection) -> np.ndarray:
    """Search with a folder: the measure of each test query."""
    model = sentence_folder.load(folder)._replace(max_length=SEARCHED)
    sides = target.queries, target.documents
    query_QD, document_ND = (model.encode(list(side.values())) for side in sides)
    found = rankings.by_cosine(target, query_QD, document_ND, k=10)
    return ranking.score(found, target.grades, measures=("nDCG",)).values[MEASURE]


def of_set(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Train and score everything on a set."""
    config, kept = config_of(name, args), args.keep / name.replace(" ", "-")
    kept.mkdir(parents=True, exist_ok=True)
    runs = {seed: kept / f"in_batch{seed}" for seed in args.seeds}
    folders = {seed: kept / f"in_batch{seed}-folder" for seed in args.seeds}
    ours = {seed: train(config, seed, runs[seed], folders[seed]) for seed in args.seeds}
    target = dataset_of(runs[args.seeds[0]]).texts.test
    values = functools.partial(cached_values, target=target, kept=kept)
    words = ranking.score(rankings.by_words(target, 10), target.grades, measures=("nDCG",))
    found: dict[str, list[np.ndarray]] = {
        WORDS: [words.values[MEASURE]],
        ZERO_SHOT: [values(args.model, "zero-shot")],
        **{system: [] for system in (IN_BATCH, MINED, THEIRS)},
    }
    first = []
    for seed in args.seeds:
        found[IN_BATCH].append(values(folders[seed], f"in_batch{seed}"))
        with_negatives = mine(runs[seed], kept / f"mined{seed}.jsonl")
        folder = kept / f"mined{seed}-folder"
        train(config, seed, kept / f"mined{seed}", folder, *with_negatives)
        found[MINED].append(values(folder, f"mined{seed}"))
        theirs = train_theirs(runs[seed], kept / f"theirs{seed}")
        found[THEIRS].append(values(kept / f"theirs{seed}", f"theirs{seed}"))
        first.append({"contrastive_jax": ours[seed][0], THEIRS: theirs[0]})
        print(
            f"{name}, seed {seed}: "
            + "  ".join(f"{k} {v[-1].mean():.4f}" for k, v in found.items())
        )
    return {
        "queries": len(target.queries),
        "documents": len(target.documents),
        "systems": {system: summary(each, found[ZERO_SHOT][0]) for system, each in found.items()},
        "first losses": first,
    }


def cached_values(folder: Path, name: str, target: Collection, kept: Path) -> np.ndarray:
    path = kept / f"{name}.npy"
    if not path.exists():
        workdir.replace_file(
            path, lambda file: np.save(open(file, "wb"), values_of(folder, target))
        )
    return np.load(path, allow_pickle=False)


def summary(values: list[np.ndarray], zero_shot_Q: np.ndarray) -> dict[str, Any]:
    """Mean over queries by seed; mean and standard error over seeds; the gain over zero-shot."""
    means = [float(each.mean()) for each in values]
    spread = float(np.std(means, ddof=1) / math.sqrt(len(means))) if len(means) > 1 else None
    gain = intervals.paired(zero_shot_Q, np.mean(values, axis=0))
    return {
        MEASURE: float(np.mean(means)),
        "by seed": means,
        "standard error over seeds": spread,
        "above zero-shot": gain.difference,
        "ci95 over queries": [gain.interval.low, gain.interval.high],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="the folder of the model")
    parser.add_argument("--covid_qa", type=Path, required=True, help="in the layout of BEIR")
    parser.add_argument("--sets", nargs="+", choices=[*CONFIGS], default=[*CONFIGS])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--keep", type=Path, default=Path("runs/minilm"))
    parser.add_argument(
        "--out",
        type=Path,
        default=harness.RESULTS / "minilm_cpu.json",
        help="where the scores go, with the name of the set before _cpu",
    )
    args = harness.parse(parser, seeds=[0], sets=[[*CONFIGS][0]])
    args.keep = args.keep.resolve()
    if args.smoke:
        args.keep = args.keep.with_name(f"{args.keep.name}-smoke")
        shutil.rmtree(args.keep, ignore_errors=True)
    harness.import_torch()
    for name in args.sets:
        write(name, of_set(name, args), args.out)


def write(name: str, found: Mapping[str, Any], out: Path) -> None:
    """Write the scores of a set to a file of its own."""
    config = CONFIGS[name]
    protocol = {
        "set": name,
        "measure": f"{MEASURE} of all test queries, documents cut at {SEARCHED} tokens",
        "config": config,
        "dropout": 0.0,
        "mined": f"ranks {RANKS}, {NEGATIVES} a query, by the run in batch of the same seed",
        "intervals": "paired percentile bootstrap over queries, of the mean over seeds",
    }
    named = out.with_stem(out.stem.replace("_cpu", f"_{config.partition('.')[0]}_cpu"))
    harness.write(named, {**harness.circumstances(PACKAGES), "protocol": protocol, **found})


if __name__ == "__main__":
    main()
