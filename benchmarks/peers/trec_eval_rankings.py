"""Freeze what trec_eval says of random and tied rankings; the tests compare `ranking` with it.

pip install pytrec-eval-terrier && python -m benchmarks.peers.trec_eval_rankings

Writes tests/golden/ranking.json: the rankings, the judgements, and for each query the measures of
pytrec_eval. Scores are multiples of 1/8, because trec_eval keeps them as float32.
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytrec_eval

TARGET = Path(__file__).parents[2] / "tests" / "golden" / "ranking.json"
AT = (1, 3, 10, 40)
NAMES = {"nDCG": "ndcg_cut", "MAP": "map_cut", "recall": "recall", "precision": "P"}


def main() -> None:
    rng = np.random.default_rng(0)
    documents = [f"d{i}" for i in range(60)]
    results, grades = {}, {}
    for row in range(24):
        levels = (4, 400)[row % 2]  # of scores: many ties, few ties
        found = rng.choice(documents, size=rng.integers(1, 41), replace=False).tolist()
        judged = rng.choice(documents, size=rng.integers(1, 30), replace=False).tolist()
        results[f"q{row}"] = {d: int(rng.integers(levels)) / 8 for d in found}
        grades[f"q{row}"] = {d: int(rng.integers(4)) for d in judged}
        grades[f"q{row}"][judged[0]] = 2
    wanted = {f"{name}.{','.join(map(str, AT))}" for name in NAMES.values()} | {"recip_rank"}
    scored = pytrec_eval.RelevanceEvaluator(grades, wanted).evaluate(results)
    expected = {
        f"{ours}@{k}": [scored[query][f"{theirs}_{k}"] for query in grades]
        for ours, theirs in NAMES.items()
        for k in AT
    }
    expected["MRR@60"] = [scored[query]["recip_rank"] for query in grades]
    source = f"pytrec-eval-terrier {version('pytrec-eval-terrier')}"
    record = {"source": source, "results": results, "grades": grades, "expected": expected}
    TARGET.write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
