"""The registry of protocols: what data cannot support is named from its labels alone."""

import numpy as np
import pytest

from contrastive_jax.evaluation import protocols
from contrastive_jax.evaluation.protocols import Labels, Sets, Settings

ALL = tuple(protocols.PROTOCOLS)


def sets(label, test_label, n_classes, seed=0):
    rng = np.random.default_rng(seed)
    features = [rng.normal(size=(len(y), 4)).astype(np.float32) for y in (label, test_label)]
    return Sets((features[0], label), (features[1], test_label), n_classes)


CASES = {
    "twenty of each": (np.arange(60) % 3, np.arange(12) % 3, 3),
    "one class of three": (np.repeat(np.arange(3), [40, 30, 3]), np.arange(12) % 3, 3),
    "a class without examples": (np.repeat([1, 2], 20), np.array([1, 2, 2]), 3),
    "eight examples": (np.arange(8) % 2, np.arange(4) % 2, 2),
    "one test example": (np.arange(40) % 4, np.zeros(1, int), 4),
    "one class": (np.zeros(20, int), np.zeros(5, int), 1),
    "one of each": (np.arange(4), np.arange(4), 4),
    "no labels": (np.zeros(0, int), np.zeros(0, int), 0),
    "labels of train alone": (np.arange(40) % 4, np.zeros(0, int), 4),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("whole", [False, True], ids=["summary", "whole grids"])
def test_what_is_not_left_out_can_be_scored(case, whole):
    """Whatever the labels, no protocol fails that was not named beforehand."""
    label, test_label, n_classes = CASES[case]
    settings = Settings(l2_grid=(1.0, 0.1), probe_steps=3, draws=2)
    if whole:
        settings = settings.whole_grids()._replace(l2_grid=(1.0, 0.1), knn=settings.knn)
    given = sets(label, test_label, n_classes)
    scored = list(protocols.score(ALL, given, settings, representation="noise", layer="x"))
    names = {row["protocol"]["name"] for row, _ in scored}
    reasons = protocols.left_out(ALL, Labels(label, test_label, n_classes), settings)
    expected = {"few": "few-label"}
    for name in ALL:
        if name not in reasons and name != "few":
            assert expected.get(name, name) in names
    for row, predictions in scored:
        assert np.isfinite(row["value"])
        assert row["measure"]
        assert predictions is None or predictions.shape == test_label.shape


def test_few_label_probes_that_the_rarest_class_cannot_fill_are_named():
    label = np.repeat(np.arange(3), [40, 12, 9])
    settings = Settings(labels_per_class=(1, 5, 10, 100), label_fractions=(0.1,), probe_steps=3)
    settings = settings._replace(draws=2)
    given = sets(label, np.arange(6) % 3, 3)
    reasons = protocols.left_out(["few"], Labels(label, np.arange(6) % 3, 3), settings)
    assert reasons == {
        "few, 10 labels a class": "class 2 has 9",
        "few, 100 labels a class": "class 2 has 9",
    }
    scored = list(protocols.score(["few"], given, settings, representation="noise", layer="x"))
    asked = [(r["protocol"]["labels_per_class"], r["protocol"]["fraction"]) for r, _ in scored]
    assert asked == [(1, None), (5, None), (None, 0.1)]


def test_a_protocol_has_one_label_and_two_protocols_have_two():
    label = np.arange(600) % 3
    settings = Settings(probe_steps=3, draws=2).whole_grids()._replace(l2_grid=(1.0,))
    scored = protocols.score(
        ALL, sets(label, label, 3), settings, representation="noise", layer="x"
    )
    labels = [protocols.label(row["protocol"]) for row, _ in scored]
    assert len(labels) == len(set(labels))
    assert sum(text.startswith("kNN") for text in labels) == 56 + 1


def test_quoted_are_what_papers_quote_and_what_was_chosen():
    label = np.arange(600) % 3
    settings = Settings().whole_grids()
    scored = protocols.score(
        ["knn"], sets(label, label, 3), settings, representation="noise", layer="x"
    )
    quoted = [row["protocol"] for row, _ in scored if protocols.is_quoted(row["protocol"])]
    assert [(p["k_requested"], p["temperature"]) for p in quoted[:3]] == [
        (10, None), (20, 0.07), (200, 0.1),
    ]  # fmt: skip
    assert len(quoted) == 4
