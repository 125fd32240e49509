"""The registry of protocols: what data cannot support is named from its labels alone."""

import numpy as np
import pytest

from contrastive_jax.evaluation import knn, protocols
from contrastive_jax.evaluation.protocols import Labels, Sets, Settings

ALL = tuple(protocols.PROTOCOLS)


def sets(label, test_label, n_classes, seed=0):
    rng = np.random.default_rng(seed)
    features = [rng.normal(size=(len(y), 4)).astype(np.float32) for y in (label, test_label)]
    return Sets((features[0], label), (features[1], test_label), n_classes)


# Sixty examples of three classes wherever that will do: the probes then compile once.
CASES = {
    "twenty of each": (np.arange(60) % 3, np.arange(12) % 3, 3),
    "one class of three": (np.repeat(np.arange(3), [37, 20, 3]), np.arange(12) % 3, 3),
    "a class without examples": (np.repeat([1, 2], 30), np.array([1, 2, 2]), 3),
    "one test example": (np.arange(60) % 3, np.zeros(1, int), 3),
    "eight examples": (np.arange(8) % 2, np.arange(4) % 2, 2),
    "one class": (np.zeros(20, int), np.zeros(5, int), 1),
    "one of each": (np.arange(4), np.arange(4), 4),
    "no labels": (np.zeros(0, int), np.zeros(0, int), 0),
    "labels of train alone": (np.arange(40) % 4, np.zeros(0, int), 4),
}
# Whole grids, but for what costs time and no other path.
SETTINGS = Settings(probe_steps=3, draws=2).whole_grids()
SETTINGS = SETTINGS._replace(
    l2_grid=(1.0, 0.1), knn=knn.KNN_PROTOCOLS, labels_per_class=(10, 100), label_fractions=(0.1,)
)


def scored(names, given, settings=SETTINGS):
    return list(protocols.score(names, given, settings, representation="noise", layer="x"))


@pytest.mark.parametrize("case", CASES)
def test_what_is_not_left_out_can_be_scored(case):
    """Whatever the labels, no protocol fails that was not named beforehand."""
    label, test_label, n_classes = CASES[case]
    results = scored(ALL, sets(label, test_label, n_classes))
    reasons = protocols.left_out(ALL, Labels(label, test_label, n_classes), SETTINGS)
    names = {row["protocol"]["name"] for row, _ in results}
    expected = {name for name in ALL if name not in reasons and name != "few"}
    assert expected <= names
    for row, predictions in results:
        assert np.isfinite(row["value"])
        assert row["measure"]
        assert predictions is None or predictions.shape == test_label.shape


def test_few_label_probes_that_the_rarest_class_cannot_fill_are_named():
    label, test_label = np.repeat(np.arange(3), [35, 15, 10]), np.arange(12) % 3
    settings = SETTINGS._replace(labels_per_class=(10, 11, 100))
    reasons = protocols.left_out(["few"], Labels(label, test_label, 3), settings)
    assert reasons == {
        "few, 11 labels a class": "class 2 has 10",
        "few, 100 labels a class": "class 2 has 10",
    }
    results = scored(["few"], sets(label, test_label, 3), settings)
    fitted = [(r["protocol"]["labels_per_class"], r["protocol"]["fraction"]) for r, _ in results]
    assert fitted == [(10, None), (None, 0.1)]


@pytest.fixture(scope="module")
def whole_grid():
    """The protocol of every result of kNN, on a bank that is larger than the largest k."""
    label = np.arange(600) % 3
    results = scored(["knn"], sets(label, label, 3), Settings().whole_grids())
    return [row["protocol"] for row, _ in results]


def test_a_protocol_has_one_label_and_two_protocols_have_two(whole_grid):
    others = scored([name for name in ALL if name != "knn"], sets(*CASES["twenty of each"]))
    labels = [protocols.label(p) for p in [*whole_grid, *(row["protocol"] for row, _ in others)]]
    assert len(labels) == len(set(labels))
    assert sum(text.startswith("kNN") for text in labels) == 56 + 1


def test_quoted_are_what_papers_quote_and_what_was_chosen(whole_grid):
    quoted = [p for p in whole_grid if protocols.is_quoted(p)]
    settings = [knn.KnnProtocol(p["k_requested"], p["temperature"]) for p in quoted[:3]]
    assert tuple(settings) == knn.KNN_PROTOCOLS
    assert len(quoted) == 4
