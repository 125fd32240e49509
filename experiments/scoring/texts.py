"""Pairs of texts as a kind of data: how they are read and fed, and what retrieval they give.

A run is scored on the collection of its test split, beside the untrained encoder and BM25, with
intervals over queries and paired tests.
"""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from contrastive_jax import data, figures, parallel, training
from contrastive_jax.data.examples import Mineable, Texts
from contrastive_jax.data.text import sets, sources
from contrastive_jax.data.text.collection import Collection
from contrastive_jax.data.text.tokens import Tokenizer, Tokens
from contrastive_jax.evaluation import diagnostics, protocols, ranking
from contrastive_jax.evaluation import texts as evaluation
from contrastive_jax.evaluation.ranking import Ranked
from contrastive_jax.storage import jsonl, workdir
from contrastive_jax.types import Feed, TrainState
from experiments.run import guide, start_folder, text_losses
from experiments.run.build import Run
from experiments.run.sections import as_kwargs
from experiments.scoring import document_map, pictures, rankings

SHOWN = ("nDCG", "MRR", "recall", "MAP")
TOKENIZER = "tokenizer.json"  # in the folder of a run
FEW = 50  # test queries
# keys of `data` beside its source
OF_BATCHES = ("batch_size", "n_negatives", "weights", "mix", "length_buckets")
PAIRS, DIAGNOSED = 2000, 2000  # of a histogram; of the diagnostics


class Settings(NamedTuple):
    """How a run on texts is scored."""

    every_steps: int
    batch_size: int
    at: int
    figures: bool
    baselines: bool


def settings(
    every_steps: int = 0,
    batch_size: int = 256,
    at: int = 10,
    figures: bool = True,
    baselines: bool = True,
) -> Settings:
    """Choose how to score, by the keys of the config's `eval`.

    Args:
      every_steps: steps between two searches of the validation split; 0 for never. The test split
        is never searched during training.
      batch_size: texts embedded at once, over all devices.
      at: how many documents of a ranking count.
      figures: draw the pictures.
      baselines: also score the untrained encoder and BM25.

    Raises:
      ValueError: a number out of range.
    """
    at_least = {"every_steps": (every_steps, 0), "batch_size": (batch_size, 1), "at": (at, 1)}
    for key, (value, least) in at_least.items():
        if value < least:
            raise ValueError(f"eval.{key} is {value}; give at least {least}")
    return Settings(every_steps, batch_size, at, figures, baselines)


def of_run(run: Run) -> Settings:
    """Read how a run is scored."""
    return settings(**as_kwargs(run.config, "eval"))


def load(config: ConfigDict) -> data.Dataset:
    """Load the texts of a config, as tokens."""
    chosen = settings(**as_kwargs(config, "eval"))  # refused before the texts are read
    of_tokens = sets.settings(**as_kwargs(config, "tokens"))
    keys = as_kwargs(config, "data")
    of_batches = {key: keys.pop(key) for key in OF_BATCHES}
    mined = config.mine.every_steps > 0
    known = start_folder.vocabulary(config)
    corpus = sources.read(**keys)
    if chosen.every_steps and corpus.validation is None:
        raise ValueError(
            f"eval.every_steps is {chosen.every_steps}, and data.validation_split names no split "
            "to search"
        )
    if chosen.every_steps and corpus.graded:
        raise ValueError("pairs with scores are scored after training; set eval.every_steps=0")
    for found in filter(None, (corpus.test, corpus.validation)):
        if chosen.at > len(found.documents):
            raise ValueError(
                f"eval.at is {chosen.at}, above the {len(found.documents)} documents of "
                f"{found.split!r}; lower it"
            )
    given = {"mined": mined, "guide": guide.encoder(config), **known}
    return sets.dataset(corpus, of_tokens, **of_batches, **given)


def stand_in(config: ConfigDict, identity: Mapping[str, Any]) -> data.Dataset:
    """Make empty texts in place of a set of which only the identity is known."""

    def empty(n: int) -> dict[str, np.ndarray]:
        found = {}
        for name, shape in identity["shapes"].items():
            is_float = name.endswith("_guide") or name in ("score", "scores")
            kind = bool if name.endswith("_mask") else np.float32 if is_float else np.int32
            zero = np.zeros((), kind)
            found[name] = np.broadcast_to(zero, (n, *shape))
        return found

    of_tokens = sets.settings(**as_kwargs(config, "tokens"))
    texts = Texts(None, identity["n_tokens"], of_tokens, None, None, (), None)
    if config.mine.every_steps:
        shape, shapes = (identity["train"], config.data.n_negatives), identity["shapes"]
        guide_G = shapes.get("document_guide")
        texts = texts._replace(mineable=_unknown(*shape, *shapes["document"], guide_G=guide_G))
    parts = empty(identity["train"]), empty(identity["test"])
    return data.Dataset(identity["name"], *parts, (), config.data.batch_size, texts=texts)


def _unknown(
    n: int, n_negatives: int, length: int, guide_G: Sequence[int] | None = None
) -> Mineable:
    """One empty document in place of all, the negative of every pair."""
    zeros = partial(np.zeros, dtype=np.int32)
    one = zeros((1, length)), zeros(1)
    rows = zeros(n), zeros((1, 1)), zeros((1, 1))
    guide_MG = None if guide_G is None else np.zeros((1, *guide_G), np.float32)
    first_NK = np.broadcast_to(np.int32(0), (n, n_negatives))
    return Mineable(*one, *one, zeros(1), *rows, first_NK, guide_MG)


def feed(config: ConfigDict, dataset: data.Dataset, seed: int) -> Feed:
    """Make the batches of a training set for a seed; with the corpus that negatives are rows of."""
    del config
    assert dataset.texts is not None
    mineable, order = dataset.texts.mineable, (dataset.texts.mix, dataset.texts.lengths)
    made = data.feed(dataset.train, dataset.batch_size, seed, *order)
    return made if mineable is None else data.with_whole(made, mineable.resident())


def texts_of(run: Run) -> Texts:
    """What a run has beside its examples."""
    assert run.dataset.texts is not None
    return run.dataset.texts


def check(run: Run) -> list[str]:
    """Ask, before the first step, what scoring will need; say what is odd about the texts.

    Raises:
      ValueError: the encoder cannot read texts as long as the config lets them be.
    """
    state, chosen = run.abstract_state(), texts_of(run).settings
    for side, length in (("query", chosen.query_length), ("document", chosen.document_length)):
        rows = {side: (1, length), f"{side}_length": (1,)}
        longest = {name: jax.ShapeDtypeStruct(shape, np.int32) for name, shape in rows.items()}
        jax.eval_shape(run.objective.embed[side], state.params, state.model_state, longest)
    target = texts_of(run).test
    n = 0 if target is None else len(target.queries)
    few = [f"{n} test queries are too few to tell systems apart"] if n < FEW else []
    alike = "score" in run.dataset.train and run.config.loss.kind not in text_losses.GRADED
    taken = f"pairs have scores, and loss.kind {run.config.loss.kind!r} takes all for positives"
    return [*texts_of(run).notes, *few, *([taken] if alike else [])]


def describe(run: Run) -> str:
    """Summarize the data for the banner."""
    target, train, mix = texts_of(run).test, run.dataset.train, texts_of(run).mix
    assert target is not None
    shares = "" if mix is None else f"; of each {mix.by}: {mix.shares()}"
    lengths = " and ".join(str(train[side].shape[1]) for side in ("query", "document"))
    return (
        f"{run.dataset.name}: {run.dataset.n_train:,} pairs of up to {lengths} tokens; "
        f"{len(target.queries):,} test queries, {len(target.documents):,} documents{shares}"
    )


def keep(run: Run, folder: Path) -> None:
    """Keep the tokenizer with the run: what a later command encodes texts by."""
    tokenizer = texts_of(run).tokenizer
    assert tokenizer is not None
    workdir.write_text(folder / TOKENIZER, tokenizer.json)


def embed(
    run: Run, state: TrainState, tokenizer: Tokenizer, side: str, texts: Sequence[str]
) -> np.ndarray:
    """Embed texts as "query" or "document", [N,D] of length one."""
    chosen: sets.Settings = texts_of(run).settings
    length, prompt = {
        "query": (chosen.query_length, chosen.query_prompt),
        "document": (chosen.document_length, chosen.document_prompt),
    }[side]
    return embed_tokens(run, state, side, tokenizer.encode(texts, length, prompt), length)


def embed_tokens(
    run: Run, state: TrainState, side: str, tokens: Tokens, longest: int
) -> np.ndarray:
    """Embed rows of tokens as "query" or "document", [N,D] of length one."""
    devices = run.mesh.devices.size
    found = evaluation.extract(
        run.objective.embed[side],
        state.params,
        state.model_state,
        *tokens,
        names=(side, f"{side}_length"),
        longest=longest,
        batch_size=-(-min(of_run(run).batch_size, len(tokens.length_N)) // devices) * devices,
        shard=lambda batch: parallel.put_batch(batch, run.mesh),
        out_sharding=parallel.replicated(run.mesh),
    )
    return found["embedding"]


def both(
    run: Run, state: TrainState, target: Collection, tokenizer: Tokenizer | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Embed the queries [Q,D] and the documents [N,D] of a collection."""
    used = tokenizer or texts_of(run).tokenizer
    assert used is not None
    sides = ("query", list(target.queries.values())), ("document", list(target.documents.values()))
    query_QD, document_ND = (embed(run, state, used, *side) for side in sides)
    return query_QD, document_ND


def evaluators(run: Run) -> list[training.Evaluator]:
    """Measure nDCG on the validation split, as often as the config asks."""
    chosen, target = of_run(run), texts_of(run).validation
    if chosen.every_steps == 0 or target is None:
        return []

    def measure(state: TrainState, step: int) -> Mapping[str, float]:
        del step
        found = rankings.by_cosine(target, *both(run, state, target), chosen.at + 1)
        scored = ranking.score(found, target.grades, at=(chosen.at,), measures=("nDCG",))
        return {"nDCG_validation": float(scored.values[f"nDCG@{chosen.at}"].mean())}

    return [training.Evaluator(chosen.every_steps, measure)]


def score(
    run: Run,
    trained: TrainState,
    folder: Path,
    origin: Mapping[str, Any],
    *,
    name: str = "summary",
    draw: bool = False,
) -> dict[str, Any]:
    """Score a run on its test collection, write results/NAME.json, then draw.

    Args:
      run: that was trained.
      trained: its last state.
      folder: the workdir.
      origin: what the file says of how the run came about; see `provenance.of_scores`.
      name: of the JSON file.
      draw: also draw the pictures of the run, once its scores are written.

    Returns:
      What was written; in a process that is not the first, no evaluations.
    """
    started = time.perf_counter()
    (folder / "results").mkdir(exist_ok=True)
    target, chosen = texts_of(run).test, of_run(run)
    assert target is not None
    vectors = {"trained": both(run, trained, target)}
    if chosen.baselines:
        vectors["untrained"] = both(run, run.fresh_state(), target)
    if jax.process_index() > 0:
        return {"evaluations": []}
    scored = _scored(target, vectors, chosen)
    measures = [f"{measure}@{chosen.at}" for measure in SHOWN]
    rows = [
        row
        for system, each in scored.items()
        for row in rankings.rows(
            target,
            each,
            measures,
            representation=system,
            layer="words" if system == "BM25" else "embedding",
        )
    ]
    tests = ranking.compare(
        {system: scored[system].values[measures[0]] for system in reversed(scored)}
    )
    for test in tests:
        print(f"{measures[0]}: {rankings.said(test)}", flush=True)
    by_set = rankings.by_group(target, scored, measures)
    for group, found in by_set.items():
        print(f"{group}: {rankings.said_of_group(found, measures[0])}", flush=True)
    document_ND = vectors["trained"][1]
    summary = {
        **origin,
        "evaluations": sorted(rows, key=lambda row: measures.index(row["measure"])),
        **({"by_set": by_set} if by_set else {}),
        "left_out": {},
        "comparisons": rankings.compared(target, scored, tests, measures[0]),
        "diagnostics": {
            "trained/embedding": diagnostics.of_features(document_ND[:DIAGNOSED], spectrum=False)
        },
        "seconds": {**origin.get("seconds", {}), "evaluation": time.perf_counter() - started},
    }
    workdir.write_json(folder / "results" / f"{name}.json", summary)
    if draw and chosen.figures:
        pictures.draw_all(_drawings(run, target, vectors, scored, summary, folder), folder)
    return summary


def _scored(
    target: Collection, vectors: Mapping[str, tuple[np.ndarray, np.ndarray]], chosen: Settings
) -> dict[str, Ranked]:
    """Rank by every system; one document more, because that with the query's id is taken out."""
    found = {
        name: rankings.by_cosine(target, *each, chosen.at + 1) for name, each in vectors.items()
    }
    if chosen.baselines:
        found["BM25"] = rankings.by_words(target, chosen.at + 1)
    return {
        name: ranking.score(each, target.grades, at=(chosen.at,)) for name, each in found.items()
    }


def _drawings(
    run: Run,
    target: Collection,
    vectors: Mapping[str, tuple[np.ndarray, np.ndarray]],
    scored: Mapping[str, Ranked],
    summary: Mapping[str, Any],
    folder: Path,
) -> dict[str, pictures.Drawing]:
    measure = f"nDCG@{of_run(run).at}"
    ours = scored["trained"].values[measure]
    gain_of = {
        f"trained - {name}": ours - each.values[measure]
        for name, each in scored.items()
        if name != "trained"
    }
    history = partial(jsonl.read_jsonl, folder / "metrics.jsonl")
    drawings: dict[str, pictures.Drawing] = {
        "curves": lambda path: figures.curves(path, {"run": history()}),
        "scores": lambda path: figures.score_bars(
            path, summary["evaluations"], protocols.label, on="test queries"
        ),
    }
    if gain_of:
        drawings["gains"] = lambda path: figures.gains(path, gain_of, measure)
    for name, each in vectors.items():
        if target.groups:
            drawings[f"map_{name}"] = partial(document_map.draw, target, each[1], run.plan.seed)
        drawings[f"cosines_{name}"] = partial(_draw_cosines, target, *each, run.plan.seed)
    return drawings


def _draw_cosines(
    target: Collection, query_QD: np.ndarray, document_ND: np.ndarray, seed: int, path: Path
) -> None:
    """Cosines of queries with a relevant document, and with the nearest and others that are not."""
    place = {key: row for row, key in enumerate(target.documents)}
    chosen = np.sort(np.random.default_rng(seed).permutation(len(query_QD))[:PAIRS])
    queries = list(target.queries)
    cosine_QN = query_QD[chosen] @ document_ND.T
    judged_QN = np.zeros(cosine_QN.shape, bool)
    for row, query in enumerate(chosen):
        judged = target.grades[queries[query]]
        judged_QN[row, [place[document] for document, grade in judged.items() if grade > 0]] = True
    nearest_Q = np.where(judged_QN, -np.inf, cosine_QN).max(axis=1)
    others = np.random.default_rng(seed).choice(cosine_QN[~judged_QN], 50 * len(chosen))
    figures.cosine_histograms(
        path,
        {
            "query and relevant document": cosine_QN[judged_QN],
            "query and nearest other document": nearest_Q,
            "query and any other document": others,
        },
    )
