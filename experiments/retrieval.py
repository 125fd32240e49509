"""Score retrieval on a collection: one row a system, with intervals and paired tests.

python -m experiments.retrieval --data BEIR_DIR bm25 runs/mine other.npz run.trec --to scores.json
python -m experiments.retrieval --data docstrings bm25
python -m experiments.retrieval runs/glyphs --query "greek small letter alpha with tonos"

Without --data it is a run of experiments.clip that is scored, from image to text and back on its
own test captions; --query TEXT, once or more, shows the images that are nearest to a caption.

--data DATA      a folder with corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv, the layout of BEIR;
                 a file of pairs, .jsonl, .tsv or .csv; or "docstrings", "docstrings:package":
                 those of installed code, split by file or by package
--split NAME     of the judgements, or of the docstrings (default: test)
--at K,K         how many documents of a ranking count (default: 10)
--measure NAME   that systems are compared by (default: nDCG)
--to FILE.json   where the scores go, with the value of every query (default: not written)

A system is one of
  bm25           words shared with the query, k1 = 1.2, b = 0.75
  RUN            the folder of a run of experiments.text: its last checkpoint
  DIR            a folder of sentence-transformers, by its prompts "query" and "document"
  FILE.trec      a run file: query Q0 document rank score name
  FILE.npz       query_id, query [Q, D], document_id, document [N, D]: ranked by cosine
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contrastive_jax import sentence_folder
from contrastive_jax.data.text import collection, docstrings, pairs, results_files, tokens
from contrastive_jax.data.text.collection import Collection
from contrastive_jax.errors import ConfigError
from contrastive_jax.evaluation import intervals, ranking
from contrastive_jax.evaluation.ranking import Comparison, Ranked, Results
from contrastive_jax.storage import workdir
from experiments.run import command_line, lifecycle, restore, start_folder
from experiments.run.sections import nearest
from experiments.scoring import caption_retrieval, kinds, rankings, texts

Encode = Callable[[str, Sequence[str]], np.ndarray]  # ("query" or "document", texts) -> [N,D]
SHOWN = ("nDCG", "MRR", "MAP", "recall", "hole")


def main(argv: Sequence[str]) -> int:
    """Rank by every system, score, compare, write."""
    args = _parser().parse_args(argv[1:])
    if args.data is None:
        return _between_modalities(args)
    if args.query:
        raise ConfigError("--query is of a run of experiments.clip, without --data.")
    at, measure = _ranks(args.at or "10"), args.measure or "nDCG"
    if measure not in ranking.MEASURES:
        hint = nearest(measure, list(ranking.MEASURES))
        raise ConfigError(f"--measure: {measure!r} is not known; {hint}")
    if args.to is not None:
        check_target(args.to, ".json", args.data, *args.systems)
    systems = _systems(args.systems)
    lifecycle.set_up_jax()
    target = target_of(args.data, args.split)
    if max(at) > len(target.documents):
        raise ConfigError(f"--at: {max(at)} is above the {len(target.documents)} documents.")
    for note in target.notes:
        print(f"note: {note}", file=sys.stderr)
    # one more, because a document that has the id of its query is taken out
    found = {name: search(target, max(at) + 1) for name, search in systems.items()}
    scored = {name: ranking.score(each, target.grades, at=at) for name, each in found.items()}
    chosen = f"{measure}@{at[0]}"
    tests = ranking.compare({name: each.values[chosen] for name, each in scored.items()})
    _show(target, scored, tests, at, chosen)
    if args.to is not None:
        workdir.write_json(args.to, _record(target, scored, tests, chosen))
        print(f"scores {args.to}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        usage=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.error = refuse  # type: ignore[method-assign]
    parser.add_argument("systems", nargs="+")
    parser.add_argument("--data")
    parser.add_argument("--query", action="append")
    parser.add_argument("--split")
    parser.add_argument("--at")
    parser.add_argument("--measure")
    parser.add_argument("--to", type=Path)
    return parser


def _between_modalities(args: argparse.Namespace) -> int:
    """Score a run on captioned images, or look captions up by it."""
    if len(args.systems) != 1 or not Path(args.systems[0]).expanduser().is_dir():
        raise ConfigError(
            "Say by --data what is searched, or give the folder of one run of experiments.clip."
        )
    for name in ("split", "at", "measure"):
        if getattr(args, name) is not None:
            raise ConfigError(
                f"--{name} is of --data; without it a run of experiments.clip is scored on its own "
                "test captions."
            )
    if args.query and args.to is not None:
        raise ConfigError("--to is for scores, and --query shows images; leave out one of them.")
    if args.to is not None:
        check_target(args.to, ".json")
    opened = caption_retrieval.open_captioned(Path(args.systems[0]).expanduser())
    if args.query:
        caption_retrieval.ask(opened, args.query)
    else:
        caption_retrieval.score(opened, args.to)
    return 0


def refuse(message: str) -> Any:
    raise ConfigError(f"{message[0].upper()}{message[1:]}; see --help.")


def check_target(to: Path, ending: str, *read: str | None) -> None:
    """Refuse a file that cannot be written, or that is read, before any work.

    Args:
      to: the file.
      ending: that it must have.
      read: what the command reads; runs stand for the files of their data.

    Raises:
      ConfigError: naming it.
    """
    if to.suffix != ending or not to.absolute().parent.is_dir():
        raise ConfigError(f"--to is {to}; give a {ending} file in a folder that exists.")
    sources = [Path(text).expanduser() for text in read if text]
    for run in [path for path in sources if (path / "checkpoints").is_dir()]:
        sources += [Path(text).expanduser() for text in data_files(run)]
    target, files = to.resolve(), {path.resolve() for path in sources}
    folders = {path for path in files if path.is_dir() and not (path / "checkpoints").is_dir()}
    if target in files or (target.exists() and target.parent in folders):
        raise ConfigError(f"--to is {to}, a file that is read; give another name.")


def data_files(run: Path) -> list[str]:
    """List the files that the data of a run was read from."""
    data = open_texts(run).config.data
    places = [data[key] for key in ("path", "negatives_path") if data.get(key)]
    return [each for place in places for each in ([place] if isinstance(place, str) else place)]


def target_of(text: str, split: str | None) -> Collection:
    """Read what is searched: docstrings, a file of pairs or a folder.

    Raises:
      ConfigError: a split that such data has not. DataError: of the data.
    """
    name, _, group = text.partition(":")
    path = Path(text).expanduser()
    with command_line.bad_values():
        if name == "docstrings" and not path.exists():
            return docstrings.load(split or "test", group or "file")
    if path.suffix not in pairs.ENDINGS or path.is_dir():
        return collection.load(path, split or "test")
    if split is not None:
        raise ConfigError(f"--split is {split!r}, but {path} is a file of pairs; leave it out.")
    return pairs.collection(path)


def _ranks(text: str) -> tuple[int, ...]:
    ranks = [int(word) if word.isdecimal() else 0 for word in text.split(",")]
    if min(ranks) < 1:
        raise ConfigError(f"--at is {text!r}; give numbers of 1 or more, divided by commas.")
    return tuple(dict.fromkeys(ranks))


def _systems(words: Sequence[str]) -> dict[str, Callable[[Collection, int], Results]]:
    """What ranks the documents, by the word that a person typed.

    Raises:
      ConfigError: a word that is no system, or that is there twice.
    """
    systems: dict[str, Callable[[Collection, int], Results]] = {}
    for word in words:
        path = Path(word).expanduser()
        if word in systems:
            raise ConfigError(f"The system {word!r} is there twice; give it once.")
        if word == "bm25":
            systems[word] = rankings.by_words
        elif path.suffix == ".trec" and path.is_file():
            systems[word] = lambda target, k, path=path: _by_file(path, target)
        elif path.suffix == ".npz" and path.is_file():
            systems[word] = lambda target, k, path=path: _by_vectors(path, target, k)
        elif path.is_dir():
            if not is_sentence_folder(path):
                open_texts(path)  # refused before anything is ranked
            systems[word] = lambda target, k, path=path: _by_vectors(path, target, k)
        else:
            raise ConfigError(
                f"{word!r} is no system; give bm25, the folder of a run, or a file that ends in "
                ".trec or .npz."
            )
    return systems


def is_sentence_folder(folder: Path) -> bool:
    """Whether a folder holds a model of sentence-transformers or Hugging Face, not a run."""
    if any((folder / name).is_file() for name in ("modules.json", "model.safetensors")):
        return True
    config = folder / "config.json"
    named = workdir.read_json(config) if config.is_file() else {}
    return isinstance(named, dict) and "model_type" in named


def open_texts(folder: Path) -> restore.OpenedRun:
    """Open a run that embeds texts.

    Raises:
      ConfigError: the folder holds none.
    """
    opened = restore.open_run(folder)
    if opened.experiment.kind.unit != kinds.TEXT.unit:
        raise ConfigError(
            f"{folder} is a run of {opened.experiment.name!r}, which embeds no texts; give a run "
            "of experiments.text."
        )
    return opened


def encoder_of(folder: Path) -> Encode:
    """Open a run or a sentence folder as ("query" or "document", texts) -> vectors [N,D]."""
    if is_sentence_folder(folder):
        model = sentence_folder.load(folder)
        names = {side: start_folder.prompt_of(model.prompts, side) for side in start_folder.PROMPTS}
        return lambda side, lines: model.encode(list(lines), names[side])
    run, _, state = open_texts(folder).load_without_data()
    tokenizer = tokens.read(folder / texts.TOKENIZER)
    return lambda side, lines: texts.embed(run, state, tokenizer, side, lines)


def vectors_by(place: Path, target: Collection) -> tuple[np.ndarray, np.ndarray]:
    """Get the vectors of queries [Q,D] and documents [N,D]: of a folder, or from an .npz."""
    if not place.is_dir():
        vectors = results_files.read_vectors(place, target.queries, target.documents)
        return vectors.query, vectors.document
    encode = encoder_of(place)
    sides = ("query", list(target.queries.values())), ("document", list(target.documents.values()))
    query_QD, document_ND = (encode(*side) for side in sides)
    return query_QD, document_ND


def _by_file(path: Path, target: Collection) -> Results:
    return results_files.read_trec(path, target.queries)


def _by_vectors(place: Path, target: Collection, k: int) -> Results:
    is_run = place.is_dir() and not is_sentence_folder(place)
    if is_run and any(Path(text).stem == target.name for text in data_files(place)):
        print(
            f"note: {place} was trained on pairs of {target.name}; experiments.evaluate {place} "
            "scores it on those that were kept aside",
            file=sys.stderr,
        )
    return rankings.by_cosine(target, *vectors_by(place, target), k)


def _show(
    target: Collection,
    scored: Mapping[str, Ranked],
    tests: Sequence[Comparison],
    at: Sequence[int],
    chosen: str,
) -> None:
    print(
        f"{target.name} {target.split}: {len(target.queries):,} queries, "
        f"{len(target.documents):,} documents"
    )
    columns = [f"{name}@{k}" for k in at for name in SHOWN]
    columns = [chosen, *(name for name in columns if name != chosen)]
    width = max(len(name) for name in scored)
    print("  ".join([" " * width, f"{chosen} (95 % interval)".ljust(24), *columns[1:]]))
    for name, each in scored.items():
        interval = intervals.bootstrap(each.values[chosen])
        first = f"{each.values[chosen].mean():.4f} ({interval.low:.4f} to {interval.high:.4f})"
        cells = [f"{each.values[c].mean():.4f}".ljust(len(c)) for c in columns[1:]]
        unanswered = f"  {each.unanswered:,} queries unanswered" if each.unanswered else ""
        print("  ".join([name.ljust(width), first, *cells]) + unanswered)
    for test in tests:
        print(rankings.said(test))


def _record(
    target: Collection,
    scored: Mapping[str, Ranked],
    tests: Sequence[Comparison],
    chosen: str,
) -> dict[str, Any]:
    return {
        "data": {
            "name": target.name,
            "split": target.split,
            "queries": len(target.queries),
            "documents": len(target.documents),
            "notes": list(target.notes),
        },
        "protocol": {**rankings.PROTOCOL, "compared_by": chosen},
        "systems": {name: _system(each) for name, each in scored.items()},
        "comparisons": rankings.compared(target, scored, tests, chosen),
    }


def _system(scored: Ranked) -> dict[str, Any]:
    means = {
        name: {
            "value": float(value_Q.mean()),
            "ci95": list(intervals.bootstrap(value_Q)[:2]),
        }
        for name, value_Q in scored.values.items()
    }
    by_query = {name: value_Q.tolist() for name, value_Q in scored.values.items()}
    return {
        "unanswered": scored.unanswered,
        "mean": means,
        "query_id": list(scored.query),
        "by_query": by_query,
    }


if __name__ == "__main__":
    with command_line.exit_codes():
        sys.exit(main(sys.argv))
