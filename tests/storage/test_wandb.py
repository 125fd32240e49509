"""Weights & Biases: one run a folder, each step once, and a sink that fails is dropped."""

import logging
import sys
from contextlib import closing
from types import SimpleNamespace

import jax.numpy as jnp
import pytest

from contrastive_jax.errors import ConfigError
from contrastive_jax.storage.wandb import WandbWriter


class Server:
    """A stand-in for the package and its server: runs by id, each {step: row}."""

    def __init__(self):
        self.runs: dict[str, dict[int, dict]] = {}
        self.inits: list[dict] = []
        self.finished = 0
        self.error: Exception | None = None

    def Settings(self, **settings):
        return settings

    def init(self, **options):
        self._fail()
        self.inits.append(options)
        history = self.runs.setdefault(options["id"], {})

        def log(row, step, commit):
            self._fail()
            assert commit
            assert step not in history
            history[step] = row

        first = max(history, default=-1) + 1
        return SimpleNamespace(log=log, step=first, finish=self._finish)

    def _finish(self):
        self.finished += 1

    def _fail(self):
        if self.error is not None:
            raise self.error


@pytest.fixture
def server(monkeypatch) -> Server:
    server = Server()
    monkeypatch.setitem(sys.modules, "wandb", server)
    return server


def writer(folder):
    return closing(WandbWriter(folder, "digits", {"train": {"seed": 0}}, "contrast"))


def test_each_step_is_sent_once_with_its_numbers(tmp_path, server):
    with writer(tmp_path) as sink:
        sink.write(10, {"loss": jnp.float32(0.25)})
        sink.write(20, {"loss": 0.125, "learning_rate": 1.0})
    assert list(server.runs.values()) == [
        {10: {"loss": 0.25}, 20: {"learning_rate": 1.0, "loss": 0.125}}
    ]
    (options,) = server.inits
    assert (options["project"], options["name"]) == ("contrast", "digits")
    assert options["config"] == {"train": {"seed": 0}}
    assert server.finished == 1


def test_a_resumed_run_goes_on_in_the_same_wandb_run_and_repeats_no_step(tmp_path, server):
    for steps in ([1, 2, 3, 4], [3, 4, 5]):  # the second starts at the checkpoint of step 2
        with writer(tmp_path) as sink:
            for step in steps:
                sink.write(step, {"loss": 1.0})
    (history,) = server.runs.values()
    assert list(history) == [1, 2, 3, 4, 5]
    assert {options["resume"] for options in server.inits} == {"allow"}


def test_another_folder_is_another_wandb_run(tmp_path, server):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        with writer(tmp_path / name):
            pass
    assert len(server.runs) == 2


@pytest.mark.parametrize("before", [0, 1])
def test_a_sink_that_fails_warns_once_and_is_dropped(tmp_path, server, caplog, before):
    with caplog.at_level(logging.WARNING):
        if not before:
            server.error = RuntimeError("no network\nand more")
        with writer(tmp_path) as sink:
            sink.write(1, {"loss": 1.0})
            server.error = RuntimeError("no network\nand more")
            sink.write(2, {"loss": 1.0})
            sink.write(3, {"loss": 1.0})
    assert [record.message for record in caplog.records] == [
        "Logging to W&B stops here (no network); metrics.jsonl goes on."
    ]
    assert [list(history) for history in server.runs.values()] == [[1]] * before


def test_a_missing_package_is_named_before_training(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match="pip install wandb"):
        writer(tmp_path)
    assert list(tmp_path.iterdir()) == []
