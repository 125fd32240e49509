"""A map of the documents of a collection, colored by what they come from."""

from collections import Counter
from pathlib import Path

import numpy as np

from contrastive_jax import figures
from contrastive_jax.data.text.collection import Collection

SHOWN, GROUPS = 1000, 10  # documents at most, of the largest groups


def draw(target: Collection, document_ND: np.ndarray, seed: int, path: Path) -> None:
    """Draw documents of the largest groups, at random."""
    group_N = np.array([target.groups.get(document, "") for document in target.documents])
    names = [name for name, _ in Counter(group_N[group_N != ""].tolist()).most_common(GROUPS)]
    rows = np.flatnonzero(np.isin(group_N, names))
    rows = np.sort(np.random.default_rng(seed).permutation(rows)[:SHOWN])
    label_N = np.array([names.index(group) for group in group_N[rows]])
    figures.embedding_map(path, document_ND[rows], label_N, names, seed, of="document")
