"""Time sentence encoding and training beside sentence-transformers, on the same weights and texts.

    python -m benchmarks.text_speed --model DIR

`encode` is the transformer with pooling on batches of 32, 64 and 128 tokens; `end to end` is
`SentenceTransformer.encode` and `Model.encode` on texts of mixed lengths, tokenization included;
`train step` is forward, backward and AdamW of MultipleNegativesRankingLoss beside the step of
`objectives.dual`, both sides of 64 tokens; `GradCache` is our step with and without chunks.
Contenders take turns in one process, in which glibc keeps freed memory, as `experiments.text` has
it. Losses of the first step are compared: they are of equal pairs,
weights and temperature, without dropout.
"""

import argparse
import ast
import functools
import os
import sysconfig
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.shared import harness
from contrastive_jax import losses, parallel, sentence_folder
from contrastive_jax.encoders import bert, heads
from contrastive_jax.objectives import dual, temperature
from contrastive_jax.training import compiler_options
from experiments.run import memory

TEMPERATURE, LEARNING_RATE, DECAY = 0.05, 2e-5, 0.01
PACKAGES = ("jax", "flax", "tokenizers", "torch", "transformers", "sentence-transformers")
OURS, THEIRS = "contrastive_jax", "sentence_transformers"
CHUNKS, PLAIN = "contrastive_jax, chunks", "contrastive_jax, plain"


def texts(count: int) -> list[str]:
    """Docstrings of functions and classes of the standard library, of all lengths."""
    found: list[str] = []
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
                found.append(ast.get_docstring(node) or "")
    found = [text for text in found if text]
    return (found * (count // len(found) + 1))[:count]


def ids_of(model: sentence_folder.Model, rows: int, length: int) -> np.ndarray:
    """Random tokens [rows, length] of the middle of the vocabulary."""
    limits = model.tokenizer.size // 4, model.tokenizer.size
    return np.random.default_rng(0).integers(*limits, size=(rows, length)).astype(np.int32)


def encoding(folder: Path, rows: int, length: int) -> dict[str, harness.Step]:
    """One batch through transformer and pooling."""
    import torch

    ours, theirs = sentence_folder.load(folder), their_model(folder)
    ids = ids_of(ours, rows, length)
    batch = {"tokens": jnp.asarray(ids), "length": jnp.full(rows, length, jnp.int32)}
    embed = jax.jit(ours.embed)
    given = torch.from_numpy(ids).long()
    features = {"input_ids": given, "attention_mask": torch.ones_like(given)}

    def by_torch():
        with torch.no_grad():
            return theirs(dict(features))["sentence_embedding"]

    by_jax = lambda: embed(ours.params, {}, batch)["features"].block_until_ready()  # noqa: E731
    np.testing.assert_allclose(by_jax(), by_torch().numpy(), atol=1e-5)
    return {OURS: by_jax, THEIRS: by_torch}


def end_to_end(folder: Path, sentences: list[str], batch_size: int) -> dict[str, harness.Step]:
    """Texts to vectors."""
    ours, theirs = sentence_folder.load(folder), their_model(folder)
    by_jax = lambda: ours.encode(sentences, batch_size=batch_size)  # noqa: E731
    by_torch = lambda: theirs.encode(sentences, batch_size=batch_size)  # noqa: E731
    np.testing.assert_allclose(by_jax(), by_torch(), atol=1e-5)
    return {OURS: by_jax, THEIRS: by_torch}


def their_model(folder: Path) -> Any:
    import sentence_transformers

    return sentence_transformers.SentenceTransformer(str(folder), device="cpu").eval()


def training(folder: Path, rows: int, length: int) -> dict[str, harness.Step]:
    """One step of the optimizer; each call goes on from the last. Their first losses are equal."""
    ours, first = our_step(folder, rows, length)
    theirs, their_first = their_step(folder, rows, length)
    print(f"first losses: {first:.6f} and {their_first:.6f}")
    np.testing.assert_allclose(first, their_first, atol=1e-4)
    return {OURS: ours, THEIRS: theirs}


def sides(folder: Path, rows: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of both sides."""
    ids = ids_of(sentence_folder.load(folder), 2 * rows, length)
    return ids[:rows], ids[rows:]


def in_chunks(folder: Path, rows: int, length: int) -> dict[str, harness.Step]:
    """The plain step, and the same in four chunks. Their first losses are equal."""
    (plain, first), (chunks, same) = (
        our_step(folder, rows, length, chunk_size) for chunk_size in (None, rows // 4)
    )
    np.testing.assert_allclose(first, same, rtol=1e-5)
    return {CHUNKS: chunks, PLAIN: plain}


def our_step(
    folder: Path, rows: int, length: int, chunk_size: int | None = None
) -> tuple[harness.Step, float]:
    start, mesh = sentence_folder.read(folder), parallel.make_mesh(jax.devices()[:1])
    still = {"dropout": 0.0, "attention_dropout": 0.0}
    objective = dual.make(
        bert.make(**{**start.settings, **still}),
        heads.make("none", batch_norm=False),
        parallel.shard_loss(pair_loss, mesh, n_sharded=1),
        temperature=temperature.make(TEMPERATURE),
        chunk_size=chunk_size,
    )
    names = ("query", "document")
    batch = dict(zip(names, map(jnp.asarray, sides(folder, rows, length)), strict=True))
    batch |= {f"{name}_length": jnp.full(rows, length, jnp.int32) for name in names}
    batch["id"] = jnp.arange(rows, dtype=jnp.int32)
    optimizer = optax.adamw(LEARNING_RATE, weight_decay=DECAY)

    @functools.partial(
        jax.jit, donate_argnums=(0, 1), compiler_options=compiler_options.for_steps(mesh)
    )
    def step(params, state):
        def loss_fn(params):
            return objective.loss(params, {}, batch, jax.random.key(0), jnp.int32(0))

        (loss, _), gradient = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, loss

    params = jax.tree.map(jnp.asarray, {"encoder": start.params, "head": {}})
    held = [params, optimizer.init(params)]

    def run():
        *held[:], loss = step(*held)
        return float(loss)

    return run, run()


def pair_loss(split, scale, axis_name=None):
    ids = split["id"]
    return losses.info_nce(
        split["query"], split["document"], ids_B=ids, axis_name=axis_name, **scale
    )


def their_step(folder: Path, rows: int, length: int) -> tuple[harness.Step, float]:
    import torch
    from sentence_transformers.sentence_transformer import losses as their_losses

    model = their_model(folder)  # without dropout, as ours
    loss_fn = their_losses.MultipleNegativesRankingLoss(model, scale=1 / TEMPERATURE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=DECAY)
    given = [torch.from_numpy(side).long() for side in sides(folder, rows, length)]

    def run():
        features = [{"input_ids": ids, "attention_mask": torch.ones_like(ids)} for ids in given]
        optimizer.zero_grad()
        loss = loss_fn(features, torch.empty(0))
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return run, run()


def measured(steps: dict[str, harness.Step], rounds: int) -> dict[str, object]:
    """Seconds of each contender, and how fast the first is in the second."""
    seconds = harness.take_turns(steps, rounds)
    found = {name: harness.timing(each) for name, each in seconds.items()}
    first, second = (each["seconds"] for each in found.values())
    return {**found, "ratio": second / first}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--lengths", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--texts", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=harness.RESULTS / "text_speed_cpu.json")
    args = harness.parse(parser, lengths=[16], batch_size=4, texts=20, rounds=1)
    harness.import_torch().set_num_threads(args.threads)
    memory.keep_freed()
    rows, found = args.batch_size, {}
    for length in args.lengths:
        found[f"encode, {length} tokens"] = measured(
            encoding(args.model, rows, length), args.rounds
        )
    found[f"end to end, {args.texts} texts"] = measured(
        end_to_end(args.model, texts(args.texts), rows), max(args.rounds // 2, 1)
    )
    found["train step, 64 tokens"] = measured(training(args.model, rows, 64), args.rounds)
    found["GradCache, 64 tokens"] = measured(in_chunks(args.model, 2 * rows, 64), args.rounds)
    for name, each in found.items():
        print(f"{name}: {each['ratio']:.2f} times as fast as {[*each][1]}")
    protocol = {"batch_size": rows, "threads of torch": args.threads, "temperature": TEMPERATURE}
    harness.write(
        args.out, {**harness.circumstances(PACKAGES), "protocol": protocol, "measured": found}
    )


if __name__ == "__main__":
    main()
