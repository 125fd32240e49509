"""A finished run, which the tests of what comes after training share."""

import signal

import pytest

from experiments.run import lifecycle
from experiments.simclr import EXPERIMENT

ARGUMENTS = (
    "--config=configs/digits.py:smoke",
    "--config.train.steps=4",
    "--config.train.log_every=1",
    "--config.checkpoint.every_steps=2",
    "--config.eval.every_steps=2",
    "--config.eval.labels_per_class=0",
    "--config.eval.probe_steps=8",
)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """The folder of a finished run of four steps, with everything that it draws."""
    folder = tmp_path_factory.mktemp("runs") / "a"
    argv = ["simclr.py", *ARGUMENTS, f"--workdir={folder}"]
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lifecycle, "set_up_jax", lambda: None)  # no compilation cache
        assert lifecycle.main(EXPERIMENT, argv) == 0
    for number, handler in handlers.items():
        signal.signal(number, handler)
    return folder
