"""Ranks across modalities equal a loop over all answers, with ties, twins and blocks."""

import json
from pathlib import Path

import numpy as np
import pytest

from contrastive_jax.evaluation import cross_modal


def slow_rank(query, gallery, correct):
    cosine = [float(np.dot(query, g) / np.linalg.norm(query) / np.linalg.norm(g)) for g in gallery]
    cosine = np.round(cosine, 9)
    best = max(c for c, right in zip(cosine, correct, strict=True) if right)
    wrong = [c for c, right in zip(cosine, correct, strict=True) if not right]
    return 1 + sum(c > best for c in wrong) + sum(c == best for c in wrong) / 2


@pytest.mark.parametrize("block", [1, 3, 1024])
def test_ranks_equal_a_loop_with_ties_and_several_correct_answers(monkeypatch, block):
    monkeypatch.setattr(cross_modal, "_QUERIES_AT_ONCE", block)
    rng = np.random.default_rng(0)
    query, gallery = rng.normal(size=(10, 3)), np.tile(rng.normal(size=(7, 3)), (2, 1))
    correct = rng.random((10, 14)) < 0.2
    correct[:, 0] |= ~correct.any(axis=1)
    got = cross_modal.ranks(query, gallery, correct.__getitem__)
    want = [slow_rank(q, gallery, c) for q, c in zip(query, correct, strict=True)]
    np.testing.assert_array_equal(got, want)
    assert np.any(got % 1 == 0.5)  # there were ties


def test_a_query_without_an_answer_is_refused():
    with pytest.raises(ValueError, match="query 1 has no correct answer"):
        cross_modal.ranks(
            np.eye(2), np.eye(2), np.array([[True, False], [False, False]]).__getitem__
        )


def test_each_class_weighs_the_same_in_a_zero_shot_score():
    label = np.array([0] * 8 + [1] * 2)
    row = cross_modal.zero_shot_row(np.zeros(10, int), label, representation="trained", by="x")
    assert (row["value"], row["accuracy"]) == (0.5, 0.8)
    assert row["ci95"] == [0.5, 0.5]  # neither class has any spread


def test_prompts_are_averaged_as_unit_vectors():
    vectors = {
        "a cat": [2.0, 0.0],
        "the cat": [0.0, 5.0],
        "a dog": [1.0, 0.0],
        "the dog": [1.0, 0.0],
    }
    embed = lambda texts: np.array([vectors[text] for text in texts])  # noqa: E731
    got = cross_modal.prompt_vectors(embed, ["cat", "dog"], ["a {}", "the {}"])
    np.testing.assert_allclose(got, [[0.5**0.5, 0.5**0.5], [1.0, 0.0]])
    with pytest.raises(ValueError, match="has no {} for the name"):
        cross_modal.prompt_vectors(embed, ["cat"], ["a cat"])


def test_classes_by_captions_equal_a_loop_over_them(monkeypatch):
    monkeypatch.setattr(cross_modal, "_QUERIES_AT_ONCE", 3)
    rng = np.random.default_rng(0)
    image, text, label = rng.normal(size=(20, 4)), rng.normal(size=(15, 4)), np.arange(15) % 4 + 7
    unit = lambda x: x / np.linalg.norm(x)  # noqa: E731
    want = []
    for z in image:
        of_class = {}
        for y, c in zip(text, label.tolist(), strict=True):
            of_class.setdefault(c, []).append(np.exp(unit(z) @ unit(y) / 0.2))
        want.append(max(of_class, key=lambda c: np.mean(of_class[c])))
    found = cross_modal.classify_by_captions(image, text, label, temperature=0.2)
    assert found.tolist() == want
    assert len(set(want)) == 4


def test_chance_is_the_recall_of_answers_in_a_random_order():
    rng, correct = np.random.default_rng(0), np.arange(7) < np.array([[1], [3]])
    ranks = [
        cross_modal.ranks(q, rng.normal(size=(7, 2)), correct.__getitem__)
        for q in rng.normal(size=(4000, 2, 2))
    ]
    for k in (1, 5, 9):
        seen = np.mean(np.array(ranks) <= k)
        assert cross_modal.chance(correct.sum(axis=1), 7, k) == pytest.approx(seen, abs=0.02)


@pytest.fixture(scope="module")
def open_clip():
    """Embeddings and what open_clip says of them; benchmarks/peers/open_clip_scores.py."""
    return json.loads((Path(__file__).parents[1] / "golden" / "cross_modal.json").read_text())


def metrics_of(image, text):
    """The names and measures of open_clip, from our ranks of pairs."""
    found, own = {}, np.eye(len(image), dtype=bool).__getitem__
    for name, sets in {"image_to_text": (image, text), "text_to_image": (text, image)}.items():
        rank = cross_modal.ranks(*map(np.array, sets), own)
        found |= {f"{name}_mean_rank": rank.mean(), f"{name}_median_rank": np.median(rank)}
        found |= {f"{name}_R@{k}": np.mean(rank <= k) for k in cross_modal.RECALL_AT}
    return found


def test_retrieval_equals_open_clip_on_random_embeddings(open_clip):
    given = open_clip["random"]
    found = metrics_of(given["image"], given["text"])
    for side in ("image_to_text", "text_to_image"):
        found[f"{side}_median_rank"] = np.floor(found[f"{side}_median_rank"])  # as it does
    assert found == pytest.approx(given["metrics"], abs=1e-12)


def test_ties_count_as_open_clip_counts_them_on_average(open_clip):
    given = open_clip["tied"]
    found = metrics_of(given["image"], given["text"])
    for name, value in found.items():
        assert given["min"][name] <= value <= given["max"][name]
        if name.endswith("mean_rank"):
            assert given["min"][name] < value < given["max"][name]  # the order decides there
            assert value == pytest.approx(given["mean"][name], abs=0.1)


def test_the_classifier_of_prompts_equals_that_of_open_clip(open_clip):
    given = open_clip["zero_shot"]
    vector_of = dict(zip(given["texts"], given["embeddings"], strict=True))
    embed = lambda texts: np.array([vector_of[text] for text in texts])  # noqa: E731
    found = cross_modal.prompt_vectors(embed, given["names"], given["prompts"])
    np.testing.assert_allclose(found, given["classifier"], rtol=0, atol=1e-12)
