"""The evaluation command: what it refuses before anything runs, and how runs are compared."""

import numpy as np
import pytest

from contrastive_jax.errors import ConfigError
from contrastive_jax.storage import workdir
from experiments import evaluate
from tests.experiments import tiny

pytestmark = pytest.mark.usefixtures("in_the_repository")


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("--protocols=knn,kmn", "'kmn' is no protocol; did you mean 'knn'"),
        ("--epochs=many", "--epochs is 'many'; give a number"),
        ("--epochs=nan", "--epochs nan"),
        ("--label_fraction=1.5", "--label_fraction 1.5"),
        ("--data=configs/nope.py", "no config file 'configs/nope.py'"),
        ("--data=configs/digits.py:smok", "preset 'smok' is unknown"),
        ("--step=99", "--step 99: the checkpoints are"),
        ("--config.loss.temperature=0.9", "would make it another run"),
        ("--config.eval.drws=3", "did you mean 'draws'"),
        ("another_folder", "2 folders"),
    ],
)
def test_what_cannot_be_scored_is_refused_before_anything_runs(argument, says, finished_run):
    before = _times(finished_run)
    with pytest.raises(ConfigError, match=says):
        evaluate.main(["evaluate.py", str(finished_run), argument])
    assert _times(finished_run) == before


def _times(folder):
    files = (path for path in folder.rglob("*.*") if path.name != ".lock")
    return {path: path.stat().st_mtime_ns for path in files}


def test_another_run_must_have_been_scored_on_the_same_test_images(tmp_path):
    label = np.arange(5)
    with pytest.raises(ConfigError, match="evaluation.npz is not there"):
        evaluate._other(str(tmp_path), "evaluation.npz", label)
    (tmp_path / "results").mkdir()
    np.savez(tmp_path / "results" / "evaluation.npz", label=label)
    assert set(evaluate._other(str(tmp_path), "evaluation.npz", label)) == {"label"}
    with pytest.raises(ConfigError, match="other test images"):
        evaluate._other(str(tmp_path), "evaluation.npz", label[::-1])


def test_views_of_another_size_than_the_images_leave_the_pixels_without_alignment(tmp_path):
    images = tiny.write_arrays(tmp_path / "shades.npz")
    smaller = ("--config.augment.size=6", "--config.eval.figures=False")
    assert tiny.train(tmp_path / "run", "simclr", images, *smaller) == 0
    assert tiny.main_of(evaluate.main, tmp_path / "run", "--protocols=knn") == 0
    found = workdir.read_json(tmp_path / "run" / "results" / "evaluation.json")["diagnostics"]
    assert "alignment" in found["trained/features"]
    assert "alignment" not in found["pixels/pixels"]
    assert "rankme" in found["pixels/pixels"]
