"""Encode texts with a run or a sentence folder, and write the vectors.

python -m experiments.encode runs/mine --input texts.txt --to vectors.npz
python -m experiments.encode all-MiniLM-L6-v2 --input corpus.jsonl --to vectors.npz

RUN or FOLDER          a run of experiments.text: its last checkpoint; or a folder of
                       sentence-transformers
--input FILE           .txt: a text a line; .jsonl: `text`, and perhaps `title` and `_id`, as in
                       the layout of BEIR
--to FILE.npz          `vector` [N, D] float32 and `id` [N]: `_id`, or the number of the line, from
                       0; blank lines have no vector
--prompt NAME          of a run "query" or "document" (default: document), which also says how long
                       texts may be; of a folder one of its prompts (default: its own default)
--batch_size N         texts at a time (default: 64)
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from contrastive_jax import sentence_folder
from contrastive_jax.data.text import collection, rows, tokens
from contrastive_jax.errors import ConfigError, DataError
from contrastive_jax.storage import workdir
from experiments import retrieval
from experiments.run import command_line, lifecycle
from experiments.scoring import texts


def main(argv: Sequence[str]) -> int:
    """Read, encode, write."""
    args = _parser().parse_args(argv[1:])
    if args.to.suffix != ".npz" or not args.to.absolute().parent.is_dir():
        raise ConfigError(f"--to is {args.to}; give an .npz file in a folder that exists.")
    if args.batch_size < 1:
        raise ConfigError(f"--batch_size is {args.batch_size}; give at least 1.")
    lifecycle.set_up_jax()
    ids, lines = read(args.input)
    encode = _by_folder if retrieval.is_sentence_folder(args.model) else _by_run
    with command_line.bad_values():
        vector_ND = encode(args.model, lines, args.prompt, args.batch_size)
    workdir.replace_file(args.to, lambda path: _save(path, ids, vector_ND))
    print(f"{len(ids):,} vectors of {vector_ND.shape[1]} dimensions in {args.to}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.error = retrieval.refuse  # type: ignore[method-assign]
    parser.add_argument("model", type=lambda text: Path(text).expanduser())
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--prompt")
    parser.add_argument("--batch_size", type=int, default=64)
    return parser


def read(path: Path) -> tuple[list[str], list[str]]:
    """Read ids and texts.

    Raises:
      ConfigError: another ending. DataError: a broken line, or an id that is there twice.
    """
    if path.suffix not in (".txt", ".jsonl"):
        raise ConfigError(f"--input is {path}; give a .txt or a .jsonl file.")
    found = rows.read(path, _text_line if path.suffix == ".txt" else _json_line)
    ids = [key or str(number - 1) for number, (key, _) in found]
    twice, n = Counter(ids).most_common(1)[0]
    if n > 1:
        raise DataError(f"{path} has the id {twice!r} twice; give every text its own, or none.")
    return ids, [text for _, (_, text) in found]


def _text_line(line: str) -> tuple[str, str]:
    return "", line.strip()


def _json_line(line: str) -> tuple[str, str]:
    row = rows.json_object(line)
    title, text = rows.text_of(row, "title", default=""), rows.text_of(row, "text")
    key = "" if row.get("_id") is None else collection.id_of(row)
    return key, f"{title} {text}" if title else text


def _by_run(folder: Path, lines: list[str], prompt: str | None, batch_size: int) -> np.ndarray:
    side = prompt or "document"
    if side not in ("query", "document"):
        raise ValueError(f"--prompt is {side!r}; of a run give query or document.")
    opened = retrieval.open_texts(folder)
    with opened.config.unlocked():
        opened.config.eval.batch_size = batch_size
    run, _, state = opened.load_without_data()
    return texts.embed(run, state, tokens.read(folder / texts.TOKENIZER), side, lines)


def _by_folder(folder: Path, lines: list[str], prompt: str | None, batch_size: int) -> np.ndarray:
    return sentence_folder.load(folder).encode(lines, prompt, batch_size)


def _save(path: Path, ids: list[str], vector_ND: np.ndarray) -> None:
    with path.open("wb") as file:
        np.savez(file, id=np.array(ids), vector=vector_ND)


if __name__ == "__main__":
    with command_line.exit_codes():
        sys.exit(main(sys.argv))
