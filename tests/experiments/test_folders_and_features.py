"""Own images and own features: trained with labels and without, scored on another set, by files."""

import numpy as np
import pytest

from contrastive_jax.errors import ConfigError, DataError
from contrastive_jax.storage import workdir
from experiments import evaluate
from experiments.run import restore
from experiments.scoring import feature_files, images, summary
from tests.data import photos, sets
from tests.experiments import tiny

pytestmark = pytest.mark.usefixtures("in_the_repository", "without_a_compilation_cache")
QUICK = ("--config.train.steps=1", "--config.eval.baselines=False")


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    return photos.write(tmp_path_factory.mktemp("photos") / "pets")


def folder_keys(*more):
    keys = ("source=folder", "image_size=8", "on_corrupt=skip", *more)
    return [f"--config.data.{key}" for key in keys]


def scored(folder, name="summary"):
    found = workdir.read_json(folder / "results" / f"{name}.json")
    return {row["protocol"]["name"] for row in found["evaluations"]}, found


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("labeled", [False, True])
def test_a_folder_is_trained_on_and_scored(labeled, streaming, pets, tmp_path, capsys):
    keys = folder_keys(f"class_folders={labeled}", f"streaming={streaming}")
    run = tmp_path / "run"
    drawn = not labeled and not streaming  # pictures cost the most
    pictures = (f"--config.eval.figures={drawn}",)
    assert tiny.train(run, "simclr", pets, *QUICK, *pictures, *keys) == 0
    names, found = scored(run)
    note = "the data has no labels: diagnostics, neighbors and maps are made"
    assert names == ({"knn", "linear", "few-label"} if labeled else set())
    assert (note in capsys.readouterr().err) != labeled
    assert found["data"]["name"] == "pets"
    assert "trained/features" in found["diagnostics"]
    if drawn:
        there = {path.stem for path in (run / "figures").glob("*.png")}
        assert {"neighbors", "map_features", "map_images"} <= there
        config = tiny.write_config(tmp_path / "sorted.py", tiny.config("simclr", pets))
        other = [word.replace("--config.", "--data.") for word in folder_keys()]
        assert tiny.main_of(evaluate.main, run, f"--data={config}", "--protocols=knn", *other) == 0
        assert scored(run, "evaluation-pets")[0] == {"knn"}


def test_a_prepared_set_without_labels_is_trained_on(tmp_path, capsys):
    import tensorflow_datasets as tfds

    image = tfds.features.Image(shape=(8, 8, 3))
    examples = [{"image": sets.encoded(each)} for each in tiny.arrays()["image"]]
    splits = {"train": examples, "test": examples[:12]}
    sets.write(tmp_path / "data", "plain", "1.0.0", {"image": image}, splits)
    keys = ("--config.data.source=tfds", "--config.data.name=plain", "--config.eval.figures=False")
    assert tiny.train(tmp_path / "run", "simclr", tmp_path / "data", *QUICK, *keys) == 0
    assert scored(tmp_path / "run")[0] == set()
    assert "experiments.evaluate RUN --data CONFIG" in capsys.readouterr().err


def test_features_of_a_file_get_the_scores_of_the_run_to_the_digit(tmp_path, capsys):
    arrays = tiny.write_arrays(tmp_path / "shades.npz")
    quiet = ("--config.eval.figures=False", "--config.eval.labels_per_class=0")
    assert tiny.train(tmp_path / "run", "simclr", arrays, *QUICK, *quiet) == 0
    run, _, trained = restore.open_run(tmp_path / "run").load()
    small = run.dataset
    h, h_test = (
        images.extract(run, trained, split["image"])["features"]
        for split in (small.train, small.test)
    )
    path = tmp_path / "mine.npz"
    labels = {"label": small.train["label"].astype(np.int64), "test_label": small.test["label"]}
    np.savez(path, features=h.astype(np.float64), test_features=h_test, **labels)
    settings = ("--config.eval.probe_steps=8", "--config.eval.draws=2")
    names = ("knn", "linear", "ridge", "retrieval", "clusters", "few")
    words = ["evaluate", "--features", str(path), "--protocols", ",".join(names), *settings]
    assert evaluate.main(words) == 0
    assert "kNN, chosen" in capsys.readouterr().out
    found = workdir.read_json(tmp_path / "mine-scores.json")

    chosen = images.settings(probe_steps=8, draws=2).protocols.whole_grids()
    of_run = summary.score_features(run, trained, names, chosen)
    expected = [each.row for each in of_run.scored if each.row["layer"] == "features"]
    assert len(expected) > 60
    for row, other in zip(expected, found["evaluations"], strict=True):
        for key in ("protocol", "value", "n", "ci95"):
            assert workdir_plain(row.get(key)) == other.get(key)
    with np.load(tmp_path / "mine-scores.npz") as predictions:
        np.testing.assert_array_equal(predictions["mine/label"], small.test["label"])
        assert "mine/features/ridge" in predictions


def workdir_plain(value):
    """As JSON holds it."""
    if isinstance(value, dict):
        return {key: workdir_plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [workdir_plain(each) for each in value]
    return value.item() if isinstance(value, np.generic) else value


X = np.eye(4, dtype=np.float32)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x_train": X, "y_train": np.arange(4)}, "holds x_train, y_train"),
        ({"features": X}, "holds features"),
        ({"features": X, "test_features": X[:, :2]}, "have 4 columns, test_features 2"),
        ({"features": X.reshape(2, 2, 4), "test_features": X}, "must be floats"),
        ({"features": X * np.nan, "test_features": X}, "row 0 that is not finite"),
        ({"features": X, "test_features": X, "label": X[0]}, "must be integers"),
        ({"features": X, "test_features": X, "label": np.arange(3)}, r"must be integers \[4\]"),
        (
            {
                "features": X,
                "test_features": X,
                "label": np.ones(4, int),
                "test_label": [1, 1, 1, 2],
            },
            "label 2 at index 3",
        ),
        ({"features": np.array([object()]), "test_features": X}, "allow_pickle"),
    ],
)
def test_files_that_hold_something_else_are_refused_by_name(arrays, message, tmp_path):
    np.savez(tmp_path / "mine.npz", **arrays)
    with pytest.raises(DataError, match=message):
        feature_files.read(tmp_path / "mine.npz")


def test_features_without_labels_get_diagnostics(tmp_path, capsys):
    np.savez(tmp_path / "plain.npz", features=X, test_features=X[:3].astype(np.float16))
    to = tmp_path / "out.json"
    assert tiny.main_of(evaluate.main, "--features", tmp_path / "plain.npz", "--to", to) == 0
    assert "plain/features: effective_rank" in capsys.readouterr().out
    assert workdir.read_json(to)["evaluations"] == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("mine.npz", "--protocols=sgd"), "'sgd' cannot score features"),
        (("mine.npz", "--to=mine.json"), "would replace the features"),
        (("a/x.npz", "b/x.npz"), "the same name"),
        (("mine.npz", "--seed=-1"), "--seed is -1"),
        (("mine.npz", "--config.eval.drws=3"), "did you mean 'draws'"),
        ((), "expected at least one argument"),
    ],
)
def test_commands_that_cannot_be_meant_are_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        tiny.main_of(evaluate.main, "--features", *words)
