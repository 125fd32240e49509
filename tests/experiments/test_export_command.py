"""`experiments.export`: a finished run becomes an encoder for others, with a card."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from contrastive_jax import export as exports
from contrastive_jax.errors import ConfigError
from contrastive_jax.storage import workdir
from experiments import export
from experiments.run import restore

pytestmark = pytest.mark.usefixtures("without_a_compilation_cache")


@pytest.fixture(scope="module")
def exported(finished_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    assert export.main(["export", str(finished_run), "--to", str(folder)]) == 0
    return folder


def test_a_loaded_export_gives_the_features_of_the_run_bit_for_bit(finished_run, exported):
    run, _, state = restore.open_run(finished_run).load()
    image = run.dataset.test["image"][:64]
    embed = jax.jit(run.objective.embed["image"])
    wanted = embed(state.params, state.model_state, {"image": image})["features"]
    features = np.asarray(exports.load(exported).embed(image))
    np.testing.assert_array_equal(features, np.asarray(wanted))
    assert features.std() > 0


def test_the_card_says_what_was_trained_and_how_it_scored(finished_run, exported):
    card = json.loads((exported / exports.CARD).read_text())
    summary = workdir.read_json(finished_run / "results" / "summary.json")
    assert card["step"] == 4
    assert card["scores"]["evaluations"] == summary["evaluations"]
    assert card["config"]["loss"]["temperature"] == 0.2
    assert "data_dir" not in card["config"]["data"]
    assert card["data"]["train"] == 40
    assert card["preprocessing"]["size"] == 8
    assert {"jax", "flax"} <= set(card["versions"]["trained"])


def test_a_step_without_scores_has_a_card_without_them(finished_run, tmp_path, capsys):
    assert export.main(["export", str(finished_run), "--to", str(tmp_path), "--step", "2"]) == 0
    assert "no scores of step 2" in capsys.readouterr().err
    card = json.loads((tmp_path / exports.CARD).read_text())
    assert (card["step"], card["scores"]) == (2, None)
    with pytest.raises(ConfigError, match="--step 3: the checkpoints are"):
        export.main(["export", str(finished_run), "--to", str(tmp_path), "--step", "3"])


def test_what_is_no_run_is_not_exported(tmp_path):
    with pytest.raises(ConfigError, match="holds no run"):
        export.main(["export", str(Path(tmp_path)), "--to", str(tmp_path / "to")])
