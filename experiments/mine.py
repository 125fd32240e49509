"""Mine hard negatives: documents that rank high for a query and are not relevant to it.

A document with the text of a relevant one, or of the query, is never a negative.

python -m experiments.mine runs/mine --to hard.jsonl
python -m experiments.mine --data mine.jsonl --by vectors.npz --to hard.jsonl
python -m experiments.mine --data docstrings --split train --by bm25 --to hard.jsonl

RUN                    the folder of a run of experiments.text: its encoder, and the data that it
                       was trained on
--data DATA            as of experiments.retrieval: a file of pairs, a folder, or docstrings
--split NAME           of the judgements, or of the docstrings (default: train)
--by SYSTEM            bm25, a run, or an .npz of vectors, as of experiments.retrieval
--to FILE.jsonl        a line a query: query, pos, neg, neg_scores; FILE.json beside it says how
--negatives N          of each query at most (default: 5)
--ranks FIRST,LAST     among those without the positives, from 0 (default: 0,50)
--margin X             a negative scores at least X below the worst positive (vectors only)
--relative_margin X    or at least this fraction of its score below it (vectors only)
--sample SEED          a random choice of what remains, not the best of it
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from contrastive_jax import mining
from contrastive_jax.data.text import pairs, sources
from contrastive_jax.data.text.collection import Collection
from contrastive_jax.errors import ConfigError
from contrastive_jax.evaluation import bm25
from contrastive_jax.storage import workdir
from experiments import retrieval
from experiments.run import command_line, lifecycle
from experiments.run.sections import as_kwargs
from experiments.scoring.texts import OF_BATCHES

NEAR_DUPLICATE = 0.95  # of the score of the best positive


def main(argv: Sequence[str]) -> int:
    """Rank all documents, choose, write the pairs and a report of them."""
    args = _parser().parse_args(argv[1:])
    _check(args)
    lifecycle.set_up_jax()
    target = _of_run(args.run) if args.data is None else _target(args.data, args.split)
    if args.ranks[1] > len(target.documents):
        raise ConfigError(
            f"--ranks end at {args.ranks[1]}, above the {len(target.documents)} documents."
        )
    for note in target.notes:
        print(f"note: {note}", file=sys.stderr)
    mined = _by_words(target, args) if args.by == "bm25" else _by_vectors(target, args)
    report = _report(mined)
    workdir.write_text(args.to, "".join(_lines(target, mined)))
    workdir.write_json(args.to.with_suffix(".json"), {**_protocol(target, args), "report": report})
    shown = {name: value for name, value in report.items() if value is not None}
    print("  ".join(f"{name} {value:.3f}" for name, value in shown.items()))
    print(f"pairs {args.to}   how they were mined {args.to.with_suffix('.json')}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.error = retrieval.refuse  # type: ignore[method-assign]
    parser.add_argument("run", nargs="?", type=Path)
    parser.add_argument("--data")
    parser.add_argument("--split")
    parser.add_argument("--by")
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--negatives", type=int, default=5)
    parser.add_argument("--ranks", type=_ranks, default=(0, 50))
    parser.add_argument("--margin", type=float)
    parser.add_argument("--relative_margin", type=float)
    parser.add_argument("--sample", type=int)
    return parser


def _ranks(text: str) -> tuple[int, int]:
    first, comma, last = text.partition(",")
    if not (comma and first.isdecimal() and last.isdecimal()):
        raise ConfigError(f"--ranks is {text!r}; give the first and the last, such as 5,50.")
    return int(first), int(last)


def _target(data: str, split: str | None) -> Collection:
    is_pairs = Path(data).suffix in pairs.ENDINGS
    return retrieval.target_of(data, split if is_pairs else split or "train")


def _of_run(folder: Path) -> Collection:
    """What a run was trained on, to be searched."""
    config = retrieval.open_texts(folder).config
    keys = as_kwargs(config, "data")
    for key in (*OF_BATCHES, "negatives_path"):
        keys.pop(key)
    with command_line.bad_values():
        return sources.to_mine(**keys)


def _check(args: argparse.Namespace) -> None:
    """Refuse what cannot be meant, before anything is read; a run stands for both of its uses."""
    if args.run is None and (args.data is None or args.by is None):
        raise ConfigError("Give the folder of a run, or --data and --by.")
    args.by = args.by or str(args.run)
    first, last = args.ranks
    if args.negatives < 1 or first < 0 or last - first < args.negatives:
        raise ConfigError(
            f"--negatives {args.negatives} of --ranks {first},{last}: give at least 1, and ranks "
            "that hold as many."
        )
    margins = [x for x in (args.margin, args.relative_margin) if x is not None]
    if not all(math.isfinite(x) for x in margins):
        raise ConfigError("--margin and --relative_margin must be finite numbers.")
    if args.sample is not None and not 0 <= args.sample < 2**32:
        raise ConfigError(f"--sample is {args.sample}; give a seed from 0 to 2**32 - 1.")
    if args.by == "bm25" and margins:
        raise ConfigError("Margins are of vectors; leave them out with --by bm25.")
    is_file = args.by.endswith(".npz") and Path(args.by).is_file()
    if args.by != "bm25" and not is_file and not Path(args.by).is_dir():
        raise ConfigError(
            f"--by is {args.by!r}; give bm25, the folder of a run, or a file of vectors (.npz)."
        )
    retrieval.check_target(args.to, ".jsonl", args.data, args.by, args.run and str(args.run))


def _positives(target: Collection) -> list[list[int]]:
    """The rows of the relevant documents of each query."""
    row_of = {key: row for row, key in enumerate(target.documents)}
    grades = (target.grades[query] for query in target.queries)
    return [[row_of[key] for key, grade in judged.items() if grade > 0] for judged in grades]


def _copies(target: Collection) -> list[list[int]]:
    """The rows of every document that has the text of a relevant one, or of the query itself."""
    rows_of: dict[str, list[int]] = {}
    for row, text in enumerate(target.documents.values()):
        rows_of.setdefault(text.strip(), []).append(row)
    documents, found = list(target.documents.values()), []
    for query, relevant in zip(target.queries.values(), _positives(target), strict=True):
        texts = {query.strip(), *(documents[row].strip() for row in relevant)}
        found.append(sorted(row for text in texts for row in rows_of.get(text, [])))
    return found


def _padded(rows: Sequence[Sequence[int]]) -> np.ndarray:
    width = max(map(len, rows))
    return np.array([[*row, *[-1] * (width - len(row))] for row in rows], np.int32)


def _by_vectors(target: Collection, args: argparse.Namespace) -> mining.Negatives:
    query_QD, document_MD = retrieval.vectors_by(Path(args.by), target)
    return mining.mine_in_blocks(
        query_QD,
        document_MD,
        _padded(_positives(target)),
        _padded(_copies(target)),
        key=None if args.sample is None else jax.random.key(args.sample),
        n_negatives=args.negatives,
        ranks=args.ranks,
        margin=args.margin,
        relative_margin=args.relative_margin,
    )


def _by_words(target: Collection, args: argparse.Namespace) -> mining.Negatives:
    """The same by BM25; what shares no word with a query is no negative of it."""
    left_out = _copies(target)
    first, last = args.ranks
    index = bm25.Bm25(list(target.documents.values()))
    depth = last + max(map(len, left_out))
    shape = len(left_out), args.negatives
    row_QK, score_QK = np.zeros(shape, np.int32), np.full(shape, -np.inf, np.float32)
    for query, (rows, scores) in enumerate(index.search(list(target.queries.values()), depth)):
        kept = np.flatnonzero(~np.isin(rows, left_out[query]))[first:last]
        if args.sample is not None:
            rng = np.random.default_rng((args.sample, query))
            kept = np.sort(rng.permutation(kept)[: args.negatives])
        kept = kept[: args.negatives]
        row_QK[query, : len(kept)], score_QK[query, : len(kept)] = rows[kept], scores[kept]
    unknown_Q = np.full(len(left_out), np.nan, np.float32)  # BM25 is not asked for all scores
    found = row_QK, score_QK, score_QK > -np.inf, unknown_Q
    return mining.Negatives(*found)  # type: ignore[arg-type]


def _report(mined: mining.Negatives) -> dict[str, float | None]:
    """What `mining.report` says; None where there is nothing to average."""
    found = mining.report(mined, near_duplicate=NEAR_DUPLICATE)
    return {name: None if math.isnan(value) else value for name, value in found.items()}


def _lines(target: Collection, mined: mining.Negatives) -> list[str]:
    """One line of JSON for each query, its negatives from the hardest on."""
    texts = list(target.documents.values())
    lines = []
    for query, (text, relevant) in enumerate(
        zip(target.queries.values(), _positives(target), strict=True)
    ):
        valid_K = np.asarray(mined.valid[query])
        row = {
            "query": text,
            "pos": [texts[i] for i in relevant],
            "neg": [texts[i] for i in np.asarray(mined.index[query])[valid_K]],
            "neg_scores": [float(x) for x in np.asarray(mined.score[query])[valid_K]],
        }
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    return lines


def _protocol(target: Collection, args: argparse.Namespace) -> dict[str, Any]:
    return {
        "data": {
            "name": target.name,
            "split": target.split,
            "queries": len(target.queries),
            "documents": len(target.documents),
            "notes": list(target.notes),
        },
        "by": args.by,
        "negatives": args.negatives,
        "ranks": list(args.ranks),
        "margin": args.margin,
        "relative_margin": args.relative_margin,
        "sample": args.sample,
        "near_duplicate": NEAR_DUPLICATE,
    }


if __name__ == "__main__":
    with command_line.exit_codes():
        sys.exit(main(sys.argv))
