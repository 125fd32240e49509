"""Retrieval measures equal slow loops over a full sort, with ties, and closed forms."""

import json

import numpy as np
import pytest

from contrastive_jax.evaluation import neighbors, retrieval


def slow(query, references, alone, recall_at):
    """Every query sorts all references by (similarity descending, index ascending)."""
    (x, y), (bank, bank_y) = query, references
    unit = [z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, bank)]
    values = {"P@1": [], "R-precision": [], "MAP@R": []} | {f"recall@{k}": [] for k in recall_at}
    for i in range(len(x)):
        order = sorted(
            (j for j in range(len(bank)) if not (alone and i == j)),
            key=lambda j: (-round(float(unit[0][i] @ unit[1][j]), 6), j),
        )
        hits = [bool(bank_y[j] == y[i]) for j in order]
        relevant = sum(hits)
        if not relevant:
            continue
        values["P@1"].append(float(hits[0]))
        values["R-precision"].append(sum(hits[:relevant]) / relevant)
        precision = [sum(hits[: r + 1]) / (r + 1) for r in range(relevant) if hits[r]]
        values["MAP@R"].append(sum(precision) / relevant)
        for k in recall_at:
            values[f"recall@{k}"].append(float(any(hits[:k])))
    return values


@pytest.fixture(scope="module")
def points():
    """Three classes of unequal size and one single example; every fifth row is a copy."""
    rng = np.random.default_rng(0)
    y = np.array([0] * 20 + [1] * 13 + [2] * 6 + [3])
    x = rng.normal(size=(4, 6))[y] + 1.2 * rng.normal(size=(40, 6))
    x[::5] = x[1::5]
    order = rng.permutation(40)
    return x[order].astype(np.float32), y[order]


@pytest.mark.parametrize("alone", [True, False])
def test_measures_equal_slow_loops(points, alone, monkeypatch):
    monkeypatch.setattr(neighbors, "_QUERY_ROWS", 16)  # the last block of queries is not full
    x, y = points
    query = points if alone else (x[17:], y[17:])
    references = points if alone else (x[:17], y[:17])
    found = retrieval.retrieve(query, None if alone else references, recall_at=(1, 3))
    expected = slow(query, references, alone, (1, 3))
    assert set(found.values) == set(expected)
    for measure, values in expected.items():
        np.testing.assert_allclose(found.values[measure], values, rtol=1e-12, err_msg=measure)
    assert len(found.query) == len(values)
    assert found.left_out == len(query[0]) - len(values)
    assert found.left_out == 1


def test_separated_classes_score_one_and_a_stranger_first_costs_what_it_should():
    x, y = np.repeat(np.eye(2, dtype=np.float32), 4, axis=0), np.arange(8) // 4
    perfect = retrieval.retrieve((x, y), recall_at=(1,))
    assert all((value == 1).all() for value in perfect.values.values())
    # Nearest is a stranger, then the R = 2 of the class: P(2) = 1/2, and the third is beyond R.
    bank = np.array([[1.0, 0.0], [1.0, 0.2], [1.0, 0.4]], np.float32), np.array([1, 0, 0])
    one = retrieval.retrieve((bank[0][:1], np.array([0])), bank, recall_at=(1, 2))
    values = {name: value.item() for name, value in one.values.items()}
    expected = {"P@1": 0.0, "R-precision": 0.5, "MAP@R": 0.25, "recall@1": 0.0, "recall@2": 1.0}
    assert values == expected


def test_rows_name_measure_and_protocol(points):
    rows = retrieval.retrieval_rows(
        retrieval.retrieve(points, metric="euclidean"), representation="points", layer="x"
    )
    assert [row["protocol"]["measure"] for row in rows[:3]] == ["P@1", "R-precision", "MAP@R"]
    for row in rows:
        assert json.loads(json.dumps(row)) == row
        assert row["ci95"][0] <= row["value"] <= row["ci95"][1]
        assert row["protocol"]["metric"] == "euclidean"
        assert (row["n"], row["protocol"]["queries_left_out"]) == (39, 1)
    assert rows[0]["ci95_method"] == "wilson"
    assert "bootstrap" in rows[2]["ci95_method"]


def test_what_has_no_value_is_refused(points):
    x, y = points
    with pytest.raises(ValueError, match="no query has another"):
        retrieval.retrieve((x[:3], np.arange(3)))
    with pytest.raises(ValueError, match="recall_at"):
        retrieval.retrieve(points, recall_at=(0,))
