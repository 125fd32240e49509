"""Similarities that systems give to judged texts, beside what people said: intervals, a table."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contrastive_jax.data.text.judged import Judged
from contrastive_jax.evaluation import sentence_pairs
from contrastive_jax.evaluation.sentence_pairs import Score

Encode = Callable[[str, Sequence[str]], np.ndarray]  # ("query" or "document", texts) -> [N,D]


def score(judged: Judged, encode: Encode) -> dict[str, Score]:
    """Score a system. Pairs are two queries; a triplet is a query with two documents."""
    sides = ("query", "document", "document") if judged.kind == "triplets" else ("query", "query")
    first, *others = (encode(side, texts) for side, texts in zip(sides, judged.texts, strict=True))
    similar = [sentence_pairs.cosines(first, other) for other in others]
    label = [] if judged.label_N is None else [judged.label_N]
    return sentence_pairs.score(judged.kind, *similar, *label)


def show(name: str, judged: Judged, scored: Mapping[str, Mapping[str, Score]]) -> None:
    """Print a line for each measure of each system."""
    print(f"{name}: {len(judged.texts[0]):,} rows of {judged.kind}")
    width = max(map(len, scored))
    for system, measures in scored.items():
        for measure, (value, interval, _) in measures.items():
            said = f"{value:.4f} ({interval.low:.4f} to {interval.high:.4f})"
            print(f"{system.ljust(width)}  {measure.ljust(8)}  {said}")


def record(path: Path, judged: Judged, scored: Mapping[str, Mapping[str, Score]]) -> dict[str, Any]:
    """What is written: the data, and each value with its interval."""
    systems = {
        system: {
            measure: {"value": found.value, "ci95": list(found.interval[:2]), "n": found.n}
            for measure, found in measures.items()
        }
        for system, measures in scored.items()
    }
    data = {"name": path.stem, "kind": judged.kind, "rows": len(judged.texts[0])}
    protocol = {
        "similarity": "cosine",
        "sides": "query and document of triplets, query of both texts otherwise",
        "intervals": "95 %, percentiles of 2,000 samples of the rows with replacement, seed 0",
    }
    return {"data": data, "protocol": protocol, "systems": systems}
