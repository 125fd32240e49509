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
    return Run(name, folder, "simclr", {}, {}, [{"step": 5}], results, {}, {})


def shown(runs):
    """The numbers of the one table, by protocol."""
    (table,) = scores.tables(runs)
    values = [
        [cell and round(cell["value"], 1) for cell in line["cells"]] for line in table["lines"]
    ]
    return list(zip([line["protocol"] for line in table["lines"]], values, strict=True))


def test_of_the_knn_grid_the_table_shows_what_is_quoted_and_what_was_chosen(tmp_path):
    rows = [
        row_of(KNN, 0.501),
        row_of({**KNN, "k": 50, "k_requested": 50}, 0.502),
        row_of({**KNN, "metric": "euclidean"}, 0.503),
        row_of({**KNN, "k": 7, "k_requested": 7, "selection": "held-out"}, 0.504),
    ]
    numbers = [value for _, values in shown([run_of(tmp_path, "a", rows)]) for value in values]
    assert numbers == [50.1, 50.4]


def test_what_was_chosen_is_compared_between_runs_even_where_the_choice_differs(tmp_path):
    runs = [
        run_of(tmp_path, name, [row_of({**KNN, "k": k, "selection": "held-out"}, 0.5)])
        for name, k in (("a", 1), ("b", 200))
    ]
    assert shown(runs) == [("kNN, chosen", [50.0, 50.0])]


def test_rows_of_either_schema_are_read_and_another_measure_is_named(tmp_path):
    rows = [
        row_of({"name": "ridge"}, 0.25),
        {**NAMES, "protocol": {"name": "linear"}, "measure": "accuracy", "value": 0.5},
        {**NAMES, "protocol": {"name": "ranking"}, "measure": "MAP@R", "value": 0.75},
    ]
    (table,) = scores.tables([run_of(tmp_path, "a", rows)])
    cells = [line["cells"][0] for line in table["lines"]]
    found = [(cell["value"], cell["measure"]) for cell in cells]
    assert found == [(25.0, ""), (50.0, ""), (75.0, "MAP@R")]
    assert "measure: MAP@R" in cells[2]["protocol"]


def test_a_run_that_lacks_a_score_has_an_empty_cell_in_its_line(tmp_path):
    ridge, linear = row_of({"name": "ridge"}, 0.5), row_of({"name": "linear"}, 0.25)
    runs = [run_of(tmp_path, "a", [ridge, linear]), run_of(tmp_path, "b", [linear])]
    assert [values for _, values in shown(runs)] == [[50.0, None], [25.0, 25.0]]


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
    (found,) = scores.paired_tests(two_runs)
    assert (found["name"], found["other"]) == ("b", "a")
    (test,) = found["tests"].values()
    assert (test["n"], round(test["difference"], 6)) == (100, 0.3)
    assert test["mcnemar"]["p_value"] == pytest.approx(2 * 0.5**30)  # 30 to 0, two-sided


def test_no_paired_test_without_the_same_images_or_a_second_evaluation(two_runs, tmp_path):
    first, second = two_runs
    assert scores.paired_tests([first]) == []
    assert scores.paired_tests([first, run_of(tmp_path, "c")]) == []
    path = second.folder / "results" / "evaluation.npz"
    with np.load(path) as file:
        kept = {**file, "label": file["label"][::-1]}
    np.savez(path, **kept)
    assert scores.paired_tests(two_runs) == []
