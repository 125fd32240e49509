"""A run on glyphs: scores of styles and of case beside their baselines, and its pictures."""

from types import SimpleNamespace

import numpy as np
import pytest

from contrastive_jax import data, figures
from contrastive_jax.data import captions
from contrastive_jax.storage import workdir
from experiments import clip
from experiments.run import lifecycle
from experiments.scoring import galleries, glyph_pictures, glyph_scores

pytestmark = pytest.mark.usefixtures("in_the_repository_of_a_module", "without_a_compilation_cache")
SHORT = ("--config.train.steps=2", "--config.data.limit_train=1500", "--config.data.limit_test=400",
         "--config.eval.figures=False", "--config.eval.probe_train=100")  # fmt: skip


@pytest.fixture(scope="module")
def summary(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "glyphs"
    argv = ["clip", "--config=configs/glyphs.py:smoke", f"--workdir={folder}", *SHORT]
    assert lifecycle.main(clip.EXPERIMENT, argv) == 0
    return workdir.read_json(folder / "results" / "summary.json")


def rows_of(summary, task):
    return [row for row in summary["evaluations"] if task in row["protocol"].get("task", "")]


def test_captions_stand_beside_chance_and_a_paired_test(summary):
    found = rows_of(summary, "image to text, Sans")
    for row in found:
        if row["measure"] == "recall@10":
            assert 10 / 400 <= row["chance"] < 12 / 400  # a few have twins
    trained = {row["measure"]: row for row in found if row["representation"] == "trained"}
    nearest = {row["measure"]: row for row in found if row["representation"] == "nearest neighbors"}
    for measure, row in trained.items():
        difference = row["value"] - nearest[measure]["value"]
        assert row["paired"]["difference"] == pytest.approx(difference)
        assert row["paired"]["against"] == "nearest neighbors"


@pytest.mark.parametrize("which", ["held-out characters", "all characters"])
def test_a_style_is_looked_up_in_another_beside_pixels(summary, which):
    found = rows_of(summary, f"Serif Italic to Sans, {which}")
    first = {row["representation"]: row for row in found if row["measure"] == "recall@1"}
    assert set(first) == {"trained", "untrained", "pixels"}
    assert first["pixels"]["value"] > 20 * first["pixels"]["chance"]
    assert first["trained"]["paired"]["against"] == "pixels"


def test_case_is_asked_by_prompts(summary):
    found = rows_of(summary, "small or capital")
    assert [row["representation"] for row in found] == ["trained", "untrained"]
    assert {row["chance"] for row in found} == {0.5}


def test_letters_with_a_case_are_those_whose_names_say_it():
    vocabulary = ("", "?", "latin", "small", "capital", "letter", "a", "ligature", "arabic")
    names = ["latin small letter a", "latin capital letter a", "latin small ligature a",
             "arabic small letter a", "latin small capital letter a"]  # fmt: skip
    tokens = captions.tokens_of([name.split() for name in names], vocabulary)
    image = np.arange(5, dtype=np.uint8)[:, None, None, None]
    test = {"image": image, "tokens": tokens, "id": np.arange(5)}
    dataset = data.Dataset("x", test, test, (), vocabulary=vocabulary)
    made = glyph_scores.cased(dataset)
    assert [part.tolist() for part in made] == [[0, 1], [0, 1]]
    assert glyph_scores.case_prompts(dataset) == ["latin {} letter a"]


def test_twins_are_correct_in_the_fair_count_alone():
    image = np.array([7, 7, 9], np.uint8)[:, None, None, None]
    gallery = galleries.gallery("x", {"image": image, "tokens": np.eye(3)[::-1]}, np.arange(3))
    np.testing.assert_array_equal(gallery.tokens_ML[gallery.strict_NM.argmax(1)], np.eye(3)[::-1])
    wrong_twin = np.eye(3)[[1, 2, 0]]  # each of the twins is nearest to the other's caption
    ranked, _ = galleries.both_ways(wrong_twin, gallery.tokens_ML, gallery, "trained")
    assert ranked.rank_N.tolist() == [1.0, 1.0, 1.0]
    assert ranked.strict_N.tolist() == [2.5, 2.5, 1.0]
    assert ranked.n_correct_N.tolist() == [2, 2, 1]


def test_only_pairs_that_training_never_showed_are_judged(tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(figures, "image_grid", lambda path, *drawn: seen.update({path.stem: drawn}))
    dataset = data.load("glyphs", batch_size=1)
    config = SimpleNamespace(data=SimpleNamespace(context=64))
    run = SimpleNamespace(dataset=dataset, plan=SimpleNamespace(seed=0), config=config)
    embed = lambda of, array: np.random.default_rng(0).normal(size=(len(array), 2))  # noqa: E731
    for name, draw in glyph_pictures.drawings(run, embed).items():  # type: ignore[arg-type]
        draw(tmp_path / f"{name}.png")
    cells, marks, letters, right, _ = seen["marks"]
    held_out = set(dataset.test["id"].tolist())
    place = marks.index("acute"), letters.index("e")
    assert cells[place[0]][place[1]] is not None
    assert (right[place[0]][place[1]] is not None) == (ord("é") in held_out)
    judged = sum(each is not None for row in right for each in row)
    assert 10 < judged < sum(cell is not None for row in cells for cell in row) / 4
    assert len(seen["styles"][0]) == glyph_pictures.CHARACTERS
    assert seen["styles"][2][-1] == "Serif Bold Italic (unseen)"


def test_every_caption_of_an_image_is_correct_and_asked_for():
    captions_NTL = np.array([[[2, 3], [2, 4]], [[2, 4], [9, 9]], [[5, 0], [9, 9]]])
    test = {"image": np.arange(3)[:, None], "captions": captions_NTL, "n_captions": [2, 1, 1]}
    test |= {"n_captions": np.array(test["n_captions"])}
    gallery = galleries.gallery("x", test, np.arange(3))
    assert gallery.tokens_ML.tolist() == [[2, 3], [2, 4], [5, 0]]
    assert gallery.strict_NM.tolist() == [
        [True, True, False],
        [False, True, False],
        [False] * 2 + [True],
    ]


def test_the_script_is_asked_of_scripts_alone(summary):
    of_scripts, rows = rows_of(summary, "script"), summary["evaluations"]
    assert [row["representation"] for row in of_scripts] == ["trained", "untrained"]
    everything = [row for row in rows if row["protocol"].get("by") == "their training captions"]
    assert {row["n"] for row in everything if "task" not in row["protocol"]} == {400}
    assert 0 < of_scripts[0]["n"] < 400
    test = {"label": np.array([0, 2, 1, 3])}
    dataset = data.Dataset("x", test, test, ("latin", "mathematical", "greek", "other"))
    assert glyph_scores.in_scripts(dataset, test).tolist() == [True, True, False, False]
