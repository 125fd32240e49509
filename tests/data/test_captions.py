"""Captioned images: the glyphs and what is held out of them, texts of an .npz."""

import numpy as np
import pytest

from contrastive_jax import data
from contrastive_jax.data import captions, glyphs
from contrastive_jax.errors import DataError


@pytest.fixture(scope="module")
def loaded():
    return data.load("glyphs", batch_size=512)


def test_held_out_characters_are_new_and_every_word_of_them_is_taught(loaded):
    train, test = loaded.train, loaded.test
    assert not set(train["id"]) & set(test["id"])
    assert len(set(test["id"])) > 900
    _, first = np.unique(train["id"], return_index=True)
    words_of_names = [word for row in train["tokens"][first].tolist() for word in set(row)]
    counts = np.bincount(words_of_names, minlength=len(loaded.vocabulary))
    words = test["tokens"][test["tokens"] != captions.PAD]
    assert words.min() > captions.UNKNOWN
    assert counts[words].min() >= 3


def test_unseen_styles_are_in_the_test_set_alone(loaded):
    unseen = {list(glyphs.STYLES).index(style) for style in glyphs.UNSEEN}
    assert not unseen & set(loaded.train["style"])
    assert set(loaded.test["style"]) == set(range(len(glyphs.STYLES)))


def test_a_caption_is_the_name_of_its_character_and_the_label_its_first_word(loaded):
    for examples in (loaded.train, loaded.test):
        row = np.flatnonzero(examples["id"] == ord("ő" if examples is loaded.test else "x"))
        if len(row):
            caption = captions.caption_of(examples["tokens"][row[0]], loaded.vocabulary)
            assert caption.startswith("latin small letter")
            assert loaded.class_names[examples["label"][row[0]]] == "latin"
    assert loaded.class_names[-1] == "other"


def test_a_validation_share_comes_from_the_training_characters_alone(loaded):
    chosen = data.load("glyphs", batch_size=1, validation_fraction=0.1)
    codes = [{*part["id"].tolist()} for part in (loaded.train, chosen.train, chosen.test)]
    assert codes[1] | codes[2] <= codes[0]
    assert not codes[1] & codes[2]
    assert 0.05 < len(codes[2]) / len(codes[0]) < 0.1  # a few have words that are not taught
    assert set(chosen.test["style"]) == set(range(len(glyphs.STYLES)))
    for fraction, message in ((0.9, "is 0.9; give"), (1e-9, "holds out no character")):
        with pytest.raises(ValueError, match=f"validation_fraction .*{message}"):
            data.load("glyphs", batch_size=1, validation_fraction=fraction)
    with pytest.raises(ValueError, match="'digits' has no such key"):
        data.load("digits", batch_size=1, validation_fraction=0.1)


def test_capitals_are_larger_than_small_letters_on_one_baseline():
    drawn = {chr(glyph.code): glyph.image for glyph in glyphs.draw_style("Sans")}
    rows = {c: np.flatnonzero(drawn[c].any(axis=1)) for c in "oO"}
    assert rows["O"].min() < rows["o"].min()
    assert rows["O"].max() == rows["o"].max() == glyphs.BASELINE - 1


def write(path, **changes):
    image = np.zeros((4, 8, 8, 1), np.uint8)
    text = np.array(["A cat", "a dog!", "a cat", "2 dogs"])
    whole = {"image": image, "text": text, "test_image": image[:2], "test_text": text[1:3]}
    whole |= changes
    np.savez(path, **{name: array for name, array in whole.items() if array is not None})
    return path


def test_texts_of_an_npz_become_tokens_and_equal_ones_share_an_id(tmp_path):
    loaded = data.load("arrays", batch_size=2, data_dir=write(tmp_path / "mine.npz"))
    assert loaded.vocabulary == ("", "?", "a", "cat", "2", "dog", "dogs")
    assert loaded.train["tokens"].tolist() == [[2, 3], [2, 5], [2, 3], [4, 6]]
    assert loaded.train["id"].tolist() == [0, 1, 0, 2]
    assert loaded.test["id"].tolist() == [1, 0]
    assert data.identity(loaded)["vocabulary"] == list(loaded.vocabulary)


@pytest.mark.parametrize("wrong", [None, np.array(["one"]), np.arange(2)])
def test_texts_that_do_not_fit_the_images_are_refused(tmp_path, wrong):
    path = write(tmp_path / "mine.npz", test_text=wrong)
    with pytest.raises(DataError, match="text of test is .* and there are 2 images"):
        data.load("arrays", batch_size=2, data_dir=path)


def test_styles_of_an_npz_are_numbered_over_both_splits(tmp_path):
    style = {
        "style": np.array(["ink", "oil", "ink", "ink"]),
        "test_style": np.array(["wax", "ink"]),
    }
    loaded = data.load("arrays", batch_size=2, data_dir=write(tmp_path / "mine.npz", **style))
    assert loaded.styles == ("ink", "oil", "wax")
    assert loaded.train["style"].tolist() == [0, 1, 0, 0]
    assert loaded.test["style"].tolist() == [2, 0]
    path = write(tmp_path / "half.npz", style=style["style"])
    with pytest.raises(DataError, match="half: style is .* for 2 images"):
        data.load("arrays", batch_size=2, data_dir=path)
