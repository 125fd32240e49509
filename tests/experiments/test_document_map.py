"""The map of documents: the largest groups, each document with the color of its own."""

import numpy as np

from contrastive_jax import figures
from contrastive_jax.data.text import collection
from experiments.scoring import document_map


def test_documents_of_the_largest_groups_keep_their_vectors_and_groups(tmp_path, monkeypatch):
    group_of = [f"g{n % 12 if n < 36 else n % 5}" for n in range(60)]  # two of twelve are left out
    pairs = [(f"asks {n}", (f"text {n}",)) for n in range(60)]
    target = collection.of_pairs("made up", "test", pairs)
    groups = {key: group_of[int(text.split()[1])] for key, text in target.documents.items()}
    groups.pop("d0")  # one document of no known group
    seen = {}

    def kept(path, x_ND, label_N, names, seed, of):
        seen.update(x=x_ND, label=label_N, names=names)
        return draw(path, x_ND, label_N, names, seed, of=of)

    draw = figures.embedding_map
    monkeypatch.setattr(figures, "embedding_map", kept)
    x_ND = np.eye(60, dtype=np.float32)
    document_map.draw(target._replace(groups=groups), x_ND, 0, tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes()[:4] == b"\x89PNG"
    rows = seen["x"].argmax(axis=1)
    assert 0 not in rows
    assert [seen["names"][label] for label in seen["label"]] == [group_of[row] for row in rows]
    assert len(seen["names"]) == 10
    assert set(seen["names"]) >= {f"g{n}" for n in range(5)}
    assert len(rows) == 60 - 1 - 2 * 3
