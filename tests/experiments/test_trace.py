"""The way from a command to its loss: the functions and files that docs/design.md lists."""

import re
import traceback
from pathlib import Path

import pytest

from experiments.run import build, lifecycle
from experiments.run import losses as by_name
from experiments.run.methods import METHODS

ROOT = Path(__file__).parents[2]


class Reached(Exception):
    """The loss was called."""


def test_the_way_to_the_loss_is_the_documented_one(monkeypatch, in_the_repository, tmp_path):
    def loss(z_BVD, temperature, *, normalize, block_size, axis_name=None):
        raise Reached

    monkeypatch.setitem(by_name.KINDS, "nt_xent", (loss, by_name.KINDS["nt_xent"][1]))
    monkeypatch.setattr(lifecycle, "set_up_jax", lambda: None)
    monkeypatch.setattr(build, "_trace", lambda *args: None)  # which calls the loss before
    argv = ["simclr", "--config=configs/digits.py:smoke", f"--workdir={tmp_path}"]
    with pytest.raises(Reached) as reached:
        lifecycle.main(METHODS["simclr"], argv)
    way = _functions(reached.tb)
    assert [*way, ("contrastive_jax/losses/softmax.py", "nt_xent")] == documented()
    assert len(documented()) <= 7
    assert len({file for file, _ in documented()}) <= 6


def _functions(trace):
    """The functions of both packages on the stack, the outermost first."""
    frames = traceback.extract_tb(trace)
    folders = tuple(f"{ROOT}/{name}/" for name in ("contrastive_jax", "experiments"))
    ours = [f for f in frames if f.filename.startswith(folders)]
    return [(str(Path(f.filename).relative_to(ROOT)), f.name) for f in ours]


def documented():
    text = (ROOT / "docs" / "design.md").read_text()
    return re.findall(r"^\d\. `([\w/.]+)`: `(\w+)`", text, re.MULTILINE)
