"""Score how similar a model finds texts, against what people said: intervals over the rows.

python -m experiments.similarity --data sts.tsv all-MiniLM-L6-v2 runs/mine --to scores.json

--data FILE      a .tsv or .csv; its headings say what is scored:
                   sentence1, sentence2, score     Spearman and Pearson of cosines and scores
                   sentence1, sentence2, label     of labels 0 and 1: average precision, best F1
                   anchor, positive, negative      how often the positive is nearer
--to FILE.json   where the scores go (default: not written)

A system is the folder of a run of experiments.text, or a folder of sentence-transformers. Pairs are
encoded as queries, the positive and the negative of a triplet as documents.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from contrastive_jax.data.text import judged
from contrastive_jax.data.text.judged import Judged
from contrastive_jax.errors import ConfigError
from contrastive_jax.evaluation import sentence_pairs
from contrastive_jax.evaluation.sentence_pairs import Score
from contrastive_jax.storage import workdir
from experiments import retrieval
from experiments.run import command_line, lifecycle

RESAMPLES, SEED = 2000, 0


def main(argv: Sequence[str]) -> int:
    """Read, encode, score, write."""
    args = _parser().parse_args(argv[1:])
    if args.to is not None:
        retrieval.check_target(args.to, ".json", str(args.data), *args.systems)
    folders = {word: _folder(word) for word in args.systems}
    lifecycle.set_up_jax()
    found = judged.load(args.data)
    print(f"{args.data.stem}: {len(found.texts[0]):,} rows of {found.kind}")
    scored = {}
    for word, folder in folders.items():
        scored[word] = _score(found, retrieval.encoder_of(folder))
        for measure, (value, interval, _) in scored[word].items():
            print(f"{word}  {measure}  {value:.4f} ({interval.low:.4f} to {interval.high:.4f})")
    if args.to is not None:
        workdir.write_json(args.to, _record(args.data, found, scored))
        print(f"scores {args.to}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.error = retrieval.refuse  # type: ignore[method-assign]
    parser.add_argument("systems", nargs="+")
    parser.add_argument("--data", type=lambda text: Path(text).expanduser(), required=True)
    parser.add_argument("--to", type=Path)
    return parser


def _folder(word: str) -> Path:
    """The folder of a system.

    Raises:
      ConfigError: no folder, or one of no model of texts.
    """
    folder = Path(word).expanduser()
    if not folder.is_dir():
        raise ConfigError(f"{word!r} is no folder; give that of a run or of a model.")
    if not retrieval.is_sentence_folder(folder):
        retrieval.open_texts(folder)
    return folder


def _score(found: Judged, encode: retrieval.Encode) -> Mapping[str, Score]:
    is_triplets = found.label_N is None
    sides = ("query", *["document" if is_triplets else "query"] * (len(found.texts) - 1))
    first, *others = (encode(side, texts) for side, texts in zip(sides, found.texts, strict=True))
    columns = [sentence_pairs.cosines(first, other) for other in others]
    columns += [] if found.label_N is None else [found.label_N]
    return sentence_pairs.score(found.kind, *columns, resamples=RESAMPLES, seed=SEED)


def _record(
    path: Path, found: Judged, scored: Mapping[str, Mapping[str, Score]]
) -> Mapping[str, Any]:
    systems = {
        system: {
            measure: {"value": score.value, "ci95": list(score.interval[:2]), "n": score.n}
            for measure, score in measures.items()
        }
        for system, measures in scored.items()
    }
    return {
        "data": {"name": path.stem, "kind": found.kind, "rows": len(found.texts[0])},
        "protocol": {
            "similarity": "cosine",
            "sides": "query and documents of triplets, queries of pairs",
            "intervals": {"level": 0.95, "resamples": RESAMPLES, "seed": SEED, "of": "rows"},
        },
        "systems": systems,
    }


if __name__ == "__main__":
    with command_line.exit_codes():
        sys.exit(main(sys.argv))
