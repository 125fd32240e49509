"""Freeze what open_clip says of retrieval and prompts; the tests compare `cross_modal` with it.

pip install open_clip_torch && python -m benchmarks.peers.open_clip_scores

Writes tests/golden/cross_modal.json: embeddings at random and with ties, open_clip's ranks and
recalls of them, and its zero-shot classifier. Which of two tied answers comes first is a matter of
their order there, so tied ones are ranked in many orders.
"""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from open_clip.zero_shot_classifier import build_zero_shot_classifier
from open_clip_train.train import get_clip_metrics

TARGET = Path(__file__).parents[2] / "tests" / "golden" / "cross_modal.json"
ORDERS = 400
NAMES, PROMPTS = ["cat", "dog", "grand piano"], ["a {}", "a photo of a {}.", "{}"]


def main() -> None:
    rng = np.random.default_rng(0)
    image, text = (rng.integers(-9, 10, (24, 6)) / 8 for _ in range(2))
    tied_image, tied_text = (rng.integers(0, 2, (24, 3)) * 2.0 - 1 for _ in range(2))
    found = {
        "source": f"open_clip_torch {version('open_clip_torch')}",
        "random": {
            "image": image.tolist(),
            "text": text.tolist(),
            "metrics": metrics(image, text),
        },
        "tied": {
            "image": tied_image.tolist(),
            "text": tied_text.tolist(),
            "orders": ORDERS,
            **tied(tied_image, tied_text, rng),
        },
        "zero_shot": zero_shot(rng),
    }
    TARGET.write_text(json.dumps(found))
    print(f"{found['source']}: {TARGET}")


def metrics(image: np.ndarray, text: np.ndarray) -> dict[str, float]:
    """What open_clip says of pairs of rows, scaled to unit length as its evaluation does."""
    pair = (torch.nn.functional.normalize(torch.from_numpy(x), dim=-1) for x in (image, text))
    return {name: float(value) for name, value in get_clip_metrics(*pair, 1.0).items()}


def tied(image: np.ndarray, text: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
    """The mean, the least and the largest of each metric over random orders of the pairs."""
    orders = [rng.permutation(len(image)) for _ in range(ORDERS)]
    each = [metrics(image[order], text[order]) for order in orders]
    return {
        kind: {name: float(of([one[name] for one in each])) for name in each[0]}
        for kind, of in {"mean": np.mean, "min": np.min, "max": np.max}.items()
    }


def zero_shot(rng: np.random.Generator) -> dict[str, Any]:
    """The classifier of a model that looks texts up in a table."""
    texts = [prompt.format(name) for name in NAMES for prompt in PROMPTS]
    table = rng.integers(-9, 10, (len(texts), 6)) / 8.0

    class Model:
        def encode_text(self, index: torch.Tensor, normalize: bool = False) -> torch.Tensor:
            found = torch.from_numpy(table)[index]
            return torch.nn.functional.normalize(found, dim=-1) if normalize else found

    def tokenizer(given: list[str]) -> torch.Tensor:
        return torch.tensor([texts.index(text) for text in given])

    weights_DC = build_zero_shot_classifier(Model(), tokenizer, NAMES, PROMPTS)
    described = {"names": NAMES, "prompts": PROMPTS, "texts": texts, "embeddings": table.tolist()}
    return {**described, "classifier": weights_DC.T.tolist()}


if __name__ == "__main__":
    main()
