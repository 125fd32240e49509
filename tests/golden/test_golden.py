"""Smoke runs reproduce the numbers that tests/golden/runs.py recorded."""

import json

import numpy as np
import pytest

from tests.golden import runs


@pytest.fixture(scope="module")
def measured(tmp_path_factory, in_the_repository_of_a_module):
    return runs.measure(tmp_path_factory.mktemp("golden"))


RECORDED = json.loads(runs.FILE.read_text())["runs"]


@pytest.mark.parametrize("name", RECORDED)
def test_smoke_runs_reproduce_their_recorded_numbers(measured, name):
    recorded, now = RECORDED[name], measured[name]
    np.testing.assert_allclose(now["loss"], recorded["loss"], rtol=1e-3)
    np.testing.assert_allclose(now["grad_norm"], recorded["grad_norm"], rtol=1e-2)
    assert now["scores"].keys() == recorded["scores"].keys()
    for score, value in recorded["scores"].items():
        assert now["scores"][score] == pytest.approx(value, abs=0.05), score


def test_every_recorded_run_was_run(measured):
    assert measured.keys() == RECORDED.keys()
