"""The evaluation command: what it refuses, which few-label draws it makes, how it compares runs."""

import numpy as np
import pytest

from contrastive_jax.errors import CheckpointError, ConfigError
from contrastive_jax.evaluation import probes
from contrastive_jax.evaluation.knn import Scored
from experiments import evaluate
from experiments.scoring import protocols

CONFIG = "--config=configs/digits.py"


@pytest.mark.parametrize(
    ("word", "error", "says"),
    [
        ("--protocols=knn,kmn", ConfigError, "'kmn' is none of knn, linear"),
        ("--epochs=many", ConfigError, "--epochs is 'many'; give a number"),
        ("--epochs=nan", ConfigError, "--epochs nan"),
        ("--label_fraction=1.5", ConfigError, "--label_fraction 1.5"),
        ("--data=configs/nope.py", ConfigError, "no config file 'configs/nope.py'"),
        ("--data=configs/digits.py:smok", ConfigError, "preset 'smok' is unknown"),
        ("--data.data.source=digits", ConfigError, "data"),
        ("--step=best", CheckpointError, "holds no run"),
    ],
)
def test_what_cannot_be_scored_is_refused_before_anything_runs(word, error, says, tmp_path):
    with pytest.raises(error, match=says):
        evaluate.main(["evaluate.py", CONFIG, f"--workdir={tmp_path}", word])
    assert not list(tmp_path.iterdir())


def test_draws_that_the_rarest_class_cannot_fill_are_left_out_and_named(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(probes, "few_label_probe", lambda *sets, **words: asked.append(words))
    monkeypatch.setattr(probes, "few_label_row", lambda result, **names: names)
    label = np.repeat(np.arange(3), [40, 12, 9])
    labelled = np.zeros((61, 2), np.float32), label
    sets = protocols.Sets(labelled, labelled, labelled, 3, steps=5, draws=2, seed=0)
    names = {"representation": "zeros", "layer": "x"}
    assert protocols.few(sets, names) == [Scored(names, None)] * 4
    assert [words.get("per_class") for words in asked] == [1, 5, None, None]
    assert [words.get("fraction") for words in asked] == [None, None, 0.01, 0.1]
    assert "left out: [10, 100] labels a class, the rarest has 9" in capsys.readouterr().err


def test_runs_are_compared_on_what_the_trained_encoders_of_both_predicted():
    rng = np.random.default_rng(0)
    label, mine, theirs = rng.integers(3, size=(3, 200))
    kept = {"trained/features/ridge": mine, "trained/z/ridge": mine, "pixels/pixels/ridge": mine}
    other = {"trained/features/ridge": theirs, "pixels/pixels/ridge": theirs, "label": label}
    tests = evaluate.paired({**kept, "label": label}, other)
    assert list(tests) == ["trained/features/ridge"]
    test = tests["trained/features/ridge"]
    points = [int(a == y) - int(b == y) for a, b, y in zip(mine, theirs, label, strict=True)]
    assert test["difference"] == pytest.approx(np.mean(points))
    assert test["mcnemar"]["only_second"] == points.count(1)  # the second is the run itself
    assert test["mcnemar"]["only_first"] == points.count(-1)
    shown = [{"predictions": "trained/features/ridge"}, {"predictions": "pixels/pixels/ridge"}, {}]
    (line,) = evaluate._verdicts(shown, tests)
    assert line.startswith(f"trained/features/ridge: {100 * np.mean(points):+.1f} points")


def test_another_run_must_have_been_scored_on_the_same_test_images(tmp_path):
    label = np.arange(5)
    with pytest.raises(ConfigError, match="evaluation.npz is not there"):
        evaluate._other(str(tmp_path), "evaluation.npz", label)
    (tmp_path / "results").mkdir()
    np.savez(tmp_path / "results" / "evaluation.npz", label=label)
    assert set(evaluate._other(str(tmp_path), "evaluation.npz", label)) == {"label"}
    with pytest.raises(ConfigError, match="other test images"):
        evaluate._other(str(tmp_path), "evaluation.npz", label[::-1])
