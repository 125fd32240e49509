"""The tables of a report: which rows they show, and paired tests on the same test images."""

import numpy as np
import pytest

from experiments.reporting import scores
from experiments.reporting.folders import Run

KNN = {"name": "knn", "metric": "cosine", "k": 10, "k_requested": 10, "temperature": None}
NAMES = {"representation": "trained", "layer": "features"}


def row_of(protocol, accuracy, **others):
    return {**NAMES, "protocol": protocol, "accuracy": accuracy, **others}


def run_of(folder, name, evaluations=(), **kept):
    """A run whose folder has an evaluation, and the predictions `kept` of it."""
    folder = folder / name
    (folder / "results").mkdir(parents=True)
    if kept:
        np.savez(folder / "results" / "evaluation.npz", **kept)
    results = {"evaluation": {"step": 5, "evaluations": list(evaluations)}}
    return Run(name, folder, {}, "", {}, [{"step": 5}], results, {}, {})


def test_of_the_knn_grid_the_table_shows_what_is_quoted_and_what_was_chosen(tmp_path):
    rows = [
        row_of(KNN, 0.501),
        row_of({**KNN, "k": 50, "k_requested": 50}, 0.502),
        row_of({**KNN, "metric": "euclidean"}, 0.503),
        row_of({**KNN, "k": 7, "k_requested": 7, "selection": "held-out"}, 0.504),
    ]
    table, _, every = scores.scores([run_of(tmp_path, "a", rows)]).partition("<details")
    assert [n in table for n in ("50.1", "50.2", "50.3", "50.4")] == [True, False, False, True]
    assert all(n in every for n in ("50.10", "50.20", "50.30", "50.40"))


def test_what_was_chosen_is_compared_between_runs_even_where_the_choice_differs(tmp_path):
    runs = [
        run_of(tmp_path, name, [row_of({**KNN, "k": k, "selection": "held-out"}, 0.5)])
        for name, k in (("a", 1), ("b", 200))
    ]
    table, _, _ = scores.scores(runs).partition("<details")
    assert table.count("kNN, chosen") == 1
    assert table.count("<b>50.0</b>") == 2


@pytest.fixture
def two_runs(tmp_path):
    label = np.arange(100) % 4
    key = "trained/features/ridge"
    rows = [row_of({"name": "ridge"}, 0.5, predictions=key)]
    one, other = label.copy(), label.copy()
    one[:40] += 1  # 60 right
    other[:10] += 1  # 90 right, and all that the first has
    return [
        run_of(tmp_path, "a", rows, **{key: one, "label": label}),
        run_of(tmp_path, "b", rows, **{key: other, "label": label}),
    ]


def test_paired_tests_are_of_the_test_images_that_both_runs_saw(two_runs):
    shown = scores.paired_tests(two_runs)
    assert "b minus a" in shown
    assert "<td>+30.0</td>" in shown
    assert "<td>100</td>" in shown
    assert f"<td>{2 * 0.5**30:.2g}</td>" in shown  # 30 to 0, two-sided


def test_no_paired_test_without_the_same_images_or_a_second_evaluation(two_runs, tmp_path):
    first, second = two_runs
    assert scores.paired_tests([first]) == ""
    assert scores.paired_tests([first, run_of(tmp_path, "c")]) == ""
    path = second.folder / "results" / "evaluation.npz"
    with np.load(path) as file:
        kept = {**file, "label": file["label"][::-1]}
    np.savez(path, **kept)
    assert scores.paired_tests(two_runs) == ""
