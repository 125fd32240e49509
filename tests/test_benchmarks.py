"""The benchmarks' arithmetic: the clock that stops for evaluation, FLOP, equal work, the table."""

import argparse
import doctest
import importlib
import json
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def module(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module


def test_evaluation_takes_no_time_on_the_clock(module):
    timed = module("time_to_accuracy")
    assert doctest.testmod(timed).failed == 0
    points = timed.curve([timed.Look(1, 3.0, 8.0, 0.1), timed.Look(2, 9.0, 9.5, 0.3)], 1.0)
    assert [p["seconds"] for p in points] == [2.0, 3.0]
    assert timed.reached(points, 0.3) == 3.0
    assert timed.reached(points, 0.31) is None


@pytest.mark.slow
def test_flops_of_a_step_are_those_of_the_published_network(module):
    work = module("work")
    chosen = work.config("resnet18", 128, "float32")
    # ResNet-18 with a CIFAR stem is 0.556 G multiplications a view, the head 0.7 M.
    views = 2 * 128
    assert work.step_flops(chosen) / (3 * 2 * views) == pytest.approx(0.556e9, rel=0.005)


def test_a_claim_without_a_file_is_not_measured(module, tmp_path):
    table = module("table")
    rows = table.table(tmp_path).splitlines()[2:]
    assert len(rows) == len(table.CLAIMS)
    assert all("| not measured |" in row for row in rows)


def test_a_row_compares_with_the_best_of_its_peers(module, tmp_path):
    table = module("table")
    rates = {"contrastive_jax": 300.0, "torch": 600.0, "lightly, 0 workers": 20.0}
    rows = [
        {"work": "cpu", "contender": name, "images_per_second": rate}
        for name, rate in {**rates, "lightly, 2 workers": 100.0}.items()
    ]
    (tmp_path / "steps.json").write_text(json.dumps({"rows": rows}))
    claims = table.step_claims("CPU", "steps.json", "cpu", "a net", 1.0)[:2]
    torch, lightly = (table.cells(claim, tmp_path)[1:6] for claim in claims)
    assert torch == ["300 img/s", "torch: 600 img/s", "0.50", "1.0", table.TRIED]
    assert lightly == ["300 img/s", "lightly, 2 workers: 100 img/s", "3.00", "1.3", "reached"]
    absent = table.step_claims("CPU", "steps.json", "resnet18", "a net", 1.0)
    assert all(table.cells(claim, tmp_path)[5] == "not measured" for claim in absent[:1])


def test_an_accuracy_counts_only_if_the_last_step_has_it(module):
    table = module("table")
    row = {"contender": "contrastive_jax", "median_last_seconds": 300.0, "runs": [{}] * 3}
    peer = {
        "contender": "torch",
        "runs": [{}],
        "median_last_accuracy": 0.8,
        "median_last_seconds": 450.0,
    }
    results = [
        {"protocol": {"target": 0.9}, "rows": [{**row, "median_last_accuracy": found}, peer]}
        for found in (0.899, 0.9)
    ]
    assert [table.quick_accuracy(600.0)(result).ratio for result in results] == [0.0, 2.0]
    figures = table.quicker_training(results[1])
    assert figures == ("90.0% in 300 s (3 seeds)", "torch: 80.0% in 450 s (1 seed)", 1.5)


def test_writing_the_table_changes_nothing_else(module):
    table = module("table")
    page = f"before\n{table.MARKS[0]}\n| old |\n\n{table.MARKS[1]}after\n"
    written = table.put_into(page, "| new |")
    assert written == page.replace("old", "new")
    assert table.put_into(written, "| new |") == written


def test_a_try_is_small_unless_asked_otherwise_and_leaves_the_record_alone(module, monkeypatch):
    harness = module("harness")

    def parsed(*words):
        monkeypatch.setattr("sys.argv", ["script.py", *words])
        parser = argparse.ArgumentParser()
        parser.add_argument("--rounds", type=int, default=9)
        parser.add_argument("--images", type=int, default=50_000)
        parser.add_argument("--out", type=Path, default=harness.RESULTS / "script_cpu.json")
        args = harness.parse(parser, rounds=1, images=64)
        return args.rounds, args.images, args.out

    record = harness.RESULTS / "script_cpu.json"
    elsewhere = Path(tempfile.gettempdir()) / "script_cpu.json"
    assert parsed() == (9, 50_000, record)
    assert parsed("--smoke") == (1, 64, elsewhere)
    assert parsed("--smo") == parsed("--smoke")  # argparse takes the beginning of a word
    assert parsed("--smoke", "--rounds=3", "--out=here.json") == (3, 64, Path("here.json"))
