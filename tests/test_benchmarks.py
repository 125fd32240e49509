"""The benchmarks' arithmetic: the clock that stops for evaluation, FLOP by shapes, the table."""

import doctest
import importlib
import json
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
    claim = table.Claim("a step", "steps.json", table.faster_step("cpu", "lightly"))
    ours, best, ratio = table.cells(claim, tmp_path)[1:4]
    assert (ours, best, ratio) == ("300 img/s", "lightly, 2 workers: 100 img/s", "3.00")
