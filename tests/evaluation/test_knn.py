"""Neighbors and votes equal slow NumPy loops, ties and duplicates included."""

import json
from collections import Counter

import jax
import numpy as np
import pytest

from contrastive_jax import parallel
from contrastive_jax.evaluation import knn, neighbors
from contrastive_jax.evaluation.knn import KNN_PROTOCOLS, KnnProtocol
from contrastive_jax.evaluation.neighbors import knn_neighbors
from contrastive_jax.evaluation.results import stratified_split


def slow_similarity(bank, query, metric="cosine", leave_one_out=False):
    bank, query = bank.astype(np.float64), query.astype(np.float64)
    if metric == "cosine":
        similarity = unit(query) @ unit(bank).T
    else:
        similarity = -np.linalg.norm(query[:, None] - bank[None], axis=2)
    if leave_one_out:
        np.fill_diagonal(similarity, -np.inf)
    return similarity


def unit(x):
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-30)


def slow_neighbors(similarity, k):
    """Sorts every row by (similarity descending, index ascending)."""
    index = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(similarity, index, axis=1), index


def slow_vote(similarity, labels, protocol):
    votes = Counter()
    for s, label in list(zip(similarity, labels, strict=True))[: protocol.k]:
        votes[label] += 1.0 if protocol.temperature is None else np.exp(s / protocol.temperature)
    return min(votes, key=lambda label: (-votes[label], label))


@pytest.fixture(scope="module")
def blobs():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 5, size=330)
    center = rng.normal(size=(5, 8))
    return (center[label] + 1.3 * rng.normal(size=(330, 8))).astype(np.float32), label


def images(n):
    return np.random.default_rng(1).integers(0, 256, size=(n, 2, 2, 3), dtype=np.uint8)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("leave_one_out", [False, True])
def test_neighbors_equal_a_full_sort(blobs, metric, leave_one_out, monkeypatch):
    monkeypatch.setattr(
        neighbors, "_QUERY_ROWS", 64
    )  # neither tiles nor query blocks come out even
    bank = blobs[0][:170]
    query = bank if leave_one_out else blobs[0][170:]
    with jax.transfer_guard("disallow"):
        found, index = knn_neighbors(
            bank, query, k=20, metric=metric, leave_one_out=leave_one_out, block_size=48
        )
    every = slow_similarity(bank, query, metric, leave_one_out)
    best = slow_neighbors(every, 20)[0]
    np.testing.assert_allclose(found, best, rtol=1e-4, atol=1e-5)
    # By similarity, as float32 may swap two that differ in the eighth digit.
    np.testing.assert_allclose(np.take_along_axis(every, index, axis=1), best, rtol=1e-5, atol=1e-6)
    assert all(len(set(row)) == 20 for row in index.tolist())


@pytest.mark.parametrize("block_size", [3, 100])  # tiles that do not come out even, and one
@pytest.mark.parametrize("leave_one_out", [False, True])
def test_equal_similarities_go_to_the_lower_index_across_tiles(block_size, leave_one_out):
    rng = np.random.default_rng(3)
    bank = np.eye(4, dtype=np.float32)[rng.integers(0, 3, size=11)]  # duplicates, exact in float32
    bank[5] = 0.0
    query = bank if leave_one_out else np.eye(4, dtype=np.float32)
    found = knn_neighbors(bank, query, k=7, leave_one_out=leave_one_out, block_size=block_size)
    expected = slow_neighbors(slow_similarity(bank, query, leave_one_out=leave_one_out), 7)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def test_cosine_ignores_lengths_and_a_uint8_bank_needs_no_conversion(blobs):
    bank, query = (blobs[0][rows] for rows in (slice(0, 60), slice(60, 70)))
    one = knn_neighbors(bank, query, k=5)[1]
    other = knn_neighbors(bank * np.linspace(1, 9, 60, dtype=np.float32)[:, None], 7 * query, k=5)[
        1
    ]
    np.testing.assert_array_equal(one, other)
    pixels = images(20).reshape(20, -1)
    np.testing.assert_array_equal(
        knn_neighbors(pixels, pixels[:4], k=5)[1],
        slow_neighbors(slow_similarity(pixels, pixels[:4]), 5)[1],
    )


@pytest.mark.parametrize("protocol", [KnnProtocol(1), *KNN_PROTOCOLS, KnnProtocol(20, 1e-4)])
def test_votes_equal_a_slow_count(blobs, protocol):
    similarity, index = slow_neighbors(slow_similarity(blobs[0][:250], blobs[0][250:]), 200)
    labels = blobs[1][index]
    shifted = similarity - similarity[:, :1]  # so that the slow loop survives a tiny temperature
    slow = [slow_vote(s, label, protocol) for s, label in zip(shifted, labels, strict=True)]
    np.testing.assert_array_equal(knn.knn_predict(similarity, labels, protocol), slow)


def test_a_tied_vote_goes_to_the_lowest_class():
    labels = np.array([[3, 1, 1, 3], [2, 0, 2, 0]])
    predicted = knn.knn_predict(np.ones((2, 4)), labels, KnnProtocol(4))
    np.testing.assert_array_equal(predicted, [1, 0])


def test_three_protocols_come_from_one_search(blobs, monkeypatch):
    searches = []
    real = neighbors.blocks
    monkeypatch.setattr(
        neighbors, "blocks", lambda *a, **kw: searches.append(a[2]) or real(*a, **kw)
    )
    bank, query = (tuple(part[rows] for part in blobs) for rows in (slice(0, 250), slice(250, 330)))
    rows = knn.knn_rows(bank, query, representation="blobs", layer="features")
    assert searches == [200]
    assert [(row["protocol"]["k"], row["protocol"]["temperature"]) for row in rows] == [
        (10, None),
        (20, 0.07),
        (200, 0.1),
    ]
    for row, protocol in zip(rows, KNN_PROTOCOLS, strict=True):
        similarity, index = slow_neighbors(slow_similarity(bank[0], query[0]), protocol.k)
        pairs = zip(similarity, bank[1][index], strict=True)
        slow = np.mean(
            [slow_vote(*pair, protocol) == y for pair, y in zip(pairs, query[1], strict=True)]
        )
        assert row["value"] == slow
        assert row["ci95"][0] < slow < row["ci95"][1]
    assert 0.3 < rows[0]["value"] < 1.0
    assert json.loads(json.dumps(rows)) == rows


@pytest.mark.parametrize("block_size", [4, 100])
def test_duplicates_go_to_the_lower_index_under_both_metrics_of_one_pass(block_size):
    bank = np.random.default_rng(3).integers(-3, 4, size=(5, 4)).astype(np.float32)
    bank = bank[[0, 1, 2, 0, 3, 1, 4, 0, 2, 4, 0]]  # small integers: distances are exact
    parts = neighbors.blocks(bank, bank, 6, leave_one_out=True, block_size=block_size)
    _, index = neighbors.join(parts)["euclidean"]
    every = slow_similarity(bank, bank, "euclidean", leave_one_out=True)
    np.testing.assert_array_equal(index, slow_neighbors(every, 6)[1])
    assert index[0].tolist()[:3] == [3, 7, 10]  # its duplicates, itself skipped


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_duplicates_of_any_features_are_equally_near_wherever_they_stand(metric):
    rng = np.random.default_rng(4)
    copy_M = rng.integers(0, 30, size=401)  # tiles of 37 and a last one that is not full
    bank = rng.normal(size=(30, 33)).astype(np.float32)[copy_M]
    query = rng.normal(size=(20, 33)).astype(np.float32)
    similarity, index = knn_neighbors(bank, query, k=300, metric=metric, block_size=37)
    for near, row in zip(similarity, index, strict=True):
        for copy in np.unique(copy_M[row]):
            same = copy_M[row] == copy
            assert len(set(near[same])) == 1
            every = np.flatnonzero(copy_M == copy)
            np.testing.assert_array_equal(row[same], every[: same.sum()])  # the lower ones first


@pytest.mark.parametrize("leave_one_out", [False, True])
def test_any_number_of_devices_finds_what_one_finds_ties_included(leave_one_out, monkeypatch):
    monkeypatch.setattr(neighbors, "_QUERY_ROWS", 32)
    bank = np.random.default_rng(5).integers(-2, 3, size=(45, 3)).astype(np.float32)  # many ties
    query = bank if leave_one_out else bank[::4] + 1
    every = slow_similarity(bank, query, "euclidean", leave_one_out)
    for block_size, k in ((4, 7), (7, 45), (100, 3)):  # 12 tiles, 7 and one; k of a shard and more
        k = min(k, 45 - leave_one_out)

        def search(count, k=k, block_size=block_size):
            options = (neighbors.METRICS, leave_one_out, block_size, jax.devices()[:count])
            return neighbors.join(neighbors.blocks(bank, query, k, *options))

        one = search(1)
        np.testing.assert_array_equal(one["euclidean"][1], slow_neighbors(every, k)[1])
        for count in (2, 4, 8):
            many = search(count)
            for metric in neighbors.METRICS:
                np.testing.assert_array_equal(many[metric][0], one[metric][0])
                np.testing.assert_array_equal(many[metric][1], one[metric][1])


def test_a_device_holds_its_part_of_the_bank_alone():
    shape = {"k": 20, "metrics": ("cosine",), "block_size": 128}

    def bytes_of(count):
        mesh = parallel.make_mesh(jax.devices()[:count])
        split, whole = parallel.batched(mesh), parallel.replicated(mesh)
        bank = jax.ShapeDtypeStruct((8192, 64), np.float32, sharding=split)
        query = jax.ShapeDtypeStruct((16, 64), np.float32, sharding=whole)
        place = jax.ShapeDtypeStruct((16,), np.int32, sharding=whole)
        size = jax.ShapeDtypeStruct((), np.int32, sharding=whole)
        lowered = neighbors._nearest.lower(bank, query, place, size, mesh=mesh, **shape)
        used = lowered.compile().memory_analysis()
        return used.argument_size_in_bytes + used.temp_size_in_bytes

    assert bytes_of(8) < bytes_of(1) / 4


def test_integer_distances_are_exact():
    pixels = np.random.default_rng(6).integers(0, 256, size=(60, 48), dtype=np.uint8)
    similarity, index = knn_neighbors(pixels, pixels, k=60, metric="euclidean", block_size=7)
    every = slow_similarity(pixels, pixels, "euclidean").astype(np.float32)
    np.testing.assert_array_equal(similarity, slow_neighbors(every, 60)[0])
    np.testing.assert_array_equal(index, slow_neighbors(every, 60)[1])


def test_two_metrics_from_one_pass_are_the_searches_of_each(blobs, monkeypatch):
    monkeypatch.setattr(neighbors, "_QUERY_ROWS", 64)
    bank, query = blobs[0][:170], blobs[0][170:]
    jointly = neighbors.join(neighbors.blocks(bank, query, 20, block_size=48))
    for metric, found in jointly.items():
        alone = knn_neighbors(bank, query, k=20, metric=metric, block_size=48)
        for part, expected in zip(found, alone, strict=True):
            np.testing.assert_array_equal(part, expected)


def test_the_chosen_protocol_is_the_best_on_examples_that_do_not_vote(blobs):
    bank, query = (tuple(part[rows] for part in blobs) for rows in (slice(0, 250), slice(250, 330)))
    names = {"representation": "blobs", "layer": "x"}
    grid = (KnnProtocol(1), KnnProtocol(5), KnnProtocol(50, 0.5))
    chosen = knn.knn_chosen(bank, query, protocols=grid, **names)
    vote, held = stratified_split(bank[1], 0.1, 0)
    tried = [
        knn.knn_rows(
            tuple(part[vote] for part in bank),
            tuple(part[held] for part in bank),
            protocols=grid,
            metrics=(metric,),
            **names,
        )
        for metric in ("cosine", "euclidean")
    ]
    accuracies = [row["value"] for rows in tried for row in rows]
    assert chosen.row["protocol"]["validation_accuracy"] == max(accuracies)
    metric, k, _ = chosen.row["protocol"]["grid"][int(np.argmax(accuracies))]
    assert (chosen.row["protocol"]["metric"], chosen.row["protocol"]["k"]) == (metric, k)
    assert chosen.row["value"] == np.mean(chosen.predictions == query[1])
    other = knn.knn_chosen(bank, (query[0], query[1][::-1]), protocols=grid, **names)
    np.testing.assert_array_equal(other.predictions, chosen.predictions)


def test_k_beyond_the_bank_is_clipped_and_the_row_says_so(blobs):
    bank, query = (tuple(part[rows] for part in blobs) for rows in (slice(0, 30), slice(30, 60)))
    row = knn.knn_rows(bank, query, representation="blobs", layer="features")[2]
    assert (row["protocol"]["k"], row["protocol"]["k_requested"]) == (30, 200)
    assert row["protocol"]["bank_size"] == row["n"] == 30


def test_what_cannot_be_searched_is_refused(blobs):
    x, y = blobs
    bad = np.where(np.arange(330)[:, None] == 17, np.nan, x)
    for match, call in {
        "row 17": lambda: knn_neighbors(x, bad, k=1),
        "share D": lambda: knn_neighbors(x, x[:, :3], k=1),
        "manhattan": lambda: knn_neighbors(x, x, k=1, metric="manhattan"),
        "k >= 1": lambda: knn_neighbors(x, x, k=0),
        "bank itself": lambda: knn_neighbors(x, x[:3], k=1, leave_one_out=True),
        "unlabeled": lambda: knn.knn_rows((x, y - 1), (x, y), representation="", layer=""),
        "integer label": lambda: knn.knn_rows((x, y), (x, y[:9]), representation="", layer=""),
    }.items():
        with pytest.raises(ValueError, match=match):
            call()
