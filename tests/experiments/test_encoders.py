"""Every encoder through a command: a ViT from a file, one's own module of the docs."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy

from contrastive_jax import encoders
from contrastive_jax import export as exports
from contrastive_jax.encoders import torch_names
from experiments import export
from experiments.run import lifecycle, restore
from experiments.run.methods import METHODS
from tests.experiments import tiny

DOCS = Path(__file__).parents[2] / "docs" / "encoders.md"
VIT = {"name": "vit", "patch_size": 4, "dim": 8, "layers": 1, "heads": 2, "positions": "sincos"}


@pytest.fixture(autouse=True)
def _as_a_command(monkeypatch):
    monkeypatch.setattr(lifecycle, "set_up_jax", lambda: None)


def train(folder: Path, encoder: dict) -> Path:
    data = tiny.write_arrays(folder / "data.npz")
    values = {**tiny.config("simclr", data), "encoder": encoder}
    path = tiny.write_config(folder / "config.py", values)
    argv = ["simclr", "--config", str(path), "--workdir", str(folder / "run")]
    quick = ("figures=False", "baselines=False", "labels_per_class=0")
    argv += [f"--config.eval.{setting}" for setting in quick]
    assert lifecycle.main(METHODS["simclr"], argv) == 0
    return folder / "run"


def test_a_run_starts_from_a_file_and_is_exported_without_it(tmp_path, in_the_repository):
    x = np.zeros((1, 8, 8, 3), np.float32)
    variables = encoders.make(**VIT).init(jax.random.key(7), x, train=False)
    file = tmp_path / "weights.safetensors"
    safetensors.numpy.save_file(torch_names.to_torch(variables), file)
    run = train(tmp_path, {**VIT, "init": str(file)})
    first = restore.open_run(run).load()[0].fresh_state().params["encoder"]
    jax.tree.map(np.testing.assert_array_equal, first, variables["params"])
    file.unlink()
    assert export.main(["export", str(run), "--to", str(tmp_path / "to")]) == 0
    exported = exports.load(tmp_path / "to")
    assert exported.embed(np.zeros((2, 8, 8, 3), np.uint8)).shape == (2, 8)
    assert exported.card["config"]["encoder"]["init"] == "weights.safetensors"


def test_the_module_of_the_docs_is_trained(tmp_path, in_the_repository, monkeypatch):
    (block,) = re.findall(r"^```python\n(.*?)^```", DOCS.read_text(), re.DOTALL | re.MULTILINE)
    (tmp_path / "my_encoder.py").write_text(block)
    monkeypatch.syspath_prepend(tmp_path)
    run = train(tmp_path, {"name": "my_encoder:make", "channels": 4})
    state = restore.open_run(run).load()[2]
    assert state.params["encoder"]["Conv_0"]["kernel"].shape == (3, 3, 3, 4)
