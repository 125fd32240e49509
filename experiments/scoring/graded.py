"""Graded pairs of texts as what a run is scored on: correlations of the cosine with the scores."""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from contrastive_jax import figures
from contrastive_jax.data.text.pairs import Pair
from contrastive_jax.evaluation import sentence_pairs
from contrastive_jax.evaluation.results import Row
from contrastive_jax.storage import jsonl, workdir
from contrastive_jax.types import TrainState
from experiments.run.build import Run
from experiments.scoring import pictures, rankings, texts


def score(
    run: Run,
    trained: TrainState,
    folder: Path,
    origin: Mapping[str, Any],
    *,
    name: str = "summary",
    draw: bool = False,
) -> dict[str, Any]:
    """Score a run by its graded test pairs, or by `texts.score` where pairs have no scores.

    Of pairs with scores those with low ones are no answers, so no retrieval is scored. Arguments
    and result are those of `texts.score`.
    """
    graded, started = texts.texts_of(run).graded, time.perf_counter()
    if not graded:
        return texts.score(run, trained, folder, origin, name=name, draw=draw)
    (folder / "results").mkdir(exist_ok=True)
    states = {"trained": trained}
    if texts.of_run(run).baselines:
        states["untrained"] = run.fresh_state()
    query, document, score_N = columns(graded)
    vectors = {system: _both(run, state, query, document) for system, state in states.items()}
    if jax.process_index() > 0:
        return {"evaluations": []}
    by_set = of_each_set(vectors, score_N, _sets(run, query))
    for group, found in by_set.items():
        print(f"{group}: {rankings.said_of_group(found, 'Spearman', 'pairs')}", flush=True)
    summary = {
        **origin,
        "evaluations": rows(vectors, score_N, "test"),
        **({"by_set": by_set} if by_set else {}),
        "left_out": {"ranking": "pairs with scores are no judgements"},
        "comparisons": [],
        "diagnostics": {},
        "seconds": {**origin.get("seconds", {}), "evaluation": time.perf_counter() - started},
    }
    workdir.write_json(folder / "results" / f"{name}.json", summary)
    if draw and texts.of_run(run).figures:
        history = partial(jsonl.read_jsonl, folder / "metrics.jsonl")
        curves = {"curves": lambda path: figures.curves(path, {"run": history()})}
        pictures.draw_all(curves, folder)
    return summary


def _both(
    run: Run, state: TrainState, query: Sequence[str], document: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    tokenizer = texts.texts_of(run).tokenizer
    assert tokenizer is not None
    return (
        texts.embed(run, state, tokenizer, "query", query),
        texts.embed(run, state, tokenizer, "document", document),
    )


def columns(graded: Sequence[Pair]) -> tuple[list[str], list[str], np.ndarray]:
    """List the queries, the documents and the scores [N]; a pair for each document of a query."""
    rows = [(pair.query, document, pair.score) for pair in graded for document in pair.positives]
    query, document, score = (list(column) for column in zip(*rows, strict=True))
    return query, document, np.array(score, np.float64)


def _sets(run: Run, query: Sequence[str]) -> np.ndarray:
    """The set of a mix that each query is of; "" where there is one set."""
    target = texts.texts_of(run).test
    assert target is not None
    set_of = {text: target.groups.get(key, "") for key, text in target.queries.items()}
    return np.array([set_of[text] for text in query])


def of_each_set(
    vectors: Mapping[str, tuple[np.ndarray, np.ndarray]], score_N: np.ndarray, set_N: np.ndarray
) -> dict[str, Any]:
    """Record the correlations within each set, as `rankings.by_group` records means.

    Args:
      vectors, score_N: as of `rows`.
      set_N: of the pairs, "" for none; sets whose scores are all the same are left out.
    """
    found: dict[str, Any] = {}
    for name in dict.fromkeys(set_N[set_N != ""].tolist()):
        own_N = set_N == name
        if len(np.unique(score_N[own_N])) > 1:
            own = {system: (q[own_N], d[own_N]) for system, (q, d) in vectors.items()}
            systems: dict[str, Any] = {system: {} for system in own}
            for row in rows(own, score_N[own_N], "test"):
                kept = {key: row[key] for key in ("value", "ci95", "ci95_method")}
                systems[row["representation"]][row["measure"]] = kept
            found[name] = {"pairs": int(own_N.sum()), "systems": systems}
    return found


def rows(
    vectors: Mapping[str, tuple[np.ndarray, np.ndarray]], score_N: np.ndarray, split: str
) -> list[Row]:
    """Record the correlations of each system's cosines with the scores.

    Args:
      vectors: by system, of queries and of documents [N,D], of any length.
      score_N: of the pairs.
      split: that they are of.
    """
    found = []
    for system, (query_ND, document_ND) in vectors.items():
        cosine_N = sentence_pairs.cosines(query_ND, document_ND)
        scored = sentence_pairs.score("similarity", cosine_N, score_N)
        for measure, (value, interval, n) in scored.items():
            drawn = f"{interval.resamples} resamples, seed {interval.seed}"
            row = {
                "representation": system,
                "layer": "embedding",
                "protocol": {"name": "similarity", "metric": "cosine", "measure": measure},
                "split": split,
                "n": n,
                "measure": measure,
                "value": value,
                "ci95": [interval.low, interval.high],
                "ci95_method": f"percentile bootstrap over pairs, {drawn}",
            }
            found.append(row)
    return sorted(found, key=lambda row: row["measure"] == "Pearson")
