"""Batches in parts by length: every part has its length, and every pair its turn."""

import json

import numpy as np
import pytest

from contrastive_jax import data
from contrastive_jax.data import lengths
from contrastive_jax.data.text import sets, sources

LENGTH_N = np.random.default_rng(0).integers(1, 20, 43).astype(np.int32)
B = 8


@pytest.mark.parametrize("n_classes", [2, 4])
def test_rows_are_in_turn_of_each_class_and_an_epoch_shows_each_once(n_classes):
    split = lengths.split(LENGTH_N, n_classes, B)
    assert split.longest == tuple(sorted(split.longest))
    assert sorted(np.concatenate(split.rows).tolist()) == list(range(43))
    rows_at = lengths.rows_at(split, B, seed=3)
    batches = np.stack([rows_at(step) for step in range(40)])
    for place, row_N in enumerate(split.rows):
        shown = batches[:, place::n_classes].ravel()
        assert LENGTH_N[shown].max() <= split.longest[place]
        whole = len(row_N) // (B // n_classes) * (B // n_classes)
        epochs = shown[: len(shown) // whole * whole].reshape(-1, whole)
        assert all(len(set(epoch) & set(row_N.tolist())) == whole for epoch in epochs.tolist())
        assert (epochs[0] != epochs[1]).any()
    again = lengths.rows_at(split, B, seed=3)
    for step in (39, 2, 17):
        np.testing.assert_array_equal(again(step), batches[step])


def test_a_text_set_is_split_by_its_documents(tmp_path):
    rows = [{"query": f"q {i}", "pos": [" ".join("abcdefgh"[: 1 + i % 8])]} for i in range(30)]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus = sources.read("pairs", path=path)
    dataset = sets.dataset(corpus, sets.settings(80, 8, 12), batch_size=4, length_buckets=2)
    feed = data.feed(dataset.train, 4, 0, None, dataset.texts.lengths)
    longest = dataset.texts.for_objectives()["longest"]
    for step in range(6):
        length_BG = dataset.train["document_length"][feed.batch_at(step)["index"]].reshape(-1, 2)
        assert (length_BG <= longest).all()
    assert longest[0] < longest[1]


@pytest.mark.parametrize("n_classes", [0, 3, 5])
def test_parts_that_do_not_fill_a_batch_are_refused(n_classes):
    assert lengths.split(LENGTH_N, 1, B) is None
    with pytest.raises(ValueError, match=f"length_buckets is {n_classes} and data.batch_size 8"):
        lengths.split(LENGTH_N, n_classes, B)
