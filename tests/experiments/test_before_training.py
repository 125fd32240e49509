"""What scoring and drawing need is asked before the first step; odd data costs no scores."""

import threading

import numpy as np
import pytest

from contrastive_jax import figures
from contrastive_jax.errors import ConfigError, DataError
from contrastive_jax.storage import workdir
from experiments import evaluate
from tests.experiments import tiny

pytestmark = pytest.mark.usefixtures("in_the_repository", "without_a_compilation_cache")


def labels(n, first=0, classes=3):
    return first + np.arange(n) % classes


def few_of_one(n):
    label = np.arange(n) % 2
    label[:3] = 2
    return label


def images(n, channels=3):
    return np.random.default_rng(n).integers(0, 255, (n, 8, 8, channels), np.uint8)


QUICK = (
    "--config.train.steps=1",
    "--config.eval.figures=False",
    "--config.eval.baselines=False",
    "--config.eval.labels_per_class=0",
)
ODD = {  # name -> (arrays, further arguments, what the notes say)
    "a class with 3 images": (
        {"label": few_of_one(40)},
        ("--config.eval.labels_per_class=5",),
        "few, 5 labels a class (class 2 has 3)",
    ),
    "8 training images": (
        {"image": images(8), "label": labels(8)},
        (),
        "linear (8 labeled training examples leave none to choose by)",
    ),
    "2 channels, 1 test image": (
        {"image": images(40, 2), "test_image": images(1, 2), "test_label": labels(1)},
        (),
        "",
    ),
    "5 channels, labels from 1": (
        {
            "image": images(40, 5),
            "label": labels(40, 1),
            "test_image": images(12, 5),
            "test_label": labels(12, 1),
        },
        (),
        "",
    ),
    "no labels at all": (
        {"label": None, "test_label": None},
        (),
        "the data has no labels: diagnostics, neighbors and maps are made",
    ),
    "test labels alone": ({"label": None}, (), "no training example has a label"),
    "training labels alone": ({"test_label": None}, (), "no test example has a label"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_data_is_trained_on_scored_and_drawn(name, tmp_path, capsys):
    changes, arguments, note = ODD[name]
    plain = {"text": None, "test_text": None}  # captions would need the images that they have
    data = tiny.write_arrays(tmp_path / "odd.npz", **plain, **changes)
    steps = ("--config.train.steps=1", "--config.eval.every_steps=1")
    assert tiny.train(tmp_path / "run", "simclr", data, *steps, *arguments) == 0
    printed = capsys.readouterr()
    assert note in printed.err
    assert "warning: the picture" not in printed.err
    summary = workdir.read_json(tmp_path / "run" / "results" / "summary.json")
    assert bool(summary["left_out"]) == bool(note)
    assert "trained/features" in summary["diagnostics"]
    scored = {row["protocol"]["name"] for row in summary["evaluations"]}
    if not note:  # nothing was left out
        assert scored == {"knn", "linear", "few-label"}
    pictures = {path.stem for path in (tmp_path / "run" / "figures").glob("*.png")}
    assert {"views", "curves", "cosines", "neighbors", "map_features"} <= pictures
    if name in ("no labels at all", "8 training images"):
        capsys.readouterr()
        assert tiny.main_of(evaluate.main, tmp_path / "run") == 0
        assert "left out: " in capsys.readouterr().err


def test_labels_of_a_test_set_that_training_lacks_are_refused_before_training(tmp_path):
    data = tiny.write_arrays(tmp_path / "odd.npz", test_label=labels(12, 1))
    with pytest.raises(DataError, match="label 3"):
        tiny.train(tmp_path / "run", "simclr", data)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("--config.eval.l2_grid=(0.0,)", "strengths above 0"),
        ("--config.eval.draws=1", "eval.draws is 1; give at least 2"),
        ("--config.eval.predict=colour", "'colour'; give one of"),
        ("--config.checkpoint.keep=0", "keep=0"),
        ("--config.loss.kind=sup_con", "reads labels, and the data has none"),
        ("--config.log.wandb=project", "pip install wandb"),
        ("--config.encoder.name=mlp", "give one of: resnet"),
        ("--config.augment.n_small_views=2", "simclr compares views of one size"),
        ("--config.encoder.dept=18", "did you mean 'depth'"),
    ],
)
def test_what_would_fail_later_is_refused_before_training(argument, says, tmp_path):
    data = tiny.write_arrays(tmp_path / "odd.npz", label=None, test_label=None)
    with pytest.raises(ConfigError, match=says):
        tiny.train(tmp_path / "run", "simclr", data, argument)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_refused_value_does_not_claim_the_folder(tmp_path):
    data = tiny.write_arrays(tmp_path / "shades.npz")
    with pytest.raises(ConfigError, match="views"):
        tiny.train(tmp_path / "run", "simclr", data, *QUICK, "--config.augment.n_views=1")
    assert tiny.train(tmp_path / "run", "simclr", data, *QUICK) == 0


def test_color_transformations_of_gray_images_are_refused_before_training(tmp_path):
    data = tiny.write_arrays(tmp_path / "gray.npz", image=images(40, 1), test_image=images(12, 1))
    with pytest.raises(ConfigError, match="color three channels"):
        tiny.train(tmp_path / "run", "simclr", data, "--config.eval.predict=color")


def test_a_picture_that_fails_costs_neither_scores_nor_other_pictures(
    tmp_path, capsys, monkeypatch
):
    def fails(path, *arguments, **keywords):
        scores = path.parents[1] / "results" / "summary.json"
        assert scores.exists()  # the scores are written first
        raise RuntimeError("no such font")

    monkeypatch.setattr(figures, "score_bars", fails)
    monkeypatch.setattr(figures, "views_grid", fails)
    data = tiny.write_arrays(tmp_path / "shades.npz")
    assert tiny.train(tmp_path / "run", "simclr", data, "--config.train.steps=1") == 0
    printed = capsys.readouterr()
    for name in ("scores", "views"):
        assert f"the picture {name}.png was not drawn (RuntimeError: no such font)" in printed.err
    assert (tmp_path / "run" / "figures" / "curves.png").exists()
    assert tiny.train(tmp_path / "run", "simclr", data, "--config.train.steps=1") == 0
    assert "is complete" in capsys.readouterr().out


def test_a_run_can_be_trained_in_a_thread_of_a_notebook(tmp_path):
    codes = []
    data = tiny.write_arrays(tmp_path / "shades.npz")

    def work():
        codes.append(tiny.train(tmp_path / "run", "simclr", data, *QUICK))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert codes == [0]
