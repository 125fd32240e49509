"""A finished run, which the tests of what comes after training share."""

import signal

import pytest

from experiments.run import lifecycle
from tests.experiments import tiny

FOUR_STEPS = ("--config.train.steps=4", "--config.checkpoint.every_steps=2")


@pytest.fixture(scope="module")
def without_a_compilation_cache():
    """Commands that run in the tests' process leave its compilation cache as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lifecycle, "set_up_jax", lambda: None)
        yield


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """The folder of a finished run, with everything that it draws."""
    folder = tmp_path_factory.mktemp("runs") / "a"
    data = tiny.write_arrays(tmp_path_factory.mktemp("data") / "shades.npz")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lifecycle, "set_up_jax", lambda: None)  # no compilation cache
        assert tiny.train(folder, "simclr", data, *FOUR_STEPS) == 0
    for number, handler in handlers.items():
        signal.signal(number, handler)
    return folder
