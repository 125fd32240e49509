"""The benchmarks: every module is there, the clock stops for evaluation, FLOP, the table."""

import argparse
import contextlib
import importlib
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest

from benchmarks import performance, time_to_accuracy
from benchmarks.shared import harness, simclr_jax, work
from experiments.run import lifecycle

ROOT = Path(__file__).parents[1]


def test_evaluation_takes_no_time_on_the_clock():
    measured = [(1, 3.0, 8.0, 0.1), (2, 9.0, 9.5, 0.3)]
    evaluations = [time_to_accuracy.Evaluation(*each) for each in measured]
    points = time_to_accuracy.curve(evaluations, 1.0)
    assert [p["seconds"] for p in points] == [2.0, 3.0]
    assert time_to_accuracy.reached(points, 0.3) == 3.0
    assert time_to_accuracy.reached(points, 0.31) is None


def test_every_module_is_imported_or_lacks_a_peer():
    for file in (ROOT / "benchmarks").rglob("*.py"):
        absent = (ModuleNotFoundError,) if file.parent.name == "peers" else ()
        with contextlib.suppress(*absent):
            importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))


def test_contenders_that_lack_a_package_are_skipped_with_its_name(monkeypatch):
    there = {"jax", "torch"}
    monkeypatch.setattr(harness.importlib.util, "find_spec", lambda name: name in there or None)
    names = ("contrastive_jax, Muon", "torch", "torchvision PIL, 2 workers", "lightly, 0 workers")
    runnable, skipped = harness.split_installed(names)
    assert runnable == ["contrastive_jax, Muon", "torch"]
    assert skipped == {
        "torchvision PIL, 2 workers": "torchvision is not installed",
        "lightly, 0 workers": "lightly is not installed",
    }


def test_the_step_that_is_timed_trains_and_has_its_parts(monkeypatch):
    monkeypatch.setattr(lifecycle, "set_up_jax", lambda: None)
    config = work.config("smoke", 8, "float32")
    config.augment.size, config.encoder.stages = 8, 1
    images = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3), np.uint8)
    contender = simclr_jax.contender(config, images)
    contender.step()
    contender.wait()
    assert list(contender.parts())[1:4] == ["forward", "forward and backward", "loss"]


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
