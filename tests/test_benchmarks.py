"""The benchmarks' arithmetic: the clock that stops for evaluation, FLOP, equal work, the table."""

import argparse
import json
import tempfile
from pathlib import Path

import pytest

from benchmarks import augment, losses, performance, time_to_accuracy, train_step
from benchmarks.shared import harness, work

COMMANDS = ("augment", "losses", "time_to_accuracy", "train_step")


def test_evaluation_takes_no_time_on_the_clock():
    measured = [(1, 3.0, 8.0, 0.1), (2, 9.0, 9.5, 0.3)]
    evaluations = [time_to_accuracy.Evaluation(*each) for each in measured]
    points = time_to_accuracy.curve(evaluations, 1.0)
    assert [p["seconds"] for p in points] == [2.0, 3.0]
    assert time_to_accuracy.reached(points, 0.3) == 3.0
    assert time_to_accuracy.reached(points, 0.31) is None


@pytest.mark.slow
def test_flops_of_a_step_are_those_of_the_published_network():
    chosen = work.config("resnet18", 128, "float32")
    # ResNet-18 with a CIFAR stem is 0.556 G multiplications a view, the head 0.7 M.
    views = 2 * 128
    assert work.step_flops(chosen) / (3 * 2 * views) == pytest.approx(0.556e9, rel=0.005)


def test_a_claim_without_a_file_has_no_row(tmp_path):
    assert performance.rows(tmp_path) == []


def test_a_row_compares_with_the_best_of_its_peers(tmp_path, monkeypatch):
    rates = {"contrastive_jax": 300.0, "torch": 600.0, "lightly, 0 workers": 20.0}
    rows = [
        {"work": "cpu", "contender": name, "images_per_second": rate}
        for name, rate in {**rates, "lightly, 2 workers": 100.0}.items()
    ]
    (tmp_path / "steps.json").write_text(json.dumps({"rows": rows}))
    claims = performance.step_claims("CPU", "steps.json", "cpu", "a net", 1.0)[:2]
    absent = performance.step_claims("CPU", "steps.json", "resnet18", "a net", 1.0)[:2]
    monkeypatch.setattr(performance, "CLAIMS", [*claims, *absent])
    torch, lightly = (row[1:6] for row in performance.rows(tmp_path))
    assert torch == ["300 img/s", "torch: 600 img/s", "0.50", "1.0", performance.MISSED]
    assert lightly == ["300 img/s", "lightly, 2 workers: 100 img/s", "3.00", "1.3", "reached"]


def test_training_is_compared_with_the_accuracy_that_it_reached():
    row = {"contender": "contrastive_jax", "median_last_seconds": 300.0, "runs": [{}] * 3}
    peer = {"contender": "torch", "median_last_seconds": 450.0, "runs": [{}]}
    rows = [{**row, "median_last_accuracy": 0.9}, {**peer, "median_last_accuracy": 0.8}]
    figures = performance.faster_training({"rows": rows})
    assert figures == ("90.0% in 300 s (3 seeds)", "torch: 80.0% in 450 s (1 seed)", 1.5)


def test_a_try_is_small_unless_asked_otherwise_and_leaves_the_record_alone(monkeypatch):
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
