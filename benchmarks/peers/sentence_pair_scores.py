"""Freeze what sentence-transformers says of pairs and triplets; the tests compare with it.

python -m benchmarks.peers.sentence_pair_scores

Writes tests/golden/sentence_pairs.json: vectors of whole numbers, random and with many ties, and
the scores of EmbeddingSimilarityEvaluator, BinaryClassificationEvaluator and TripletEvaluator on
them. The lengths of the vectors are powers of two, so that cosines are exact and ties are ties.
"""

import itertools
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import evaluation
from sentence_transformers.sentence_transformer.modules import Normalize

TARGET = Path(__file__).parents[2] / "tests" / "golden" / "sentence_pairs.json"
N = 60
LENGTHS = (2, 4, 8, 16)


class Given(SentenceTransformer):
    """A model whose texts are names of vectors."""

    def __init__(self, vector_of: dict[str, np.ndarray]):
        super().__init__(modules=[Normalize()], device="cpu")
        self.vector_of = vector_of

    def encode(self, inputs: list[str], **settings: Any) -> np.ndarray:
        del settings
        return np.array([self.vector_of[name] for name in inputs], np.float32)


def vectors(rng: np.random.Generator, largest: int) -> np.ndarray:
    """Choose whole vectors [3N,4] whose lengths are powers of two, of entries up to a number."""
    numbers = range(-largest, largest + 1)
    every = [x for x in itertools.product(numbers, repeat=4) if np.linalg.norm(x) in LENGTHS]
    return rng.choice(np.array(every), 3 * N)


def expected(x_ND: np.ndarray, score_N: np.ndarray, label_N: np.ndarray) -> dict[str, float]:
    names = [f"t{i}" for i in range(len(x_ND))]
    model = Given(dict(zip(names, x_ND, strict=True)))
    first, second, third = names[:N], names[N : 2 * N], names[2 * N :]
    evaluators = {
        "": evaluation.EmbeddingSimilarityEvaluator(
            first, second, score_N.tolist(), similarity_fn_names=["cosine"]
        ),
        "classes": evaluation.BinaryClassificationEvaluator(
            first, second, label_N.tolist(), similarity_fn_names=["cosine"]
        ),
        "triplets": evaluation.TripletEvaluator(
            first, second, third, similarity_fn_names=["cosine"]
        ),
    }
    found: dict[str, float] = {}
    for evaluator in evaluators.values():
        evaluator.store_metrics_in_model_card_data = lambda *args: None
        found |= evaluator(model)
    names_of = {"spearman_cosine": "Spearman", "pearson_cosine": "Pearson", "cosine_ap": "AP"}
    names_of |= {"cosine_f1": "best F1", "cosine_accuracy": "accuracy"}
    pair_accuracy = evaluators["classes"](model)["cosine_accuracy"]
    assert pair_accuracy != found["cosine_accuracy"], "two measures have one name"
    said = {ours: float(found[theirs]) for theirs, ours in names_of.items()}
    return {**said, "accuracy": round(said["accuracy"] * N) / N}  # theirs is rounded to float32


def main() -> None:
    rng = np.random.default_rng(0)
    cases = []
    for largest, levels in ((1, 3), (2, 6), (12, 1000)):  # from nearly all ties to few
        x_ND, score_N = vectors(rng, largest), rng.integers(0, levels, N)
        label_N = rng.integers(0, 2, N)
        said = expected(x_ND, score_N, label_N)
        given = {"x": x_ND.tolist(), "score": score_N.tolist(), "label": label_N.tolist()}
        cases.append({**given, "expected": said})
        print(largest, said)
    source = f"sentence-transformers {version('sentence-transformers')}"
    TARGET.write_text(json.dumps({"source": source, "cases": cases}) + "\n")


if __name__ == "__main__":
    main()
